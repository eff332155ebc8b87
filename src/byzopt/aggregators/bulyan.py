"""Bulyan: iterated Krum, then a mean around the median."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.influence import column_weights
from byzopt.aggregators.krum import krum_scores
from byzopt.aggregators.numerics.distances import Distances
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.selection import answer
from byzopt.errors import require
from byzopt.kernels import RankWindow


@RULES.register("bulyan")
@dataclass(frozen=True)
class Bulyan(Aggregator):
    """Krum's winner is taken out n - 2 f times; of those, each coordinate's n - 4 f nearest to the median.

    Every choice scores the m rows that are left by their m - f - 2 nearest others (at least one). Needs
    n >= 4 f + 3. Ties, which are usual among the last five: the smaller sum over all that are left, then the
    order of the rows' values; the smaller value. Cost: one Gram product and a sorting network.
    Source: El Mhamdi, Guerraoui, Rouault, ICML 2018, algorithm 2 (the iterative form).

    Args:
        f: Number of faulty rows that the rule is set to withstand, n >= 4 f + 3.

    Examples:
        >>> import torch
        >>> from byzopt import Bulyan
        >>> rows = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [90.0]])
        >>> 3 <= float(Bulyan(f=1)(rows)) <= 5
        True
    """

    ties = "rounding"
    columnwise = True

    by_value = True
    validates = True

    f: int

    def check(self, n: int) -> None:
        numbers = f"f = {self.f} with n = {n}"
        require(
            n >= 4 * self.f + 3,
            "Parameter `f` of Bulyan",
            "satisfy n >= 4 f + 3",
            numbers,
            "Lower f or add workers.",
        )

    def splits(self) -> bool:
        return True

    def reduce(self, mixed: Mixed) -> Tensor:
        picked = self._picked(mixed)
        return picked.columns(self._plan(picked.m))

    def influence(self, mixed: Mixed) -> Tensor:
        picked = self._picked(mixed)
        return picked.through(column_weights(partial(answer, plan=self._plan(picked.m)), picked))

    def _picked(self, mixed: Mixed) -> Mixed:
        mixed = mixed.sorted()
        chosen = self._chosen(mixed.geometry.apart)
        return mixed.then(torch.eye(mixed.m, dtype=torch.float64, device="cpu")[chosen], affine=True)

    def _plan(self, k: int) -> RankWindow:
        return RankWindow((k - 1) // 2, k // 2 + 1, k - 2 * self.f)

    def _chosen(self, apart: Distances) -> list[int]:
        left = np.arange(len(apart.gram))
        chosen: list[int] = []
        ranked = np.ascontiguousarray(apart.ranked.T)  # in column i the distances from row i to those left
        for m in range(len(left), 2 * self.f, -1):
            scores = krum_scores(ranked.T, max(1, m - self.f - 2))
            tied = (scores == scores.min()).nonzero()[0]
            best = tied[krum_scores(ranked.T[tied], m).argmin()] if len(tied) > 1 else tied[0]
            chosen.append(int(left[best]))
            # Distances to the winner leave all columns, and those below move up.
            gone = apart.squared[left[best], left]
            ranked = np.where(ranked[:-1] >= gone, ranked[1:], ranked[:-1])
            ranked, left = np.delete(ranked, best, axis=1), np.delete(left, best)
        return sorted(chosen)
