"""The medoid: the row with the smallest sum of distances to all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.kinds import PairwiseRule
from byzopt.aggregators.core.weighted_form import WeightedSum
from byzopt.aggregators.numerics.distances import Array, Distances, even
from byzopt.aggregators.numerics.distances_seen import DistancesSeen
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.weiszfeld import first_of_least, medoid_of
from byzopt.theory import selecting
from byzopt.theory.robustness import Coefficients


@RULES.register("medoid")
@dataclass(frozen=True)
class Medoid(PairwiseRule):
    """The row with the smallest sum of (unsquared) distances to all rows: a geometric median among the rows.

    `f` only says how many rows may be dropped. Needs 2 f < n; breakdown point 1/2. Ties, to nine digits: the
    lowest index (in a chain the first in the order of the rows' values, see `Chain`). In one dimension the
    two middle rows of an even number always tie. κ₂ = 2 N (N - 1)/(n - 2 f)² and κ = 2 (N - 1)/(n - 2 f) with
    N = n - f (derived here). Cost: one Gram product.

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.

    Examples:
        >>> import torch
        >>> from byzopt import Medoid
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> Medoid(f=1)(rows)
        tensor([2., 1.])
    """

    ties = "first"

    f: int | None = None

    def decide(self, apart: Distances) -> Array:
        return even(np.array([_best(apart)]), apart.m)

    def proved(self, n: int, f: int) -> Coefficients:
        return selecting.medoid(n, f)

    def weighted_form(self, row_weights: Tensor, heaviest: float) -> Aggregator:
        def act(mixed: Mixed) -> Tensor:
            apart = mixed.geometry.apart
            best = _best(apart, row_weights.numpy())
            return torch.from_numpy(even(np.array([best]), mixed.m))

        return WeightedSum(act)


def _best(apart: Distances, row_weights: Array | None = None) -> int:
    """The medoid of rows that may count with weights `[m]`."""
    points = apart.points if isinstance(apart, DistancesSeen) else None
    if points is not None and points.side_by_side is not None:
        row_weights = np.ones(apart.m) if row_weights is None else row_weights
        excess = points.side_by_side.sums_beyond(row_weights)
        return first_of_least(excess, lambda k: np.sqrt(points.squares_to(points.row(k))), row_weights)
    return medoid_of(apart.gram, row_weights)
