"""The coordinate-wise trimmed mean."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.kinds import RankRule
from byzopt.aggregators.core.weighted_form import WeightedColumns
from byzopt.aggregators.numerics.weighted_columns import ranked, weighted_trimmed_mean
from byzopt.kernels import RankWindow


@RULES.register("trimmed_mean")
@dataclass(frozen=True)
class TrimmedMean(RankRule):
    """In each coordinate, drop the f smallest and the f largest values and average the other n - 2 f.

    The kept values are summed; nothing is subtracted, so one huge value costs no accuracy. f = 0 is the mean.
    Needs 2 f < n; breakdown point f/n. κ₂ = r = f/(n - 2 f) and, for f >= 1, κ = (n - f)/(2 (n - 2 f)), both
    exact and the least that any rule has (derived here; published: 6 r (1 + r), arXiv:2302.01772). Cost: a
    selection network on each column. Source: Yin et al., ICML 2018 (there f is a fraction of n).

    Args:
        f: Number of faulty rows that the rule is set to withstand, 2 f < n.

    Examples:
        >>> import torch
        >>> from byzopt import TrimmedMean
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> TrimmedMean(f=1)(rows)
        tensor([1.6667, 1.3333])
    """

    f: int

    def plan(self, m: int) -> RankWindow:
        return RankWindow(self.f, m - self.f)

    def weighted_form(self, row_weights: Tensor, heaviest: float) -> Aggregator:
        return WeightedColumns(lambda block: weighted_trimmed_mean(*ranked(block, row_weights), heaviest))
