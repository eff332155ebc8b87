"""Distances between rows from their products, and their order: what decisions on n x n numbers begin with.

Of few rows a kernel gives all of it in one call. Of many, nothing is sorted that can be selected.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np

from byzopt import kernels
from byzopt.kernels import EXTREME, FEW

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Index: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"

_CACHED = 1 << 16  # numbers at a time where there are many rows


class Distances:
    """Squared distances between m rows by their products `gram` `[..., m, m]` about any row, and their order.

    Nothing is computed before it is asked for, but that a kernel gives everything at once.
    """

    def __init__(self, gram: Array) -> None:
        self.gram = gram
        if gram.ndim == 2 and kernels.decides(len(gram)):
            self.squared, columns, self.finite, self.ordinary = kernels.ranked_distances(gram)
            self.ranked = columns.T

    @cached_property
    def finite(self) -> bool:
        """Whether all products are finite."""
        return bool(np.isfinite(self.gram).all())

    @cached_property
    def ordinary(self) -> bool:
        """Whether squared lengths about that row are `within_range`."""
        return within_range(np.einsum("...ii->...i", self.gram))

    @cached_property
    def squared(self) -> Array:
        """Squared distances `[..., m, m]`."""
        return squared(self.gram)

    @cached_property
    def ranked(self) -> Array:
        """Each row's squared distances to all rows in ascending order, itself first, `[..., m, m]`."""
        return cast(Array, by_rows(lambda part: np.sort(part, axis=-1), self.squared))

    def reach(self, rank: int) -> Array:
        """Squared distances of rows to their `rank`-th nearest, `[..., m]`; 0: themselves."""
        if "ranked" in self.__dict__ or self.gram.shape[-1] <= FEW:
            return self.ranked[..., rank]
        return kth(self.squared, rank)

    def middle(self, order: Index | None = None) -> tuple[int, float]:
        """The row whose majority lies nearest, and the squared radius of that majority. Ties: the first, in
        the `order` given or as rows come."""
        radii = self.reach(len(self.gram) // 2)
        best = int(radii.argmin()) if order is None else int(order[radii[order].argmin()])
        return best, float(radii[best])

    def nearest_shares(self, count: int) -> Array:
        """In row i the weights `[..., m, m]` of the mean of the `count` rows nearest to it: itself, even when
        others coincide with it, and of equally near ones the first."""
        if self.gram.ndim == 2 and kernels.decides(len(self.gram)):
            return kernels.nearest_shares(self.squared, self.ranked.T, count).T
        dists = self.squared.copy()
        np.einsum("...ii->...i", dists)[...] = -1
        return nearest(dists, count) / count


def within_range(squares: Array) -> bool:
    """Whether squared lengths `[..., n]` are finite, and may be squared: nor do those of the bulk vanish."""
    sizes = np.sort(squares, axis=-1)  # NaN is sorted to the end
    return bool((sizes[..., -1] < 1 / EXTREME).all() and (sizes[..., sizes.shape[-1] // 2] > EXTREME).all())


def squared(gram: Array) -> Array:
    """Squared distances between rows from their products about any pivot, `[..., m, m]`."""
    squares = np.einsum("...ii->...i", gram)
    dists: Array = by_rows(
        lambda part, own: np.maximum(own[..., :, None] + squares[..., None, :] - 2 * part, 0), gram, squares
    )
    np.einsum("...ii->...i", dists)[...] = 0
    return dists


def nearest(dists: Array, count: int) -> Array:
    """Which `count` entries of each row of `dists` `[..., m]` are least; of equal ones the first."""
    if dists.shape[-1] <= FEW:
        chosen = np.zeros(dists.shape, dtype=bool)
        np.put_along_axis(chosen, dists.argsort(axis=-1, kind="stable")[..., :count], True, axis=-1)
        return cast(Array, chosen)
    return cast(Array, by_rows(lambda part: _nearest(part, count), dists))


def _nearest(dists: Array, count: int) -> Any:
    limit = np.partition(dists, count - 1, axis=-1)[..., count - 1, None]
    chosen, rim = dists < limit, dists == limit
    spare = count - chosen.sum(axis=-1, keepdims=True)
    several = (rim.sum(axis=-1, keepdims=True) > spare)[..., 0]
    rim[several] &= rim[several].cumsum(axis=-1) <= spare[several]
    return chosen | rim


def kth(values: Array, rank: int) -> Array:
    """The value of `rank` (from 0) in each row of `values` `[..., m]`."""
    return cast(Array, by_rows(lambda part: np.partition(part, rank, axis=-1)[..., rank], values))


def by_rows(work: Callable[..., Any], *arrays: Array) -> Any:
    """`work(*arrays)`, whose results belong to the arrays' rows: of large ones a few rows at a time, so that
    what lies between input and output stays in cache, and by several threads."""
    size, n = arrays[0].size, len(arrays[0])
    if arrays[0].ndim != 2 or n <= FEW:
        return work(*arrays)
    height = max(1, _CACHED * n // size)
    out: list[Any] = [None] * -(-n // height)

    def part(start: int, stop: int) -> None:
        for k in range(start, stop):
            out[k] = work(*(array[k * height : (k + 1) * height] for array in arrays))

    kernels.parallel_for(len(out), size, 1, part)
    return np.concatenate(out)
