"""What a pass by a kernel over rows and the sums that they enter begins with, and what it says afterwards.

It needs a row of the bulk before it has seen the rows: the medoid of some of their columns, among workers
still trusted. What it measures says whether that was one, and whether rows are finite.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from byzopt import kernels, linalg
from byzopt.aggregators.guards import majority
from byzopt.aggregators.guards.majority import Crowd
from byzopt.aggregators.numerics.distances import Array, Distances
from byzopt.aggregators.numerics.measuring import SMALL, about_bulk

TRIES = 3  # passes: with rows that prove unfit, with one that proves far, and without
MOST = 512  # rows up to which blocks of them and their sums are wide enough
LOOK = 1 << 9  # columns that the first centre is chosen by
_RUN = 16  # of them side by side: a line of the cache, which is fetched whole


def one_pass_fits(rows: Tensor, *others: Tensor) -> bool:
    """Whether a kernel can: rows `[n, d]`, with sums and points of their dtype, on a CPU, of a size at which
    rows are multiplied as they are."""
    if rows.ndim != 2 or rows.numel() <= SMALL or len(rows) ** 2 * rows.shape[1] <= majority.DIRECT:
        return False
    same = all(one.dtype == rows.dtype and one.is_cpu and one.stride(-1) == 1 for one in others)
    return same and len(rows) <= MOST and kernels.supports(rows)


def known(rows: Tensor, fit: Tensor, squares: Array) -> Tensor | None:
    """Which rows are fit, by their squared lengths; None where only these are too large."""
    odd = fit & ~torch.from_numpy(np.isfinite(squares))
    return None if odd.any() and majority.fit(rows[odd]).any() else fit & ~odd


def crowd(rows: Tensor, fit: Tensor, gram: Array, pivot: int, squares: Array) -> Crowd:
    """Rows with distances by products about row `pivot`, taken again where that is far from the bulk."""

    def product(pivot: int, dtype: torch.dtype) -> Tensor:
        sound = majority.sound(rows, fit)
        return linalg.gram(sound, sound[pivot], dtype)

    apart = about_bulk(product, Distances(gram), pivot, rows.dtype)[1]
    dists = torch.from_numpy(np.sqrt(apart.squared))  # torch would wake threads for so few
    dists = dists if fit.all() else majority.among(dists, fit)
    return Crowd(rows, fit, dists, torch.from_numpy(np.sqrt(squares)))


def first_look(rows: Tensor, good: Tensor) -> tuple[Tensor, int | None]:
    """By some columns: which rows may be fit, `[n]`, and the medoid of those that are `good` too."""
    some = looked_at(rows.detach()).numpy().astype(np.float64)
    fit = np.isfinite(some).all(axis=1)
    able = np.flatnonzero(fit & good.numpy())
    if not len(able):
        return torch.from_numpy(fit), None
    seen = torch.from_numpy(some if len(able) == len(some) else some[able])
    apart = Distances(linalg.gram(seen, seen[0]).numpy())
    return torch.from_numpy(fit), able.item(apart.middle()[0] if apart.finite else 0)


def looked_at(rows: Tensor) -> Tensor:
    """The columns `[n, k]` of rows `[n, d]` that the first centre is chosen by, k about `LOOK`."""
    runs = LOOK // _RUN
    step = rows.shape[1] // runs
    if step <= _RUN:
        return rows
    return rows[:, : runs * step].view(len(rows), runs, step)[:, :, :_RUN].flatten(1)


def array(values: Tensor) -> Array:
    numbers: Array = values.double().numpy()
    return numbers
