"""The robust learning rate: where too few workers agree on a sign, the step is turned round."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.filters import Filter, StatelessFilter
from byzopt.aggregators.core.weighing import whole
from byzopt.aggregators.core.wrapper import WRAPPERS, RuleWrapper
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import require


@WRAPPERS.register("rlr")
@dataclass(frozen=True)
class RLR(RuleWrapper):
    """The answer of `rule`, times -1 in each column in which |Σ_i sign(v_ij)| < `threshold` θ.

    Against backdoors: what only a few want to change is changed the other way. f rows alone cannot reach
    θ > f; n - f honest rows that agree reach any θ <= n - 2 f whatever the others send, so θ should lie
    in between, which takes n > 3 f. None: f + 1, f being what `rule` tolerates, and n <= 3 f is refused; the
    mean tolerates none, so that behind it θ is to be given. Zeros do not vote. A θ that n - f rows alone
    cannot reach would turn every column, and is refused. Any in between n - 2 f and that is taken: there
    f faulty rows turn whichever columns they like.

    **A column in which honest workers disagree is turned round too**: near an optimum, or with data that
    differ, the step then leads away from it, attack or not. No κ holds; bounded as far as `rule` is. As
    scale-equivariant as `rule`; not translation-equivariant. A rule with a memory starts each round afresh.
    Cost: one pass more.
    Source: Ozdayi, Kantarcioglu, Gel, AAAI 2021 (arXiv:2007.03767), section 4, and the authors' code, which
    has the mean, the median and the majority of signs for `rule`, and θ = 4 for one attacker of 10.

    Args:
        rule: The rule or chain that answers.
        threshold: θ <= n - f, how many votes more one sign needs than the other; None: f + 1.

    Raises:
        InvalidInput: θ > n - f, or n <= 3 f where θ is None.

    Examples:
        >>> import torch
        >>> from byzopt import RLR, Mean
        >>> rows = torch.tensor([[1.0, 0.1], [1.0, -0.1], [1.0, 0.1], [1.0, -0.1], [1.0, 90.0]])
        >>> RLR(Mean(), threshold=2)(rows)
        tensor([  1., -18.])
    """

    translation_equivariant = False
    convex = False
    columnwise = True

    rule: Aggregator
    threshold: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        ok = self.threshold is None or self.threshold >= 1
        require(ok, "Parameter `threshold` of RLR", "be at least 1", self.threshold)

    def as_filter(self) -> Filter:
        return StatelessFilter(self)

    def check(self, n: int) -> None:
        super().check(n)
        f = self.rule.tolerance(n)
        if self.threshold is None:
            told = f"f = {f}, which its rule tolerates, with n = {n}"
            remedy = "Add workers, or lower the rule's f: above n - 2 f liars turn any column."
            require(3 * f < n, "Parameter `threshold` of RLR", "be f + 1 with n > 3 f", told, remedy)
        else:
            told = f"{self.threshold} with n = {n} and f = {f}"
            remedy = "Give one between f and n - 2 f: a sign never has more votes than there are rows."
            ok = self.threshold <= n - f
            require(ok, "Parameter `threshold` of RLR", f"be at most n - f = {n - f}", told, remedy)

    def reduce(self, mixed: Mixed) -> Tensor:
        out = self.rule.reduce(mixed)
        needed = self.rule.tolerance(mixed.m) + 1 if self.threshold is None else self.threshold
        signs = torch.empty_like(out)
        for piece, block in whole(mixed).blocks():
            signs[piece] = block.sign().sum(dim=0).abs() >= needed
        return out * (2 * signs - 1)
