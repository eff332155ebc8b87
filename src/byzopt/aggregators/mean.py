"""The plain mean: no robustness at all, and the yardstick of every comparison."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.kinds import RankRule
from byzopt.aggregators.core.weighted_form import WeightedSum
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.kernels import RankWindow


@RULES.register("mean")
@dataclass(frozen=True)
class Mean(RankRule):
    """(1/n) Σ v_i.

    Breakdown point 0: one faulty row moves it anywhere, so it tolerates f = 0, where its κ is 0; for f >= 1
    it has none.
    Cost: one pass over the rows.

    Examples:
        >>> import torch
        >>> from byzopt import Mean
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> Mean()(rows)
        tensor([2., 3.])
    """

    validates = True
    keeps_bounds = True

    def tolerance(self, n: int) -> int:
        return 0

    def plan(self, m: int) -> RankWindow:
        return RankWindow(0, m)

    def influence(self, mixed: Mixed) -> Tensor:
        return mixed.through(torch.full((mixed.m,), 1 / mixed.m, dtype=torch.float64, device="cpu"))

    def weighted_form(self, row_weights: Tensor, heaviest: float) -> Aggregator:
        return WeightedSum(lambda mixed: row_weights / row_weights.sum())
