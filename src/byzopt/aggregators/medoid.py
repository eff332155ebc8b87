"""The medoid: the row with the smallest sum of distances to all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.aggregators.base import RULES, GeometricRule
from byzopt.aggregators.geometry import Geometry, medoid
from byzopt.aggregators.weiszfeld import relative_sums
from byzopt.theory import selecting
from byzopt.theory.robustness import Coefficients


@RULES.register("medoid")
@dataclass(frozen=True)
class Medoid(GeometricRule):
    """The row with the smallest sum of (unsquared) distances to all rows: a geometric median among the rows.

    `f` only says how many rows may be dropped. Needs 2 f < n; breakdown point 1/2. Ties: the lowest index.
    κ₂ = 2 N (N - 1)/(n - 2 f)² and κ = 2 (N - 1)/(n - 2 f) with N = n - f (derived here). Cost: one Gram
    product.
    """

    f: int | None = None

    def weights(self, geometry: Geometry) -> Tensor:
        sums = relative_sums(geometry.about(medoid(geometry.sq_dists)[0]).numpy())[1]
        best = torch.from_numpy(sums).argsort(stable=True)[:1]
        return torch.zeros(geometry.m, dtype=torch.float64).index_fill(0, best, 1.0)

    def proved(self, n: int, f: int) -> Coefficients:
        return selecting.medoid(n, f)
