"""Who is the odd one out of three ranks more often than chance allows: evidence that liars cannot make up.

`byzopt.theory.accusing` has the test. It holds for rows of any law, while honest ranks sample one of them.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from byzopt.aggregators.pairs import THREES
from byzopt.theory.accusing import odd_limit

SPAN = 500  # verdicts of a window, after which counts begin anew, so that a rank that turns bad is seen
LEVEL = 0.01  # with which an honest rank is ever accused, in all windows together


class Threes:
    """Counts over windows of `SPAN` verdicts, for up to `aggregators.pairs.THREES` ranks."""

    def __init__(self) -> None:
        self.window, self.age = 0, SPAN
        self.odd = self.seen = torch.zeros(0, 0, 0, dtype=torch.int32, device="cpu")
        self.limits = torch.zeros(0, device="cpu")

    def heard(self, apart: Tensor, f: int) -> list[int]:
        """The ranks accused after one more round, of which `apart` `[n, n]` are distances: NaN where one of
        two was absent, infinite where one was not finite. At most f of them lie."""
        n = len(apart)
        if n > THREES:
            return []
        if len(self.odd) != n or self.age == SPAN:
            self._begin(n)
        self.age += 1
        self.limits = torch.cat(
            [self.limits, torch.tensor([odd_limit(self.age, self._level(n))], device="cpu")]
        )
        near = apart.masked_fill(torch.eye(n, dtype=torch.bool, device="cpu"), inf).unsqueeze(0)
        self.odd += ((near < apart.unsqueeze(2)) & (near < apart.unsqueeze(1))).int()
        here = apart.isnan().logical_not()
        self.seen += (here.unsqueeze(0) & here.unsqueeze(1) & here.unsqueeze(2)).int()
        partners = (self.odd >= self.limits[self.seen]).sum(dim=2)
        told = (partners <= f).sum(dim=1) - 1 < n - f - 1
        return told.nonzero().flatten().tolist()

    def _begin(self, n: int) -> None:
        self.window, self.age = self.window + 1, 0
        self.odd = torch.zeros(n, n, n, dtype=torch.int32, device="cpu")
        self.seen = torch.zeros_like(self.odd)
        self.limits = torch.tensor([1], device="cpu")  # in no round nobody was

    def _level(self, n: int) -> float:
        cases = n * max(n - 1, 1) * max(n - 2, 1) / 2
        return LEVEL / (self.window * (self.window + 1)) / cases
