"""Kinds of rules by what decides them: pairwise products, the values of a column, their order."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.certificate import ChainInput, nearly_median
from byzopt.aggregators.core.foreign import checked_value
from byzopt.aggregators.core.influence import column_weights
from byzopt.aggregators.numerics.distances import Array, Distances
from byzopt.aggregators.numerics.figures import figures_of, measures_all, value_order
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.selection import answer
from byzopt.errors import require
from byzopt.kernels import RankWindow
from byzopt.theory import order_statistics
from byzopt.theory.robustness import NOTHING, Coefficients, both, closed, geometric_median

if TYPE_CHECKING:
    from collections.abc import Sequence


class GeometricRule(Aggregator):
    """A rule decided by pairwise inner products: `weights(geometry)` gives `[m]` float64 weights.

    Examples:
        >>> from byzopt import GeometricRule, Krum
        >>> isinstance(Krum(f=1), GeometricRule)
        True
    """

    validates = True

    @abstractmethod
    def weights(self, geometry: Geometry) -> Tensor:
        """Weights `[m]` of the rows in the aggregate."""

    def decided(self, geometry: Geometry) -> Tensor:
        """`weights(geometry)`, checked where they are code of another package."""
        weights = self.weights(geometry)
        return (
            checked_value(self, "weights", weights, geometry.shape) if "weights" in self.foreign else weights
        )

    def splits(self) -> bool:
        return True

    def reduce(self, mixed: Mixed) -> Tensor:
        if self.asks and measures_all(mixed):
            found = figures_of(mixed, self.asks, self.row)
            shares = self.shares(found, mixed.unit, lambda: value_order(mixed))
            return mixed.blend(torch.from_numpy(shares))
        mixed.geometry.begin()
        mixed = mixed.sorted() if self.by_value else mixed
        weights = self.decided(mixed.geometry)
        mixed.geometry.look()  # some weights need none; the policy for bad rows does
        return mixed.blend(weights)

    def answered(self, mixed: Mixed, f: int, source: ChainInput) -> Coefficients:
        known, n = self.coefficients(mixed.m, f), mixed.m
        best = geometric_median(n, f)  # no answer can be certified for less
        if known.squared is not None and best.squared is not None and known.squared <= best.squared:
            return source.composed(known)
        if type(self).reduce is not GeometricRule.reduce:  # its answer need not be what its weights say
            return source.composed(known)
        return both(source.composed(known), self.approached(mixed, f, source))

    def approached(self, mixed: Mixed, f: int, source: ChainInput) -> Coefficients:
        """What is proved of the mean with the rule's weights, as an approximate geometric median."""
        mixed = mixed.sorted() if self.by_value else mixed
        weights = self.decided(mixed.geometry) if mixed.weights is None else mixed.weights
        return nearly_median(mixed.geometry, weights.numpy(), mixed.m, f, source)

    def certifiable(self, n: int, f: int) -> bool:
        if "__call__" in self.foreign:  # the answer need not be what the weights say
            return False
        cls = type(self)
        stated = cls.reduce is GeometricRule.reduce or cls.answered is not GeometricRule.answered
        return (stated and 2 * f < n and f <= self.tolerance(n)) or super().certifiable(n, f)


class PairwiseRule(GeometricRule):
    """A geometric rule that needs no more than distances between rows: `decide(apart)` gives the weights."""

    @property
    def direct(self) -> bool:
        return True

    @abstractmethod
    def decide(self, apart: Distances) -> Array:
        """Weights `[..., m]` of the rows in the aggregate, by `apart`: their distances, and in what order."""

    def weights(self, geometry: Geometry) -> Tensor:
        return torch.from_numpy(self.decide(geometry.apart))


class CoordinateRule(Aggregator):
    """A rule that acts column by column: `columns(block)` maps `[m, b]` to `[b]`.

    A rule whose answer is Σ w_k x_(k) in each column, x_(k) the k-th smallest value, says so in
    `order_weights` and has its exact coefficients.

    Examples:
        >>> from byzopt import CoordinateRule, Median
        >>> isinstance(Median(f=1), CoordinateRule)
        True
    """

    columnwise = True

    @abstractmethod
    def columns(self, block: Tensor) -> Tensor:
        """The aggregate of each column of a finite block in the compute dtype; must not write to it."""

    def order_weights(self, m: int) -> Sequence[float] | None:
        """The weights `[m]` of the order statistics, smallest first: at least 0, of sum 1. None: no such."""
        return None

    def proved(self, n: int, f: int) -> Coefficients:
        weights = self.order_weights(n)
        return NOTHING if weights is None else order_statistics.weighed(weights, f)

    def splits(self) -> bool:
        return True

    def reduce(self, mixed: Mixed) -> Tensor:
        out = torch.empty(mixed.rows.shape[1], dtype=mixed.rows.dtype, device=mixed.rows.device)
        for piece, block in mixed.blocks():
            out[piece] = self._answered(block)
        return out

    def _answered(self, block: Tensor) -> Tensor:
        answer = self.columns(block)
        if "columns" in self.foreign:  # an answer of another shape might be spread over the columns
            what, shape = f"`columns` of {type(self).__name__}", getattr(answer, "shape", None)
            good = isinstance(answer, Tensor) and answer.is_floating_point() and shape == block.shape[1:]
            found = f"{shape} of {getattr(answer, 'dtype', type(answer).__name__)}"
            require(good, what, f"return a floating tensor [{block.shape[1]}]", found)
        return answer

    def influence(self, mixed: Mixed) -> Tensor:
        return mixed.through(column_weights(self.columns, mixed))


class RankRule(CoordinateRule):
    """A coordinate rule made of order statistics: `plan(m)` says what becomes of the m values of a column.

    Examples:
        >>> from byzopt import RankRule, TrimmedMean
        >>> isinstance(TrimmedMean(f=1), RankRule)
        True
    """

    batched = True
    validates = True

    @property
    def direct(self) -> bool:
        cls = type(self)
        return cls.reduce is RankRule.reduce and cls.columns is RankRule.columns

    @abstractmethod
    def plan(self, m: int) -> RankWindow:
        """What becomes of a column of m values."""

    def order_weights(self, m: int) -> Sequence[float] | None:
        first, last, count = self.plan(m)
        return _even(m, first, last) if count is None else None

    def proved(self, n: int, f: int) -> Coefficients:
        first, last, count = self.plan(n)
        if count != n - f:
            return super().proved(n, f)
        return order_statistics.around_centre(
            closed(order_statistics.weighed(_even(n, first, last), f), n, f), n, f
        )

    def columns(self, block: Tensor) -> Tensor:
        return answer(block, self.plan(len(block)))

    def reduce(self, mixed: Mixed) -> Tensor:
        if type(self).columns is not RankRule.columns:  # a subclass has another answer than its plan's
            return super().reduce(mixed)
        plan, m = self.plan(mixed.m), mixed.m
        if mixed.mixing is None or plan != (0, m, None):
            return mixed.columns(plan)
        mixed.unmixed.look()
        return mixed.blend(torch.full((m,), 1 / m, dtype=torch.float64, device="cpu"))  # a mean of sums


def _even(m: int, first: int, last: int) -> list[float]:
    """Equal weights for the ranks first .. last - 1 of m, from 0."""
    return [1 / (last - first) if first <= k < last else 0.0 for k in range(m)]
