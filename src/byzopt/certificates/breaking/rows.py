"""Honest rows that rules find hard, by name: `ROWS[name](n, f, d, generator)` gives `[n, d]` in float64.

The first f of the n rows are what the Byzantine workers would send if honest; the others are the honest rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor

OFFSET = 1e4  # of `offset`, in standard deviations
APART, TIGHT = 10.0, 0.1  # of `clusters`: distance in each coordinate, standard deviation within
KINDS = 3  # different rows in `duplicates`


def _gaussian(n: int, f: int, d: int, generator: Generator) -> Tensor:
    """N(1, 1) in every coordinate: worker noise around one gradient."""
    return 1 + torch.randn(n, d, dtype=torch.float64, generator=generator, device="cpu")


def _clusters(n: int, f: int, d: int, generator: Generator) -> Tensor:
    """Heterogeneity: f honest rows (at least one) sit far from all others."""
    rows = TIGHT * torch.randn(n, d, dtype=torch.float64, generator=generator, device="cpu")
    return rows + APART * _minority(n, f)


def _offset(n: int, f: int, d: int, generator: Generator) -> Tensor:
    """The gaussian cloud, far from zero."""
    return OFFSET + torch.randn(n, d, dtype=torch.float64, generator=generator, device="cpu")


def _line(n: int, f: int, d: int, generator: Generator) -> Tensor:
    """f honest ones and n - f zeros on a line: the rows behind the lower bounds of `theory.robustness`."""
    rows = torch.zeros(n, d, dtype=torch.float64, device="cpu")
    rows[:, :1] = _minority(n, f)
    return rows


def _duplicates(n: int, f: int, d: int, generator: Generator) -> Tensor:
    """Copies of a few different rows, so that scores and distances tie."""
    kinds = 1 + torch.randn(KINDS, d, dtype=torch.float64, generator=generator, device="cpu")
    return kinds[torch.arange(n, device="cpu") % KINDS]


def _simplex(n: int, f: int, d: int, generator: Generator) -> Tensor:
    """Every worker has a coordinate of its own (shared from n > d on): no two rows agree."""
    return torch.eye(d, dtype=torch.float64, device="cpu")[torch.arange(n, device="cpu") % d]


def _minority(n: int, f: int) -> Tensor:
    return (torch.arange(n, device="cpu") >= n - max(f, 1)).double().unsqueeze(1)


ROWS: Mapping[str, Callable[[int, int, int, Generator], Tensor]] = {
    "gaussian": _gaussian,
    "clusters": _clusters,
    "offset": _offset,
    "line": _line,
    "duplicates": _duplicates,
    "simplex": _simplex,
}
