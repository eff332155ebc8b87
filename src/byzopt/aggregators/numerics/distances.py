"""Distances between rows from their products, and their order: what decisions on n x n numbers begin with.

Of few rows a kernel gives all of it in one call. Of many, nothing is sorted that can be selected.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

import numpy as np

from byzopt import kernels
from byzopt.aggregators.numerics.products import WHOLE, congruent
from byzopt.aggregators.numerics.products import Array as Array
from byzopt.aggregators.numerics.products import Index as Index
from byzopt.aggregators.numerics.shares import even as even
from byzopt.kernels import EXTREME, TIE

_PRODUCTS = 128  # rows up to which a kernel's products of n x n numbers are faster than BLAS
_SORTED = 1024  # rows up to which sorting costs little more than selecting, and serves what is asked next
_LOOK = 64  # numbers of a row that show whether many are equal
_SOME = 32  # rows at a time where sums over them are taken
_CACHED = 1 << 16  # numbers at a time where there are many rows


class Distances:
    """Squared distances between m rows by their products `gram` `[..., m, m]` about any row, their order, and
    what follows from these alone.

    Nothing is computed before it is asked for, but that a kernel gives everything at once. Where decisions
    are made one by one (`gram.ndim` is 2) and rows are few, kernels take them too. `single` says that rows
    were multiplied in float32.
    """

    single = False
    looked = True  # whether rows are known to be finite, and in a safe range

    def __init__(self, gram: Array, single: bool = False) -> None:
        self.gram, self.single = gram, single
        self.m = gram.shape[-1]
        self._few = kernels.measured_products(gram) if gram.ndim == 2 and kernels.decides(self.m) else None

    @classmethod
    def of(cls, found: kernels.Measured) -> Distances:
        """What a kernel has found of few rows."""
        apart = cls.__new__(cls)
        apart.m, apart._few = found.n, found
        return apart

    @cached_property
    def gram(self) -> Array:
        """The products."""
        assert self._few is not None
        return self._few.gram

    @cached_property
    def finite(self) -> bool:
        """Whether all products are finite."""
        return self._few.finite if self._few else bool(np.isfinite(self.gram).all())

    @cached_property
    def ordinary(self) -> bool:
        """Whether squared lengths about that row are `within_range`."""
        return self._few.ordinary if self._few else within_range(np.einsum("...ii->...i", self.gram))

    @cached_property
    def squared(self) -> Array:
        """Squared distances `[..., m, m]`."""
        return self._few.dists if self._few else squared(self.gram)

    @cached_property
    def ranked(self) -> Array:
        """Each row's squared distances to all rows in ascending order, itself first, `[..., m, m]`."""
        if self._few:
            return self._few.ranked.T
        return cast(Array, by_rows(lambda part: np.sort(part, axis=-1), self.squared))

    def reach(self, rank: int) -> Array:
        """Squared distances of rows to their `rank`-th nearest, `[..., m]`; 0: themselves."""
        if self._few or "ranked" in self.__dict__:
            return self.ranked[..., rank]
        if self._selects:
            return kernels.reaches(self.gram, rank)
        return self.ranked[..., rank] if self.m <= _SORTED else kth(self.squared, rank)

    @cached_property
    def radii(self) -> Array:
        """Squared radii `[..., m]` of the majorities nearest to rows: of many rows those of the tightest, and
        Inf for others."""
        if self._few or "ranked" in self.__dict__ or not self._selects:
            return self.reach(self.m // 2)
        return kernels.tightest(self.gram, self.m // 2)

    def middle(self, order: Index | None = None) -> tuple[int, float]:
        """The row whose majority lies nearest, and the squared radius of that majority. Ties: the first, in
        the `order` given or as rows come."""
        if order is None and self._few:
            return self._few.best, self._few.radius
        radii = self.radii
        best = int(radii.argmin()) if order is None else int(order[radii[order].argmin()])
        return best, radii.item(best)

    def nearest_shares(self, count: int) -> Array:
        """In row i the weights `[..., m, m]` of the mean of the `count` rows nearest to it: itself, even when
        others coincide with it, and of equally near ones the first."""
        if self._few:
            return kernels.nearest_shares(self._few, count).T
        if self._selects:
            near: Any = kernels.nearest_rows(self.gram, count)
            return cast(Array, by_rows(lambda part: part / count, near))
        known = count > 1 and "ranked" in self.__dict__  # the row itself is the first of them

        def part(dists: Array, own: Index, limits: Array) -> Any:
            near = dists.copy()
            near[..., np.arange(len(own)), own] = -1
            return (_nearest(near, count, limits) if known else nearest(near, count)) / count

        limits = self.ranked[..., count - 1] if known else self.squared[..., 0]
        return cast(Array, by_rows(part, self.squared, np.arange(self.m), limits))

    @property
    def _selects(self) -> bool:
        """Whether kernels select among the numbers of many rows."""
        return self.gram.ndim == 2 and kernels.selects()

    def mixed(self, mixing: Array) -> Distances:
        """Those between the rows of `mixing @ rows`, by products `mixing @ gram @ mixing^T`, which are about
        the same row where each row of `mixing` `[..., m', m]` sums to one."""
        size = max(mixing.shape)
        if self._few and size <= _PRODUCTS and kernels.decides(size):
            return Distances.of(kernels.mixed_products(mixing.T, self._few))
        return Distances(congruent(mixing, self.gram, self.single), self.single)

    def about(self, i: int) -> Array:
        """Products `<x_j - x_i, x_k - x_i>`, `[m, m]`."""
        gram = self.gram
        moved: Array = gram - gram[i][:, None] - gram[i] + gram[i, i]
        twins = self._from(np.array([i]))[0] == 0
        moved[twins], moved[:, twins] = 0, 0
        return moved

    def lengths_to(self, weights: Array) -> Array:
        """Squared distances `[..., m]` of every row to Σ weights[i] x_i; `weights` `[..., m]` sum to 1."""
        gram = self.gram
        if weights.ndim == gram.ndim - 1 == 1:
            return self.lengths_by(weights, gram @ weights)
        lean = gram @ weights[..., None]
        sizes: Array = np.einsum("...ii->...i", gram)[..., None] - 2 * lean + weights[..., None, :] @ lean
        return np.maximum(sizes, 0, out=sizes).squeeze(-1)

    def lengths_by(self, weights: Array, lean: Array) -> Array:
        """As `lengths_to`, by products `lean` `[m]` of every row with Σ weights[i] x_i."""
        sizes: Array = self.gram.diagonal() - 2 * lean + weights @ lean
        return np.maximum(sizes, 0, out=sizes)

    def close(self) -> list[tuple[int, int]]:
        """Places (j, i), i < j, of rows that may be equal by their products."""
        sizes = self.gram.diagonal()

        def part(dists: Array, own: Array) -> Any:
            return dists <= 1e-5 * (own[:, None] + sizes)

        near: Array = by_rows(part, self.squared, sizes)
        return [(j, i) for j, i in np.argwhere(near).tolist() if i < j]

    def taken(self, order: Index) -> Distances:
        """Those of the rows in another order `[m]`."""
        gram, places = self.gram, cast(Any, order)
        moved = by_rows(lambda _, rows: gram[rows].take(places, axis=1), gram, places)
        taken = Distances(moved, self.single)
        if "ranked" in self.__dict__ and not taken._few:
            taken.ranked = self.ranked[order]
        return taken

    def bulk(self) -> tuple[Array, Array]:
        """Weights `[..., m]` of the mean of the majority nearest to the row that has the tightest majority,
        and the squared distances `[..., m]` of all rows to it.

        A starting point inside the bulk, whatever fewer than half of the rows hold. Two rows that are each
        other's farthest in their majorities have equal radii whatever the rows hold: of rows whose majority
        is equally tight the means are averaged, and a majority holds all rows that lie on its rim.
        """
        radii = self.radii
        if self._few:
            return kernels.bulk_weights(self.gram, self.squared, radii)
        radii = radii * (1 + TIE)
        best = radii <= radii.min(axis=-1, keepdims=True) * (1 + TIE)
        if best.ndim == 1:  # of many rows few are best, but where many are equal
            several, weights = best.nonzero()[0], np.zeros(self.m)
            for some in np.split(several, range(_SOME, len(several), _SOME)):
                near = self._from(some) <= radii[some, None]
                weights += (near / np.maximum(near.sum(axis=-1, keepdims=True), 1)).sum(axis=0)
            return (weights := weights / len(several)), self.lengths_to(weights)
        near = (self.squared <= radii[..., None]) & best[..., None]
        shares = near / np.maximum(near.sum(axis=-1, keepdims=True), 1)
        weights = shares.sum(axis=-2) / best.sum(axis=-1, keepdims=True)
        return weights, self.lengths_to(weights)

    def lengths_from(self, i: int) -> Array:
        """Squared distances `[m]` of all rows from row i."""
        lengths: Array = self._from(np.array([i]))[0]
        return lengths

    def _from(self, rows: Index) -> Array:
        """Squared distances `[k, m]` of some rows to all."""
        if self._few or "squared" in self.__dict__:
            return self.squared[rows]
        own = self.gram.diagonal()
        dists: Array = np.maximum(own[rows, None] + own - 2 * self.gram[rows], 0)
        dists[np.arange(len(rows)), rows] = 0
        return dists

    def best_shares(self, neighbours: int, count: int) -> Array | None:
        """Weights `[m]` of the mean of the `count` rows with the least sums of squared distances to their
        nearest `neighbours` others, of equal ones the first; None where no kernel gives them."""
        if self._few or not self._selects:
            return None if self._few is None else kernels.best_shares(self._few, neighbours, count)
        return even(kernels.nearest_sums(self.gram, neighbours + 1).argsort(kind="stable")[:count], self.m)

    def steps_from_bulk(self, nu: float, steps: int) -> Array | None:
        """`weiszfeld` from the bulk, with `nu` times the rows' median distance to it as floor, or the first
        row of the bulk where that is 0; None where no kernel gives it."""
        return None if self._few is None else kernels.steps_from_bulk(self._few, nu, steps)

    def weiszfeld(self, row_weights: Array, squares: Array, floor: Array, steps: int) -> Array:
        """`steps` times weights `[..., m]` proportional to `row_weights` / max(√`squares`, `floor`), where
        `squares` `[..., m]` then become the squared distances of the rows to their mean with these."""
        if self._few:
            return kernels.weiszfeld_steps(self.gram, row_weights, squares, floor.item(), steps)
        for _ in range(steps):
            weights: Array = row_weights / np.maximum(np.sqrt(squares), floor)
            weights /= np.add.reduce(weights, axis=-1, keepdims=True)
            squares = self.lengths_to(weights)
        return weights


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
    if dists.shape[-1] <= WHOLE:
        chosen = np.zeros(dists.shape, dtype=bool)
        np.put_along_axis(chosen, dists.argsort(axis=-1, kind="stable")[..., :count], True, axis=-1)
        return cast(Array, chosen)
    return cast(Array, by_rows(lambda part: _nearest(part, count, _kth(part, count - 1)), dists))


def _nearest(dists: Array, count: int, limits: Array) -> Any:
    limit = limits[..., None]
    chosen, rim = dists < limit, dists == limit
    spare = count - chosen.sum(axis=-1, keepdims=True)
    several = (rim.sum(axis=-1, keepdims=True) > spare)[..., 0]
    rim[several] &= rim[several].cumsum(axis=-1) <= spare[several]
    return chosen | rim


def kth(values: Array, rank: int) -> Array:
    """The value of `rank` (from 0) in each row of `values` `[..., m]`."""
    return cast(Array, by_rows(lambda part: _kth(part, rank), values))


def _kth(values: Array, rank: int) -> Array:
    """Selecting takes half as long as sorting, but ten times longer where many values are equal, as behind a
    stage: then the first row shows it."""
    some = values.reshape(-1, values.shape[-1])[0, :: max(1, values.shape[-1] // _LOOK)]
    alike = len(np.unique(some)) < len(some)
    ordered = np.sort(values, axis=-1) if alike else np.partition(values, rank, axis=-1)
    found: Array = ordered[..., rank]
    return found


def by_rows(work: Callable[..., Any], *arrays: Array) -> Any:
    """`work(*arrays)`, whose results belong to the arrays' rows: of large ones a few rows at a time, so that
    what lies between input and output stays in cache, and by several threads."""
    size, n = arrays[0].size, len(arrays[0])
    if arrays[0].ndim != 2 or n <= WHOLE:
        return work(*arrays)
    height = max(1, _CACHED * n // size)
    begun = work(*(array[:height] for array in arrays))
    out = np.empty((n, *begun.shape[1:]), dtype=begun.dtype)
    out[:height] = begun

    def part(start: int, stop: int) -> None:
        for k in range(start + 1, stop + 1):
            piece = slice(k * height, (k + 1) * height)
            out[piece] = work(*(array[piece] for array in arrays))

    kernels.parallel_for(-(-n // height) - 1, size, 1, part)
    return out
