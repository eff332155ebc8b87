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
    """A rule that answers each column of a block `[m, b]` by `act`, `[b]`.

    Args:
        act: The rule of a block of columns, `[m, b] -> [b]`.

    Examples:
        >>> import torch
        >>> from byzopt.aggregators import WeightedColumns
        >>> WeightedColumns(lambda block: block.amax(dim=0))(torch.eye(3))
        tensor([1., 1., 1.])
    """

    act: Callable[[Tensor], Tensor]

    def columns(self, block: Tensor) -> Tensor:
        return self.act(block)


@dataclass(frozen=True)
class WeightedSum(WeighingRule):
    """A rule whose answer is the sum of the rows with the weights `[m]` that `act` gives them.

    Args:
        act: The weights of the rows, `[m]` float64.

    Examples:
        >>> import torch
        >>> from byzopt.aggregators import WeightedSum
        >>> first = WeightedSum(lambda mixed: torch.eye(mixed.m, dtype=torch.float64)[0])
        >>> first(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([1., 2.])
    """

    act: Callable[[Mixed], Tensor]

    def weigh(self, mixed: Mixed) -> Tensor:
        return self.act(mixed)
