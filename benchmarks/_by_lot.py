"""A rule of one's own for `survive.py`: in each round one of several rules answers, by lot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from byzopt.aggregators import Aggregator, rule_from
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.rng import stream

RULES = ("rfa", "norm_clipping", "normalise >> mean", "nnm >> trimmed_mean")


@dataclass(frozen=True)
class ByLot(Aggregator):
    """One of `RULES` answers: which, is drawn from (seed, "by lot", t). The attacker does not know the lot,
    and searches against draws of its own."""

    translation_equivariant = False
    draws = True

    f: int
    seed: int = 0
    t: int = 0

    def at(self, t: int) -> Self:
        return replace(self, t=t)

    @property
    def chosen(self) -> Aggregator:
        """The rule of this round."""
        drawn = torch.randint(len(RULES), (), generator=stream(self.seed, "by lot", self.t), device="cpu")
        return rule_from(RULES[int(drawn)], f=self.f)

    def reduce(self, mixed: Mixed) -> Tensor:
        return self.chosen(mixed.materialise())

    def influence(self, mixed: Mixed) -> Tensor:
        return torch.full((mixed.m,), 1 / mixed.m, dtype=torch.float64, device="cpu")
