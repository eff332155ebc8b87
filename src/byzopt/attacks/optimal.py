"""Optimal ALIE and IPM: the strength is searched every round against the server's own rule."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View
from byzopt.attacks.moments import row_deviation
from byzopt.errors import TooManyFaults, require


def line_search(damage: Callable[[Tensor], Tensor], start: Tensor, evaluations: int, step: float) -> Tensor:
    """A strength t >= `start` of large damage, `[]` or one a run `[R]`, found in so many evaluations.

    From `start`, t + step is taken where it does more damage. The step doubles until the first failure and
    shrinks by 0.8 at that and every later evaluation; t never falls. No value travels to the host.
    """
    t, best = start, damage(start)
    stride, growing = torch.full_like(t, step), torch.ones_like(t, dtype=torch.bool)
    for _ in range(evaluations - 1):
        tried = damage(t + stride)
        better = tried > best
        t, best = torch.where(better, t + stride, t), torch.where(better, tried, best)
        growing = growing & better
        stride = torch.where(growing, 2 * stride, 0.8 * stride)
    return t


@dataclass(frozen=True)
class _Optimal(Attack):
    """The row a + t w that drives the defence furthest from the honest mean m, t >= 0, sent by all."""

    evaluations: int = 20
    first_step: float = 10.0
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest", "defence"})
    batched = True
    searches = True

    def __post_init__(self) -> None:
        require(self.evaluations >= 1, "Parameter `evaluations`", "be at least 1", self.evaluations)
        require(self.first_step > 0, "Parameter `first_step`", "be positive", self.first_step)

    @abstractmethod
    def ray(self, honest: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Where the ray of rows starts, and its direction: `[d]` each."""

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        honest = view.honest
        mean = honest.mean(dim=-2)
        start, way = self.ray(honest, mean)

        def damage(t: Tensor) -> Tensor:
            try:
                aggregate = view.defence(view.with_forged(row(t)))
            except TooManyFaults:  # rows that overflow end the run, but they are not this attack
                return torch.full_like(t, -torch.inf)
            return linalg.norm(aggregate - mean).nan_to_num(nan=-torch.inf, posinf=torch.inf)

        def row(t: Tensor) -> Tensor:
            return view.alike(start + t.to(way.dtype).unsqueeze(-1) * way)

        zero = torch.zeros(honest.shape[:-2], dtype=torch.float64, device=honest.device)
        return row(line_search(damage, zero, self.evaluations, self.first_step))


@ATTACKS.register("optimal_alie")
@dataclass(frozen=True)
class OptimalALIE(_Optimal):
    """m + t s with t >= 0 searched: m mean, s coordinate-wise standard deviation (ddof 1) of honest rows.

    Each round `evaluations` trials of ‖F(honest rows and b copies) - m‖, F the server's whole rule as a
    pure function, see `line_search`. A heuristic: a lower bound on the worst t.
    Cost: that many aggregations a round. Source: released code of arXiv:2602.03329.

    Args:
        evaluations: Number of aggregations that the search may take in a round.
        first_step: First t that is tried.

    Examples:
        >>> import torch
        >>> from byzopt import Median, OptimalALIE
        >>> rows = torch.tensor([[1.0], [2.0], [3.0], [4.0], [0.0]])
        >>> attacked = OptimalALIE()(rows, byzantine=1, rule=Median(f=1))
        >>> Median(f=1)(attacked)  # 2.5 without the attacker
        tensor([3.])
    """

    def ray(self, honest: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        return mean, row_deviation(honest)


@ATTACKS.register("optimal_ipm")
@dataclass(frozen=True)
class OptimalIPM(_Optimal):
    """-t m with t >= 0 searched as in `optimal_alie`: a multiple of the honest mean m, reversed.

    Source: released code of arXiv:2602.03329.

    Args:
        evaluations: Number of aggregations that the search may take in a round.
        first_step: First t that is tried.

    Examples:
        >>> import torch
        >>> from byzopt import Median, OptimalIPM
        >>> rows = torch.tensor([[1.0], [2.0], [3.0], [4.0], [0.0]])
        >>> attacked = OptimalIPM()(rows, byzantine=1, rule=Median(f=1))
        >>> Median(f=1)(attacked)  # 2.5 without the attacker
        tensor([2.])
    """

    def ray(self, honest: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(mean), -mean
