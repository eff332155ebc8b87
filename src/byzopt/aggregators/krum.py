"""Krum and Multi-Krum: the rows closest to their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.kinds import PairwiseRule
from byzopt.aggregators.numerics.distances import Array, Distances, even
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import require
from byzopt.theory import selecting
from byzopt.theory.robustness import Coefficients


def krum_scores(ranked: Array, neighbours: int, power: int = 2) -> Array:
    """For each row the sum of distance^power to its nearest others: `[..., m, m] -> [..., m]`.

    `ranked` holds each row's squared distances in order, that to itself first.
    """
    nearest = ranked[..., 1 : 1 + neighbours]
    scores: Array = np.add.reduce(nearest if power == 2 else nearest ** (power / 2), axis=-1)
    return scores


@dataclass(frozen=True)
class _KrumLike(PairwiseRule):
    """The score, its switches and the precondition, shared by Krum and Multi-Krum."""

    batched = True
    measure = "Krum score"

    f: int

    def check(self, n: int) -> None:
        extra: int = getattr(self, "extra", 0)  # both have it, in a place of their own
        if n < 2 * self.f + (1 if extra else 3):  # few calls get here, and all others need no words
            require(
                False,
                f"Parameter `f` of {type(self).__name__}",
                f"satisfy {'n > 2 f' if extra else 'n >= 2 f + 3'} with extra = {extra}",
                f"f = {self.f} with n = {n}",
                "Lower f or add workers.",
            )

    def _mean_of_best(self, apart: Distances, count: int, extra: int, power: int) -> Array:
        neighbours = apart.m - self.f - 2 + extra
        best = apart.best_shares(neighbours, count) if power == 2 else None
        if best is not None:
            return best
        scores = krum_scores(apart.ranked, neighbours, power)
        return even(scores.argsort(axis=-1, kind="stable")[..., :count], apart.m)

    def _reported(self, mixed: Mixed, extra: int, power: int) -> Tensor:
        found = krum_scores(mixed.geometry.apart.ranked, mixed.m - self.f - 2 + extra, power)
        scores = torch.from_numpy(found)
        for _ in range(power):
            scores = scores * mixed.unit
        return scores


@RULES.register("krum")
@dataclass(frozen=True)
class Krum(_KrumLike):
    """The row with the smallest sum of squared distances to its n - f - 2 nearest others.

    Needs n >= 2 f + 3; breakdown point (n - 3) / 2 of n. Cost: one Gram product. Ties: the lowest index (in a
    chain the first in the order of the rows' values, see `Chain`). Source: Blanchard et al., NeurIPS 2017.
    κ and κ₂, 4.50 at n = 20, f = 3: see `theory.selecting.krum` (derived here; published for extra = 1:
    6 (1 + f/(n - 2 f)), arXiv:2302.01772).

    Switches for variants in the wild: `extra` neighbours beyond n - f - 2 (1 in ByzFL and the released
    quartic code of arXiv:2603.12512; then n > 2 f is enough, for the score and for its κ₂), `power` of the
    distance (1, 2, or the releases' 4).

    Args:
        f: Number of faulty rows that the rule is set to withstand, n >= 2 f + 3.
        extra: Neighbours beyond n - f - 2.
        power: Of the distances: 1, 2 or 4.

    Examples:
        >>> import torch
        >>> from byzopt import Krum
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> Krum(f=1)(rows)
        tensor([1., 2.])
        >>> Krum(f=1).explain(rows).selected
        (0,)
    """

    ties = "first"

    extra: Literal[0, 1] = 0
    power: Literal[1, 2, 4] = 2

    def decide(self, apart: Distances) -> Array:
        return self._mean_of_best(apart, 1, self.extra, self.power)

    def scores(self, mixed: Mixed) -> Tensor:
        return self._reported(mixed, self.extra, self.power)

    def proved(self, n: int, f: int) -> Coefficients:
        return selecting.krum(n, f, n - self.f - 2 + self.extra, self.power)


@RULES.register("multi_krum")
@dataclass(frozen=True)
class MultiKrum(_KrumLike):
    """The mean of the m rows with the smallest Krum scores; m = n - f unless given.

    m = 1 is Krum. The paper allows 1 <= m <= n and runs m = n - f; m > n - f lets a faulty row in by force
    and is refused. Needs n >= 2 f + 3, or n > 2 f with `extra`. Cost: one Gram product. Ties: as in Krum.
    Source: Blanchard et al., NeurIPS 2017, section 4. `extra` and `power` as in Krum. Rows dropped as
    non-finite lower n and f together, so the default m stays the number of rows that must be honest. κ and
    κ₂, 1.05 at n = 20, f = 3: see `theory.selecting.multi_krum` (derived here).

    Args:
        f: Number of faulty rows that the rule is set to withstand, n >= 2 f + 3.
        m: How many rows are averaged; None: n - f.
        extra: Neighbours beyond n - f - 2.
        power: Of the distances: 1, 2 or 4.

    Examples:
        >>> import torch
        >>> from byzopt import MultiKrum
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> MultiKrum(f=1)(rows)
        tensor([1.5000, 1.5000])
    """

    m: int | None = None
    extra: Literal[0, 1] = 0
    power: Literal[1, 2, 4] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.m is None or self.m >= 1, "Parameter `m` of MultiKrum", "be at least 1", self.m)

    def check(self, n: int) -> None:
        super().check(n)
        m, top = n - self.f if self.m is None else self.m, n - self.f
        require(1 <= m <= top, "Parameter `m` of MultiKrum", f"lie in 1..n - f = 1..{top}", m, "Lower m.")

    def decide(self, apart: Distances) -> Array:
        count = apart.m - self.f if self.m is None else self.m
        return self._mean_of_best(apart, count, self.extra, self.power)

    def scores(self, mixed: Mixed) -> Tensor:
        return self._reported(mixed, self.extra, self.power)

    def proved(self, n: int, f: int) -> Coefficients:
        count = n - self.f if self.m is None else self.m
        return selecting.multi_krum(n, f, n - self.f - 2 + self.extra, count, self.power)
