"""Comparative gradient elimination: the mean of the shortest rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.kinds import GeometricRule
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.figures import Ask, least
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed


@RULES.register("cge")
@dataclass(frozen=True)
class CGE(GeometricRule):
    """The mean of the n - f rows with the smallest norms. Ties: the first by value.

    Norms make it scale- but not translation-equivariant, and a short faulty row is always let in: no κ holds.
    Needs 2 f < n. Cost: one pass for norms. Source: Gupta, Liu, Vaidya, arXiv:2008.04699 (there the sum).

    Args:
        f: Number of faulty rows that the rule is set to withstand, 2 f < n.

    Examples:
        >>> import torch
        >>> from byzopt import CGE
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> CGE(f=1)(rows)
        tensor([1.5000, 1.5000])
    """

    translation_equivariant = False
    ties = "rounding"

    by_value = True
    measure = "norm"
    asks = "squares"

    f: int

    def scores(self, mixed: Mixed) -> Tensor:
        return mixed.geometry.sq_norms.sqrt() * mixed.unit

    def shares(self, found: Array, unit: float, order: Ask | None = None) -> Array:
        return least(found[-1], found.shape[-1] - self.f, order)

    def weights(self, geometry: Geometry) -> Tensor:
        kept = geometry.sq_norms.argsort(stable=True)[: geometry.m - self.f]
        return torch.zeros(geometry.m, dtype=torch.float64, device="cpu").index_fill(0, kept, 1 / len(kept))
