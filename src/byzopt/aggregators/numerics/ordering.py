"""An order of rows by their values, in which choices are made that exact ties leave open.

Behind a pre-aggregator exact ties are usual: rows mixed from the same ones but two lie equally far apart, and
clipped rows are equally long. Rounding would then decide, and rounding depends on the order of sums. Where
sums are taken, and ties broken, in an order of the rows' values, what is decided depends on the set of rows
alone.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from byzopt import kernels
from byzopt.aggregators.numerics.distances import Array, Index

_SHARED = (torch.float32, torch.float64)  # NumPy reads these too, several times faster where there is little
_MOST = 512  # columns that decide
_GOLDEN = (5**0.5 - 1) / 2  # its multiples spread evenly over [0, 1), and no period of the columns meets them


def keys(rows: Tensor, first: int, d: int) -> Tensor:
    """What the columns `first ..` of d, held in `rows` `[..., n, b]`, add to their keys: `[..., n]` float64.

    A key is a sum over at most 512 columns with a factor for each.
    """
    if rows.ndim == 2 and rows.shape[1] == d and kernels.supports(rows):
        return torch.from_numpy(row_keys(rows))
    columns, factors = _chosen(d, rows.device)
    if rows.shape[-1] < d:
        here = (columns >= first) & (columns < first + rows.shape[-1])
        columns, factors = columns[here] - first, factors[here]
    some = rows if rows.shape[-1] == len(columns) else _picked(rows, columns)
    return some.to(torch.float64) @ factors


def row_keys(rows: Tensor) -> Array:
    """The keys `[n]` of whole rows `[n, d]` that kernels can read."""
    columns, factors = listed(rows.shape[1])
    return kernels.row_sums(rows, columns, factors)


def sample(rows: Tensor) -> Tensor:
    """The columns of whole `rows` `[n, d]` that decide, `[n, k]`."""
    columns, _ = _chosen(rows.shape[1], rows.device)
    return _picked(rows, columns)


def _picked(rows: Tensor, columns: Tensor) -> Tensor:
    """Some columns of `rows` `[..., n, b]`. Torch picks those that lie one after the other best as rows."""
    if rows.stride(-2) == 1:
        return rows.mT.index_select(-2, columns).mT.contiguous()
    return rows.index_select(-1, columns)


def taken(rows: Tensor, order: Index) -> Tensor:
    """`rows` `[n, d]` on the CPU in another order."""
    if rows.dtype in _SHARED:
        return torch.from_numpy(rows.numpy()[order])
    return rows.index_select(0, torch.from_numpy(order))


def order_of(keys: Tensor) -> Index:
    """The places of rows in the order of their `keys` `[..., n]`.

    Rows with equal keys, which agree in all the columns that decide, keep their order.
    """
    return keys.cpu().numpy().argsort(axis=-1, kind="stable")


def row_order(rows: Tensor) -> Index:
    """The order of whole rows `[n, d]` that kernels can read."""
    return row_keys(rows).argsort(kind="stable")


class Order:
    """The order of rows that have these `keys` `[n]`, which are fetched when it is asked for.

    Who fetches something else before may bring the keys with it, and tells them by `learn`.
    """

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys

    def learn(self, keys: Tensor) -> None:
        """Take note of the `keys` `[n]` as they are on the CPU."""
        self.keys = keys

    @cached_property
    def index(self) -> Index:
        """The places of rows in their order."""
        return order_of(self.keys)


@lru_cache(maxsize=64)
def _chosen(d: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The columns that decide, ascending, and their factors, none of which equals another."""
    columns, factors = listed(d)
    return torch.from_numpy(columns).to(device), torch.from_numpy(factors).to(device)


@lru_cache(maxsize=64)
def listed(d: int) -> tuple[Index, Array]:
    """As above, as arrays."""
    steps: Array = np.arange(min(d, _MOST), dtype=np.float64) * _GOLDEN % 1
    columns = np.arange(d) if d <= _MOST else np.unique((steps * d).astype(np.int64))
    return columns, 1 + steps[: len(columns)]
