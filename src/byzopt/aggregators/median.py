"""The coordinate-wise median."""

from __future__ import annotations

from dataclasses import dataclass

from byzopt.aggregators.base import RULES, RankRule
from byzopt.kernels import Plan
from byzopt.theory import robustness


@RULES.register("median")
@dataclass(frozen=True)
class Median(RankRule):
    """The median of each coordinate; the mean of the two middle values for even n.

    `f` only says how many rows may be dropped and which κ is meant; None means the most that n allows.
    Needs 2 f < n; breakdown point 1/2. κ = 2 (1 + f/(n - 2 f)), without the √d of arXiv:2603.12512,
    because the scalar bound holds in every coordinate; κ₂ = κ². Cost: a selection network on each column.
    """

    f: int | None = None

    def plan(self, m: int) -> Plan:
        return Plan((m - 1) // 2, m // 2 + 1)

    def kappa_linear(self, n: int) -> float | None:
        return robustness.median_linear(n, self.tolerance(n))

    def kappa_squared(self, n: int) -> float | None:
        return robustness.median_squared(n, self.tolerance(n))
