"""Median of means: rows are averaged in random groups, and the groups' median is taken."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.median import Median
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import require
from byzopt.rng import stream


@RULES.register("median_of_means")
@dataclass(frozen=True)
class MedianOfMeans(Aggregator):
    """The coordinate-wise median of the means of `groups` random groups, whose sizes differ by one at most.

    f faulty rows spoil at most f groups, so 2 f + 1 groups are enough to stay bounded; by default there are
    3 f + 1, or n if that is fewer, because the median of 2 f + 1 may be the most extreme of the honest means.
    One group (f = 0) is the mean, n groups are the median. The permutation is drawn from (seed,
    "median_of_means", t); `at(t)` is the recipe of round t.

    Needs 2 f < groups <= n. Breakdown point (groups - 1)/2 of n; κ unproved for fixed groups. Scale- and
    translation-equivariant; permutation-invariant in law only. Cost: one pass to mix and a selection network.
    Source: Nemirovsky, Yudin, 1983; with faulty workers (there with the geometric median, which is
    `bucketing >> geometric_median` here) Chen, Su, Xu, arXiv:1705.05491.

    Args:
        f: Number of faulty rows that the rule is set to withstand, 2 f < `groups`.
        groups: Number of groups; None: 3 f + 1, or n if that is fewer.
        seed: Of the groups.
        t: The round, part of the groups' stream.

    Examples:
        >>> import torch
        >>> from byzopt import MedianOfMeans
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> MedianOfMeans(f=1, groups=5)(rows)  # five groups of one: the median
        tensor([2., 1.])
    """

    columnwise = True

    positional = True

    f: int
    groups: int | None = None
    seed: int = 0
    t: int = 0

    def count(self, n: int) -> int:
        """The number of groups for n rows."""
        return min(n, 3 * self.f + 1) if self.groups is None else self.groups

    def check(self, n: int) -> None:
        super().check(n)
        k, rule = self.count(n), f"satisfy 2 f < groups <= n with f = {self.f} and n = {n}"
        require(2 * self.f < k <= n, "Parameter `groups` of MedianOfMeans", rule, k)

    def splits(self) -> bool:
        return True

    def at(self, t: int) -> MedianOfMeans:
        return replace(self, t=t)

    def breakdown(self, n: int) -> int:
        return (self.count(n) - 1) // 2

    def reduce(self, mixed: Mixed) -> Tensor:
        return Median().reduce(self._grouped(mixed))

    def influence(self, mixed: Mixed) -> Tensor:
        return Median().influence(self._grouped(mixed))

    def _grouped(self, mixed: Mixed) -> Mixed:
        k, m = self.count(mixed.m), mixed.m
        order = torch.randperm(m, generator=stream(self.seed, "median_of_means", self.t), device="cpu")
        means = torch.zeros(k, m, dtype=torch.float64, device="cpu")
        means[torch.arange(m, device="cpu") % k, order] = 1
        return mixed.then(means / means.sum(dim=1, keepdim=True), affine=True)
