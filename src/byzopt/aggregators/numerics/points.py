"""Many rows as points: what is asked of them from any place among them, without products of rows.

A look at n rows of d columns costs n d, products of them n² d. So where there are more rows than columns,
solvers that look a dozen times from a dozen places look at the rows themselves.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from byzopt import accelerator, kernels, linalg
from byzopt.aggregators.numerics.distances import Array, Index, within_range
from byzopt.aggregators.numerics.products import WHOLE, mixed_ways
from byzopt.aggregators.numerics.selection import answers
from byzopt.kernels import RankWindow


def are_points(rows: Tensor) -> bool:
    """Whether `rows` `[n, d]` are many, and short enough for it or all in the cache, on a CPU."""
    n, d = rows.shape
    return n > WHOLE and d > 0 and (d < n or n * d <= _CACHED) and not accelerator.holds(rows)


_CACHED = 1 << 22  # numbers that stay in the cache, nearly: of so many a dozen looks cost less than products
_FEW = 1 << 16  # numbers at which a look costs about as little as its call
_BRIEF = 128  # columns up to which distances between all rows are best worked out where they are asked for


class ExtremeRows(Exception):
    """Rows that were not validated prove to be extreme or not finite: the policy for input must see them."""


class Points:
    """Rows `[n, d]` on a CPU as points, in an `order` if it is given. What is seen of them is float64,
    however they are stored.

    Of rows that are not `admitted` whoever looks first says by `accept` what their squared distances to a
    place among them are.
    """

    def __init__(self, rows: Tensor, admitted: bool = True, order: Index | None = None) -> None:
        self.n, self.d = rows.shape
        self.looked = admitted
        self._given, self._order = rows, order

    @cached_property
    def rows(self) -> Tensor:
        """The rows as kernels can read them, `[n, d]`."""
        rows = self._given if self._order is None else self._given[torch.from_numpy(self._order)]
        return rows if kernels.supports(rows) else rows.to(linalg.compute_dtype(rows.dtype)).contiguous()

    @cached_property
    def _copy(self) -> Array:
        """The rows in float64."""
        return self.rows.double().numpy()

    def taken(self, order: Index) -> Points:
        """The same points in another order `[n]`."""
        return Points(self._given, self.looked, order if self._order is None else self._order[order])

    def mixed(self, mixing: Array) -> Points | None:
        """The points `mixing @ rows`, where each row of `mixing` `[m, n]` sums to one; None where products
        answer questions about them in less time."""
        return MixedPoints(self, mixing) if self.d <= _BRIEF and len(mixing) > WHOLE else None

    def accept(self, squares: Array) -> None:
        """Raises `ExtremeRows` where rows that nobody has looked at are not finite, or out of range, by their
        `squares` `[n]`."""
        if not (self.looked or within_range(squares)):
            raise ExtremeRows
        self.looked = True

    def row(self, k: int) -> Array:
        """Row k, `[d]`."""
        found: Array = self.rows[k].double().numpy()
        return found

    @cached_property
    def centre(self) -> Array:
        """The median of every column `[d]`, NaN or Inf where rows are: a place that no minority of the rows
        can carry off."""
        plan, out = RankWindow((self.n - 1) // 2, self.n // 2 + 1), self.rows.new_empty(self.d)
        if kernels.supports(self.rows) and kernels.reduces_columns(self.rows, None, plan):
            kernels.reduce_columns(self.rows, plan, None, out)
        else:
            answers(self.rows, plan, out)
        found: Array = out.double().numpy()
        return found

    @cached_property
    def side_by_side(self) -> kernels.SideBySide | None:
        """The rows about the `centre`, for questions about distances between them; None where products answer
        these in less time."""
        if self.d > _BRIEF or not kernels.supports(self.rows):
            return None
        with np.errstate(all="ignore"):  # what is not finite is seen by the lengths
            found = kernels.SideBySide(self.rows.numpy() - self.centre)
        self.accept(found.own[: self.n])
        return found

    def mean(self, weights: Array) -> Array:
        """The mean `[d]` with weights `[n]`, which sum to one."""
        return self.centre + self._ways_to(self.centre, weights)

    def _ways_to(self, place: Array, weights: Array) -> Array:
        if kernels.supports(self.rows):
            return kernels.ways_to(self.rows, place, weights)
        found: Array = weights @ (self._copy - place)
        return found

    def squares_to(self, place: Array) -> Array:
        """Squared distances `[n]` to a `place` `[d]`."""
        if kernels.supports(self.rows):
            return kernels.squares_to(self.rows, place)
        return _squares(self._copy - place)

    def pulls(self, place: Array, row_weights: Array, floor: float = 0.0) -> tuple[Array, Array, Array]:
        """Squared distances `[n]` to a `place` `[d]`; over the ways y_i to rows that are elsewhere w_i /
        max(‖y_i‖, `floor`) `[n]`, 0 for others; and the sum of the ways times these, `[d]`."""
        if kernels.supports(self.rows):
            return kernels.pulls(self.rows, place, row_weights, floor)
        ways = self._copy - place
        squares = _squares(ways)
        lengths = np.maximum(np.sqrt(squares), floor)
        shares = np.divide(row_weights, lengths, out=np.zeros_like(lengths), where=squares > 0)
        return squares, shares, shares @ ways

    def walked(self, place: Array, row_weights: Array, steps: int) -> Array:
        """Where so many of Weiszfeld's `steps` lead from a `place` `[d]`, if one call for them costs less
        than as many looks; else the place."""
        if self.n * self.d > _FEW or not kernels.supports(self.rows):
            return place
        return kernels.walk(self.rows, place, row_weights, steps)

    def spread_along(self, place: Array, way: Array, row_weights: Array) -> Array:
        """Σ w_i <y_i, `way`> y_i `[d]` over the ways y_i from a `place` `[d]` to the rows."""
        if kernels.supports(self.rows):
            return kernels.spread_along(self.rows, place, way, row_weights)
        ways = self._copy - place
        found: Array = (row_weights * (ways @ way)) @ ways
        return found


class MixedPoints(Points):
    """The points `mixing @ rows` of `unmixed` ones, in float64."""

    def __init__(self, unmixed: Points, mixing: Array) -> None:
        self.n, self.d, self.looked = len(mixing), unmixed.d, unmixed.looked
        self._unmixed, self._mixing = unmixed, mixing

    @cached_property
    def rows(self) -> Tensor:
        about = self._unmixed.centre
        with np.errstate(all="ignore"):  # what is not finite is seen in the first look
            return torch.from_numpy(mixed_ways(self._mixing, self._unmixed.rows.numpy() - about) + about)

    def taken(self, order: Index) -> Points:
        return MixedPoints(self._unmixed, self._mixing[order])


def _squares(ways: Array) -> Array:
    squares: Array = np.einsum("ij,ij->i", ways, ways)
    return squares
