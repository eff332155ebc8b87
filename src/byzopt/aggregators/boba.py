"""BOBA: honest rows of workers with few classes lie in a simplex, whose corners the server knows roughly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.kinds import GeometricRule
from byzopt.aggregators.numerics.distances import Array, Index, nearest
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.errors import TooManyFaults, require

_FLAT = 1e-14  # variance along a direction, as a share of the largest, that is rounding
_SLACK = 1e-9  # of coefficients, so that corners lie inside


@RULES.register("boba")
@dataclass(frozen=True)
class BOBA(GeometricRule):
    """The mean, within a fitted plane, of the rows that lie in the simplex of the `trusted` rows.

    Of c classes each worker has a mix of its own, so that honest rows lie near a plane of c - 1 dimensions,
    inside the simplex of the classes' gradients. `trusted` are c rows of the server's own, row k from clean
    samples of class k alone; m = n - c rows are left.

    1. The plane: from the one through the trusted rows, by turns the m - f rows nearest to it, and their
       principal c - 1 directions about their mean, until the rows stay the same.
    2. All are projected on it, and written as affine combinations of the projected trusted rows. Those with
       all coefficients at least `least` count; the m - f with the highest least coefficients, where these
       are too few. The answer is the mean of their projections. Trusted rows are compared with, not averaged.

    Needs 2 f < m. Breakdown point f, if the trusted rows are honest; κ unproved here. Nothing checks that
    trusted row k comes from clean samples of class k: rows hold no classes, and a spec knows of none. Where
    they do not, the simplex is another one. Rows far out in the very plane of the honest ones are left out,
    but pull its directions towards them: at 1e6 times the honest spread the others are lost in float64.

    Behind any pre-aggregator, and in `gas`, it is refused when it is built: mixed or cut rows are no longer
    mixes of the trusted ones, a few columns have no simplex, and `gas` averages the trusted rows too. Scale-
    and translation-equivariant. `TooManyFaults` when a trusted row is not finite. Ties: the first. Cost: one
    Gram product, eigenvectors of n x n numbers in each turn.
    Source: Bao, Wu, He, AISTATS 2024 (arXiv:2208.12932), as the authors' code has it (`BOBA.py`), since the
    text was not within reach; its `boba_pmin` is `least`, of which we do not know the paper's value.

    Args:
        f: Number of faulty rows that the rule is set to withstand, 2 f < n - c.
        trusted: Indices of the server's own rows, one a class, at least two.
        least: Least coefficient of rows inside the simplex; below 0 for noise.
        iterations: At most so many turns.

    Raises:
        TooManyFaults: A trusted row is not finite.
        InvalidInput: A stage before the rule, or `gas` around it.

    Examples:
        >>> import torch
        >>> from byzopt import BOBA
        >>> rows = torch.tensor([[4.0, 0.0], [0.0, 4.0], [3.0, 1.0], [2.0, 2.0], [1.0, 3.0], [90.0, 90.0]])
        >>> BOBA(f=1)(rows)  # rows 0 and 1 are the server's
        tensor([2., 2.])
    """

    convex = False
    positional = True
    sent_rows = True
    ties = "rounding"

    f: int
    trusted: tuple[int, ...] = (0, 1)
    least: float = 0.0
    iterations: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        ok = len(set(self.trusted)) == len(self.trusted) >= 2 and min(self.trusted) >= 0
        require(ok, "Parameter `trusted` of BOBA", "be two or more different indices of rows", self.trusted)
        require(self.least <= 0, "Parameter `least` of BOBA", "be at most 0", self.least)
        require(self.iterations >= 1, "Parameter `iterations` of BOBA", "be at least 1", self.iterations)

    @property
    def trusts(self) -> tuple[int, ...]:
        return self.trusted

    def check(self, n: int) -> None:
        m = n - len(self.trusted)
        told = f"f = {self.f} with {m} rows beside the trusted ones"
        require(2 * self.f < m, "Parameter `f` of BOBA", "satisfy 2 f < n - c", told, "Add workers.")
        require(max(self.trusted) < n, "Parameter `trusted` of BOBA", f"lie in 0..{n - 1}", self.trusted)

    def restricted(self, kept: Tensor) -> Self:
        lost = [i for i in self.trusted if not kept[i]]
        if lost:
            raise TooManyFaults(
                f"The rows that BOBA trusts should be finite. Found NaN or Inf from workers {lost}. "
                "Trust other rows, or find out why these are not finite.",
                lost,
            )
        places = tuple(int(kept[:i].sum()) for i in self.trusted)
        return replace(super().restricted(kept), trusted=places)

    def weights(self, geometry: Geometry) -> Tensor:
        gram = geometry.centred.numpy()
        own = np.array(self.trusted)
        others = np.setdiff1d(np.arange(geometry.m), own)
        count, rank = len(others) - self.f, len(own) - 1
        plane, near = _fitted(gram, own, rank), others[:0]
        for _ in range(self.iterations):
            found = others[nearest(plane.heights[others], count)]
            if np.array_equal(near, found):
                break
            near = found
            plane = _fitted(gram, near, rank)
        size = float(np.abs(plane.places[own]).max(initial=0)) or 1.0
        places = np.column_stack([plane.places / size, np.ones(geometry.m)])
        shares = places[others] @ np.linalg.pinv(places[own])
        lowest = shares.min(axis=1)
        inside = lowest >= self.least - _SLACK
        if inside.sum() < count:
            inside = nearest(-lowest, count)
        return torch.from_numpy(plane.back(plane.places[others[inside]].mean(axis=0), geometry.m))


class _Plane(NamedTuple):
    """The mean of the `rows`, and directions as weights `[rows, r]` of their offsets from it; all rows'
    coordinates `[m, r]` and squared distances to the plane `[m]`."""

    rows: Index
    axes: Array
    places: Array
    heights: Array

    def back(self, place: Array, m: int) -> Array:
        """The point of the plane at coordinates `place` `[r]`, as weights `[m]` of the rows."""
        offsets = self.axes @ place
        weights = np.zeros(m)
        weights[self.rows] = offsets + (1 - offsets.sum()) / len(self.rows)
        return weights


def _fitted(gram: Array, rows: Index, rank: int) -> _Plane:
    """The plane through the mean of the `rows` along their principal directions, at most `rank` of them."""
    lean = gram[:, rows].mean(axis=1)
    about = gram - lean[:, None] - lean + lean[rows].mean()  # products of offsets from the mean
    inner = about[np.ix_(rows, rows)]
    size = max(float(np.abs(inner).max()), np.finfo(float).tiny)
    values, vectors = np.linalg.eigh(inner / size)  # the solver fails on entries of 1e280
    kept = [k for k in range(len(values) - 1, -1, -1) if values[k] > _FLAT * values[-1]][:rank]
    axes = vectors[:, kept] / np.sqrt(values[kept] * size)
    places = about[:, rows] @ axes
    return _Plane(rows, axes, places, about.diagonal() - (places**2).sum(axis=1))
