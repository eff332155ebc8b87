"""THROTTLE: the first row of a worker in a round counts, and each further one much less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.intakes.base import INTAKES, Arrival, AtServer, Intake, Taken, check_above, put
from byzopt.linalg import clip


class ThrottleState(NamedTuple):
    """The centre a `[d]`; the sum of this round's first rows, cut, and how many they are; how often each
    worker has come in it; how many rows were not finite, and how many rounds have ended."""

    a: Tensor
    total: Tensor
    terms: int
    times: tuple[int, ...]
    refused: int
    ended: int


@INTAKES.register("throttle")
@dataclass(frozen=True)
class Throttle(Intake):
    """A step at every row, and rounds that end when all n workers have come, whereupon all begin anew.

    The first row of a worker in a round moves x by -γ/n (a + clip_R(r - a)), its c-th further one by
    -γ q^-c clip_G(r). At the end of the round a <- clip_G(mean of the first terms), and what workers are at
    is given up. All further rows of f liars move x by γ f G/(q - 1) a round at most. q infinite (None) is
    synchronous centred clipping.

    **It needs every worker**: one that is silent holds up the rounds, and then all steps are of further rows
    and soon next to nothing (`ended_rounds` in records stays as it is). A first row that is not finite has
    come, and moves nothing.

    Floor O(c δ σ² + G² f²/(q - 1)²) with R = 2 G. Measured, a much smaller R does better
    (`byzopt reproduce asynchrony/flooding`). Source: Otsuka et al., "Robustifying asynchronous SGD via soft
    throttling".

    Args:
        radius: R, how far a first row may be from the centre, > 0; the theorem has 2 G.
        bound: G, a bound on honest gradients, > 0.
        q: Factor by which each further row counts less, > 1; None: further rows do not count.

    Examples:
        >>> import torch
        >>> from byzopt.intakes import Arrival, AtServer, Throttle
        >>> intake, x = Throttle(radius=10.0, q=10.0), torch.zeros(1)
        >>> state, at = intake.start(x, 2, 0), AtServer(0, x, n=2, f=0)
        >>> for worker in (0, 0, 1):
        ...     taken, state = intake.take(state, Arrival(torch.ones(1), worker, 0, x), at)
        ...     print(taken.rows.item(), taken.restart)
        0.5 False
        0.10000000149011612 False
        0.5 True
    """

    radius: float = 1.0
    bound: float = 10.0
    q: float | None = 1000.0
    uses_rule: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_above(self, 0, radius=self.radius, bound=self.bound)
        require(self.q is None or self.q > 1, "Parameter `q` of intake throttle", "be above 1", self.q)

    def start(self, x0: Tensor, n: int, f: int) -> ThrottleState:
        return ThrottleState(torch.zeros_like(x0), torch.zeros_like(x0), 0, (0,) * n, 0, 0)

    def take(self, state: ThrottleState, arrival: Arrival, at: AtServer) -> tuple[Taken, ThrottleState]:
        i, c = arrival.worker, state.times[arrival.worker]
        after = state._replace(times=put(state.times, i, c + 1))
        if not arrival.sound:
            after = after._replace(refused=state.refused + 1)
            return self._ended(None, after)
        if c:
            weight = 0.0 if self.q is None else self.q**-c
            step = weight * clip(arrival.row.unsqueeze(0), self.bound) if weight else None
            return Taken(step), after
        term = state.a + clip((arrival.row - state.a).unsqueeze(0), self.radius)[0]
        after = after._replace(total=state.total + term, terms=state.terms + 1)
        return self._ended(term / at.n, after)

    def _ended(self, step: Tensor | None, state: ThrottleState) -> tuple[Taken, ThrottleState]:
        """The step of a first row, and the end of the round where all have come."""
        rows = None if step is None else step.unsqueeze(0)
        if not all(state.times):
            return Taken(rows), state
        a = clip((state.total / state.terms).unsqueeze(0), self.bound)[0] if state.terms else state.a
        nobody = (0,) * len(state.times)
        counts = (nobody, state.refused, state.ended + 1)
        return Taken(rows, restart=True), ThrottleState(a, torch.zeros_like(a), 0, *counts)

    def report(self, state: ThrottleState) -> dict[str, float]:
        """`refused_rows`: rows so far that were not finite; `ended_rounds`: rounds in which all have come."""
        return {"refused_rows": float(state.refused), "ended_rounds": float(state.ended)}
