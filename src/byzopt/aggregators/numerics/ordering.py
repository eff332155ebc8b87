"""An order of rows by their values, in which choices are made that exact ties leave open.

Behind a pre-aggregator exact ties are usual: rows mixed from the same ones but two lie equally far apart, and
clipped rows are equally long. Rounding would then decide, and rounding depends on the order of sums. Where
sums are taken, and ties broken, in an order of the rows' values, what is decided depends on the set of rows
alone.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.numerics.geometry import Index

_MOST = 512  # columns that decide
_GOLDEN = (5**0.5 - 1) / 2  # its multiples spread evenly over [0, 1), and no period of the columns meets them


def keys(rows: Tensor, first: int, d: int) -> Tensor:
    """What the columns `first ..` of d, held in `rows` `[..., n, b]`, add to their keys: `[..., n]` float64.

    A key is a sum over at most 512 columns with a factor for each.
    """
    columns, factors = _chosen(d)
    if rows.shape[-1] < d:
        here = (columns >= first) & (columns < first + rows.shape[-1])
        columns, factors = columns[here] - first, factors[here]
    some = rows if rows.shape[-1] == len(columns) else rows.index_select(-1, columns.to(rows.device))
    return some.to(torch.float64) @ factors.to(rows.device)


def order_of(keys: Tensor) -> Index:
    """The places of rows in the order of their `keys` `[..., n]`.

    Rows with equal keys, which agree in all the columns that decide, keep their order.
    """
    return keys.cpu().numpy().argsort(axis=-1, kind="stable")


@lru_cache(maxsize=64)
def _chosen(d: int) -> tuple[Tensor, Tensor]:
    """The columns that decide, ascending, and their factors, none of which equals another."""
    steps = np.arange(min(d, _MOST)) * _GOLDEN % 1
    columns = np.arange(d) if d <= _MOST else np.unique((steps * d).astype(np.int64))
    return torch.from_numpy(columns), torch.from_numpy(1 + steps[: len(columns)])
