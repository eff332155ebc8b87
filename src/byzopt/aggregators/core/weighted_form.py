"""The two shapes of weighted forms: what a rule becomes where each row counts with a weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from byzopt.aggregators.core.kinds import CoordinateRule
from byzopt.aggregators.core.weighing import WeighingRule
from byzopt.aggregators.numerics.mixed import Mixed


@dataclass(frozen=True)
class WeightedColumns(CoordinateRule):
    """A rule that answers each column of a block `[m, b]` by `act`, `[b]`."""

    act: Callable[[Tensor], Tensor]

    def columns(self, block: Tensor) -> Tensor:
        return self.act(block)


@dataclass(frozen=True)
class WeightedSum(WeighingRule):
    """A rule whose answer is the sum of the rows with the weights `[m]` that `act` gives them."""

    act: Callable[[Mixed], Tensor]

    def weigh(self, mixed: Mixed) -> Tensor:
        return self.act(mixed)
