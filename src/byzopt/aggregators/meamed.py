"""Means around a robust centre, coordinate by coordinate: MeaMed and Phocas."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.kinds import RankRule
from byzopt.aggregators.core.weighted_form import WeightedColumns
from byzopt.aggregators.numerics.weighted_columns import (
    weighted_mean_around,
    weighted_median,
    weighted_trimmed_mean,
)
from byzopt.kernels import RankWindow


@RULES.register("meamed")
@dataclass(frozen=True)
class MeaMed(RankRule):
    """In each coordinate, the mean of the n - f values nearest to the median. Ties: the smaller value.

    Needs 2 f < n; breakdown point f/n. κ₂ = (4 f/(n - f)) (κ₂ of the median + 1), 1.5 at n = 20, f = 3
    (derived here). Cost: a sorting network on each column. Source: Xie, Koyejo, Gupta, arXiv:1802.10116
    (mean around median).

    Args:
        f: Number of faulty rows that the rule is set to withstand, 2 f < n.

    Examples:
        >>> import torch
        >>> from byzopt import MeaMed
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> MeaMed(f=1)(rows)
        tensor([1.5000, 1.5000])
    """

    f: int

    def plan(self, m: int) -> RankWindow:
        return RankWindow((m - 1) // 2, m // 2 + 1, m - self.f)

    def weighted_form(self, row_weights: Tensor, heaviest: float) -> Aggregator:
        return WeightedColumns(
            lambda block: weighted_mean_around(block, row_weights, heaviest, weighted_median)
        )


@RULES.register("phocas")
@dataclass(frozen=True)
class Phocas(RankRule):
    """In each coordinate, the mean of the n - f values nearest to the f-trimmed mean.

    Ties: the smaller value. Needs 2 f < n; breakdown point f/n. κ₂ = 4 f/(n - 2 f), exact, and
    κ = 2 min(1, f/2) + f/(n - 2 f) (derived here). Cost: a sorting network on each column.
    Source: Xie, Koyejo, Gupta, arXiv:1805.09682.

    Args:
        f: Number of faulty rows that the rule is set to withstand, 2 f < n.

    Examples:
        >>> import torch
        >>> from byzopt import Phocas
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> Phocas(f=1)(rows)
        tensor([1.5000, 1.5000])
    """

    f: int

    def plan(self, m: int) -> RankWindow:
        return RankWindow(self.f, m - self.f, m - self.f)

    def weighted_form(self, row_weights: Tensor, heaviest: float) -> Aggregator:
        def centre(values: Tensor, held: Tensor) -> Tensor:
            return weighted_trimmed_mean(values, held, heaviest)

        return WeightedColumns(lambda block: weighted_mean_around(block, row_weights, heaviest, centre))
