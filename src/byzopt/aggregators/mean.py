"""The plain mean: no robustness at all, and the yardstick of every comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from byzopt.aggregators.base import RULES, Aggregator
from byzopt.aggregators.geometry import Unusual
from byzopt.aggregators.mixed import Mixed


@RULES.register("mean")
@dataclass(frozen=True)
class Mean(Aggregator):
    """(1/n) Σ v_i.

    Breakdown point 0: one faulty row moves it anywhere, so it tolerates f = 0 and its κ is 0 there.
    Cost: one pass over the rows.
    """

    notices: ClassVar[bool] = True

    def tolerance(self, n: int) -> int:
        return 0

    def reduce(self, mixed: Mixed) -> Tensor:
        out = mixed.rows.mean(dim=0) if mixed.mixing is None else mixed.blend(self._even(mixed))
        if not (mixed.admitted or bool(out.isfinite().all())):
            raise Unusual
        return out

    def influence(self, mixed: Mixed) -> Tensor:
        return mixed.through(self._even(mixed))

    def _even(self, mixed: Mixed) -> Tensor:
        return torch.full((mixed.m,), 1 / mixed.m, dtype=torch.float64)

    def kappa_linear(self, n: int) -> float | None:
        return 0.0

    def kappa_squared(self, n: int) -> float | None:
        return 0.0
