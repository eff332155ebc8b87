"""What MVA and SMEA share: the mean of the n - f rows that spread least, by an exact search with a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from byzopt.aggregators.core.certificate import ChainInput
from byzopt.aggregators.core.kinds import GeometricRule
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.subsets import BestSubset, SubsetCost, best_subset, surely_ends
from byzopt.errors import require
from byzopt.theory import selecting
from byzopt.theory.robustness import NOTHING, Coefficients, both, closed


@dataclass(frozen=True)
class LeastSpread(GeometricRule):
    """Both MVA and SMEA search, by branch and bound, for the n - f rows that spread least by some measure."""

    cost: ClassVar[type[SubsetCost]]  # a measure of spread for which `selecting.least_spread` is proved
    by_value = True

    f: int
    budget: int = 50_000

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.budget >= 1, f"Parameter `budget` of {type(self).__name__}", "be at least 1", self.budget
        )

    def weights(self, geometry: Geometry) -> Tensor:
        chosen = torch.from_numpy(self.searched(geometry).rows)
        zeros = torch.zeros(geometry.m, dtype=torch.float64, device="cpu")
        return zeros.index_fill(0, chosen, 1 / len(chosen))

    def proved(self, n: int, f: int) -> Coefficients:
        if f != self.f:
            return NOTHING
        return selecting.least_spread(n, f, twice=not surely_ends(n, f, self.budget))

    def answered(self, mixed: Mixed, f: int, source: ChainInput) -> Coefficients:
        known = super().answered(mixed, f, source)
        if f != self.f or surely_ends(mixed.m, f, self.budget) or not self.searched(mixed.geometry).proved:
            return known
        return both(known, source.composed(closed(selecting.least_spread(mixed.m, f), mixed.m, f)))

    def searched(self, geometry: Geometry) -> BestSubset:
        """The rows chosen, and whether the search has proved that none are better."""
        return best_subset(self.cost(geometry.sq_dists.numpy(), geometry.m - self.f), self.budget)
