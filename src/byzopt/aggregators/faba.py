"""FABA: take away the row farthest from the mean, f times."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.kinds import GeometricRule
from byzopt.aggregators.numerics.geometry import Geometry


@RULES.register("faba")
@dataclass(frozen=True)
class FABA(GeometricRule):
    """f times, drop the row farthest from the mean of the rows left; then their mean. Ties: first by value.

    Needs 2 f < n; no κ is proved. Cost: one Gram product. Source: Xia et al., IJCAI 2019, algorithm 1.

    Args:
        f: Number of faulty rows that the rule is set to withstand, 2 f < n.

    Examples:
        >>> import torch
        >>> from byzopt import FABA
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> FABA(f=1)(rows)
        tensor([1.5000, 1.5000])
    """

    by_value = True

    f: int

    def weights(self, geometry: Geometry) -> Tensor:
        weights = torch.full((geometry.m,), 1 / geometry.m, dtype=torch.float64, device="cpu")
        for dropped in range(1, self.f + 1):
            dists = geometry.sq_dists_to(weights).masked_fill(weights == 0, -1)
            weights[dists.argsort(descending=True, stable=True)[0]] = 0
            weights = (weights > 0).double() / (geometry.m - dropped)
        return weights
