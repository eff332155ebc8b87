"""The geometric median, solved to a proved gap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.certificate import ChainInput
from byzopt.aggregators.core.kinds import PairwiseRule
from byzopt.aggregators.core.weighted_form import WeightedSum
from byzopt.aggregators.numerics.distances import Array, Distances
from byzopt.aggregators.numerics.distances_seen import DistancesSeen
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.point_median import median_of_points
from byzopt.aggregators.numerics.weighted_columns import ranked, weighted_median
from byzopt.aggregators.numerics.weiszfeld import certified_median
from byzopt.errors import require
from byzopt.theory import robustness
from byzopt.theory.robustness import Coefficients


@RULES.register("geometric_median")
@dataclass(frozen=True)
class GeometricMedian(PairwiseRule):
    """The point z with the smallest Σ‖v_i - z‖, to a proved relative gap `tol` of that sum.

    Exact where the median is a row. Where it is not unique (all rows on a line, n even) it is the mean of the
    rows that are medians, in one dimension the midpoint. The gap is proved for the distances as computed:
    those of float32 rows carry about 1e-7. Scale- and translation-equivariant; at most `weiszfeld.ROUNDS`
    Newton steps: on n x n numbers, or of more than 256 rows in coordinates, if d < n or rows are small.

    `f` only says how many rows may be dropped and which κ is meant; None means the most that n allows.
    Needs 2 f < n; breakdown point 1/2. κ₂ = n/(n - 2 f), sharp, and κ = (n - f)/(n - 2 f) (derived here;
    published: 4 (1 + r)² with r = f/(n - 2 f), arXiv:2302.01772, and 2 (1 + r), arXiv:2603.12512).
    Cost: one Gram product, or in coordinates some 10 to 30 passes over the rows. Proof of the gap: see
    `weiszfeld`.

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.
        tol: Relative gap of the sum of distances at which the search ends.

    Examples:
        >>> import torch
        >>> from byzopt import GeometricMedian
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> GeometricMedian(f=1)(rows)
        tensor([1.7862, 1.2090])
    """

    f: int | None = None
    tol: float = 1e-10

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.tol < 1, "Parameter `tol` of GeometricMedian", "lie in (0, 1)", self.tol)

    def decide(self, apart: Distances) -> Array:
        if isinstance(apart, DistancesSeen):
            points = apart.points
            return median_of_points(points, self.tol, np.ones(points.n), points.centre).weights
        return certified_median(apart.gram, self.tol).weights

    def proved(self, n: int, f: int) -> Coefficients:
        return robustness.geometric_median(n, f)

    def answered(self, mixed: Mixed, f: int, source: ChainInput) -> Coefficients:
        """That of the point found, whose gap is proved but not zero."""
        return self.approached(mixed, f, source)

    def weighted_form(self, row_weights: Tensor, heaviest: float) -> Aggregator:
        def act(mixed: Mixed) -> Tensor:
            apart, weights = mixed.geometry.apart, row_weights.numpy()
            if isinstance(apart, DistancesSeen):
                start = weighted_median(*ranked(apart.points.rows, row_weights)).double().numpy()
                found = median_of_points(apart.points, self.tol, weights, start)
            else:
                found = certified_median(apart.gram, self.tol, weights)
            return torch.from_numpy(found.weights)

        return WeightedSum(act)
