"""GAS: a rule on random groups of columns tells which rows to leave out of the mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.filters import Filter, StatelessFilter
from byzopt.aggregators.core.influence import blended
from byzopt.aggregators.core.weighing import whole
from byzopt.aggregators.core.wrapper import WRAPPERS, RuleWrapper
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import require
from byzopt.rng import stream


@WRAPPERS.register("gas")
@dataclass(frozen=True)
class GAS(RuleWrapper):
    """The mean of the n - f rows with the least Σ_g ‖v_i[g] - A(v[g])‖ over `groups` groups g of columns.

    Columns are dealt at random to groups of equal size (the last may be smaller), each group is answered by
    `rule` A for itself, and a row's score is the sum of its distances to these answers: gradient splitting,
    against faulty rows that hide in the sum over many columns. f is what `rule` tolerates. The deal is drawn
    from (seed, "gas", t); `at(t)` is the recipe of round t.

    Rules that trust a row (FLTrust, Zeno) are refused, as it would be averaged with the others; MoNNA's pivot
    is so anyway. Bounded as long as `rule` is: a faulty row that is kept scores no more than an honest one
    that is not. κ unproved here (the paper bounds it by that of A and the honest spread in a group).
    Equivariant as `rule` is. A rule with a memory starts each round afresh. Ties: the first. Cost: `groups`
    calls of `rule` on short rows, of many at once where it can, and a few passes.
    Source: Liu, Chen, Lyu, Wu, Wu, Chen, ICML 2023 (arXiv:2302.06079), algorithm 1, as the authors' code has
    it (`gas_aggregate`), with its default of 1000 groups and Bulyan for `rule`. The rules are ours:
    the authors' Bulyan scores all rows once, their Krum is a multi-Krum, both lower f where n is small.

    Args:
        rule: The rule or chain that answers for each group.
        groups: Number p of groups; d where there are fewer columns.
        seed: Of the deal.
        t: The round, part of the deal's stream.

    Examples:
        >>> import torch
        >>> from byzopt import GAS, Median
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> GAS(Median(f=1), groups=2)(rows)
        tensor([1.5000, 1.5000])
    """

    columnwise = False
    convex = True
    draws = True
    ties = "first"
    by_value = False

    rule: Aggregator
    groups: int = 1000
    seed: int = 0
    t: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = "be one that answers for some of the columns alone"
        require(not self.rule.sent_rows, "Parameter `rule` of GAS", kinds, self.rule, "Name another rule.")
        alone = self.rule.pivots or not self.rule.trusts
        whole = "trust no row, which would be averaged with the others"
        require(alone, "Parameter `rule` of GAS", whole, self.rule, "Name another rule.")
        require(self.groups >= 1, "Parameter `groups` of GAS", "be at least 1", self.groups)

    def at(self, t: int) -> Self:
        return replace(self, rule=self.rule.at(t), t=t)

    def as_filter(self) -> Filter:
        return StatelessFilter(self)

    def splits(self) -> bool:
        return False

    def reduce(self, mixed: Mixed) -> Tensor:
        kept = self._distances(mixed).argsort(stable=True)[: mixed.m - self.rule.tolerance(mixed.m)]
        weights = torch.zeros(mixed.m, dtype=torch.float64, device="cpu")
        return mixed.blend(weights.index_fill(0, kept, 1 / len(kept)))

    def influence(self, mixed: Mixed) -> Tensor:
        return blended(self.reduce, mixed)

    def scores(self, mixed: Mixed) -> Tensor | None:
        return self._distances(mixed) * mixed.unit if mixed.mixing is None else None

    @property
    def measure(self) -> str:
        return "sum of distances to the groups' answers"

    def _distances(self, mixed: Mixed) -> Tensor:
        """Σ_g ‖v_i[g] - A(v[g])‖ of all rows, `[m]` float64."""
        rows, d = whole(mixed).rows, mixed.d
        deal = torch.randperm(d, generator=stream(self.seed, "gas", self.t), device="cpu")
        size = -(-d // self.groups)
        even = d - d % size
        total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        for part in (deal[:even], deal[even:]):
            if len(part):
                sets = rows[:, part.to(rows.device)].view(len(rows), -1, min(size, len(part)))
                sets = sets.transpose(0, 1).contiguous()
                offsets = sets - self.rule.batch(sets).unsqueeze(1)
                total += torch.linalg.vector_norm(offsets, dim=2, dtype=torch.float64).sum(dim=0)
        return total.cpu()
