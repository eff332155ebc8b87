"""The coordinate-wise median."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.kinds import RankRule
from byzopt.aggregators.core.weighted_form import WeightedColumns
from byzopt.aggregators.numerics.weighted_columns import ranked, weighted_median
from byzopt.kernels import RankWindow


@RULES.register("median")
@dataclass(frozen=True)
class Median(RankRule):
    """The median of each coordinate; the mean of the two middle values for even n.

    `f` only says how many rows may be dropped and which κ is meant; None means the most that n allows.
    Needs 2 f < n; breakdown point 1/2. κ₂ and κ are exact, from `theory.order_statistics` (derived here):
    1.125 and 1.0625 at n = 20, f = 3, in any dimension. Published: κ₂ = 4 (1 + r)², r = f/(n - 2 f), and
    κ = 2 √d (1 + r) (arXiv:2302.01772, arXiv:2603.12512). Cost: a selection network on each column.

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.

    Examples:
        >>> import torch
        >>> from byzopt import Median
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> Median(f=1)(rows)
        tensor([2., 1.])
    """

    f: int | None = None

    def plan(self, m: int) -> RankWindow:
        return RankWindow((m - 1) // 2, m // 2 + 1)

    def weighted_form(self, row_weights: Tensor, heaviest: float) -> Aggregator:
        return WeightedColumns(lambda block: weighted_median(*ranked(block, row_weights)))
