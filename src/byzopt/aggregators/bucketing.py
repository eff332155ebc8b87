"""Bucketing: means of small random groups of rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from byzopt.aggregators.core.pre_aggregator import PRE_AGGREGATORS, PreAggregator
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.errors import require
from byzopt.rng import stream


@PRE_AGGREGATORS.register("bucketing")
@dataclass(frozen=True)
class Bucketing(PreAggregator):
    """Shuffle the n rows, cut them into ceil(n/s) buckets of s (the last may be smaller), average each.

    f faulty rows spoil at most f buckets, so the rule behind keeps its f and is checked with ceil(n/s) rows.
    s = 1 changes nothing but the order. The permutation is drawn from (seed, "bucketing", t); `at(t)` is the
    recipe of round t. Its guarantee is in expectation over the draw, so no κ is composed. Cost: none of its
    own. Source: Karimireddy, He, Jaggi, arXiv:2006.09365, algorithm 1.

    Args:
        s: Rows of a bucket, at least 1.
        seed: Of the shuffling.
        t: The round, part of the shuffling's stream.

    Examples:
        >>> import torch
        >>> from byzopt import Bucketing, Median
        >>> rule = Bucketing(s=2) >> Median(f=1)
        >>> rule(torch.ones(10, 3)).shape
        torch.Size([3])
    """

    batched = True
    positional = True

    s: int = 2
    seed: int = 0
    t: int = 0

    def __post_init__(self) -> None:
        require(self.s >= 1, "Parameter `s` of Bucketing", "be at least 1", self.s)

    def out(self, n: int) -> int:
        return -(-n // self.s)

    def at(self, t: int) -> Bucketing:
        return replace(self, t=t)

    def mixing(self, geometry: Geometry) -> Tensor:
        order = torch.randperm(geometry.m, generator=stream(self.seed, "bucketing", self.t), device="cpu")
        buckets = torch.zeros(self.out(geometry.m), geometry.m, dtype=torch.float64, device="cpu")
        buckets[torch.arange(geometry.m, device="cpu") // self.s, order] = 1
        return buckets / buckets.sum(dim=1, keepdim=True)
