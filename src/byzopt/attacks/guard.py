"""Adversaries of ByzantineSGD's three tests: hug, straddle, and one that shows in the scalar sums A only.

ByzantineSGD (arXiv:1803.08917) compares the sums B_i of each worker's gradients, within a threshold τ, the
gradients of the round, within 4 V, and the sums A_i = Σ <g_i, x_k - x_1>. Each adversary below moves its
rows by less than 0.9 V a round from the honest mean m, so that the second test sees nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Knowledge, Remembering, View
from byzopt.attacks.moments import direction
from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.linalg import compute_dtype

REACH, NEAR, SPEED = 0.95, 0.999, 0.9  # shares of τ that hug and straddle use up, and of V in one round


class HugBudget(NamedTuple):
    """What an adversary goes by: V, τ of the sums, and the round k of T since the guard's sums began."""

    noise: float
    threshold: float
    k: int
    rounds: int


@dataclass(frozen=True)
class _Guarded(Remembering):
    """`noise` V bounds honest noise (length of a gradient's); `rounds` T; `threshold` τ in units of B.

    What is None is the server's own, where it has a guard (with its epochs); else V = 1, T = 1000, and the
    threshold of `tau`. Where a guard starts its sums afresh, with an epoch, they do too.
    """

    noise: float | None = None
    rounds: int | None = None
    threshold: float | None = None
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest", "defence"})

    def __post_init__(self) -> None:
        require(self.noise is None or self.noise > 0, "Parameter `noise`", "be positive", self.noise)
        require(self.rounds is None or self.rounds >= 1, "Parameter `rounds`", "be at least 1", self.rounds)
        require((self.threshold or 0) >= 0, "Parameter `threshold`", "be at least 0", self.threshold)

    def tau(self, n: int) -> float:
        """τ as given, or 4 V sqrt(T log(16 n T/0.05)), the threshold of the B test."""
        if self.threshold is not None:
            return self.threshold
        noise, rounds = self.noise or 1.0, self.rounds or 1000
        return 4 * noise * sqrt(rounds * log(16 * n * rounds / 0.05))

    def measure(self, view: View) -> HugBudget:
        """The server's limits this round, but for what is given here."""
        limits: DefenceLimits | None = getattr(view.defence, "limits", lambda: None)()
        if limits is None:
            return HugBudget(self.noise or 1.0, self.tau(view.cohort.n), view.t, self.rounds or 1000)
        tau = limits.sums if self.threshold is None else self.threshold
        return HugBudget(self.noise or limits.noise, tau, limits.k, self.rounds or limits.rounds)


class DefenceLimits(Protocol):
    """What a guard tells of itself: V, τ_B, and the round k of T since its sums began."""

    noise: float
    sums: float
    k: int
    rounds: int


def towards(way: Tensor, noise: float) -> Tensor:
    """`way` `[d]`, cut to a length that one round allows: 0.9 V."""
    length = torch.linalg.vector_norm(way)
    share: Tensor = (SPEED * noise / torch.where(length > 0, length, 1)).clamp_max(1)
    return way * share


class HugState(NamedTuple):
    """Sums of the honest means and of the moves made so far, `[d]` each."""

    ascent: Tensor
    moved: Tensor


@ATTACKS.register("hug")
@dataclass(frozen=True)
class Hug(_Guarded):
    """m + the move that keeps the sum of moves at -0.95 τ (t/T) u, cut to 0.9 V: a steady, unseen pull.

    u, the direction of the sum of all m so far, stands for that of ascent: the server is held back along it.
    The bias is 0.95 b τ/(n T) a round, and none once T is over. τ, V and T are the server's own where it has
    a guard. Source: our reading of the lower bound of arXiv:1803.08917 as an adversary.

    Args:
        noise: Bound V on the noise of honest messages, in their units; None: that of the server's guard.
        rounds: Length T of the run; None: that of the guard.
        threshold: τ of the guard, in units of summed messages; None: the guard's own.

    Examples:
        >>> import torch
        >>> from byzopt import Hug
        >>> rows = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 0.0]])
        >>> Hug(noise=1.0, rounds=10, threshold=1.0)(rows, byzantine=1)[2]  # mean (2, 0), pulled back
        tensor([1.9050, 0.0000])
    """

    def start(self, cohort: Cohort, x: Tensor) -> HugState:
        zeros = torch.zeros_like(x, dtype=compute_dtype(x.dtype))
        return HugState(zeros, zeros)

    def step(self, state: HugState, view: View, generator: torch.Generator) -> tuple[Tensor, HugState]:
        noise, tau, k, rounds = self.measure(view)
        state = self.start(view.cohort, view.x) if k == 1 else state
        mean = view.honest.mean(dim=0)
        ascent = state.ascent + mean
        due = REACH * tau * min(k / rounds, 1)
        move = towards(-due * direction(ascent) - state.moved, noise)
        return view.alike(mean + move), HugState(ascent, state.moved + move)


class StraddleState(NamedTuple):
    """Sums of the honest rows `[h, d]` and of the Byzantine row `[d]`; the direction to go in `[d]`."""

    honest: Tensor
    own: Tensor
    way: Tensor


@ATTACKS.register("straddle")
@dataclass(frozen=True)
class Straddle(_Guarded):
    """m + the move, cut to 0.9 V, towards a sum near just enough honest sums to be chosen as the B median.

    With b equal sums, ⌊n/2⌋ + 1 - b honest ones within τ make the majority. Those furthest out along a fixed
    direction, that of the honest row most remote from m in round 1, are kept within 0.999 τ, and the
    Byzantine sum goes as far beyond them as that allows. A server that selects and tests with one radius τ
    then expels the other honest workers; as the furthest change, nearly all of them. Source: our
    construction against the printed thresholds, where selection and test share 4 V sqrt(T Λ).

    Args:
        noise: Bound V on the noise of honest messages, in their units; None: that of the server's guard.
        rounds: Length T of the run; None: that of the guard.
        threshold: τ of the guard, in units of summed messages; None: the guard's own.

    Examples:
        >>> import torch
        >>> from byzopt import Straddle
        >>> rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
        >>> forged = Straddle(noise=1.0, rounds=100, threshold=40.0)(rows, byzantine=2)[3:]
        >>> bool((forged[0] == forged[1]).all())
        True
    """

    def start(self, cohort: Cohort, x: Tensor) -> StraddleState:
        zeros = torch.zeros_like(x, dtype=compute_dtype(x.dtype))
        return StraddleState(zeros.expand(len(cohort.honest), -1), zeros, zeros)

    def step(
        self, state: StraddleState, view: View, generator: torch.Generator
    ) -> tuple[Tensor, StraddleState]:
        noise, tau, k, _ = self.measure(view)
        state = self.start(view.cohort, view.x) if k == 1 else state
        honest, n = view.honest, view.cohort.n
        mean, sums = honest.mean(dim=0), state.honest + honest
        way = _remote(honest - mean) if k == 1 else state.way
        kept = sums[(sums @ way).argsort(descending=True, stable=True)[: max(n // 2 + 1 - view.b, 1)]]
        goal = _beyond(kept, way, NEAR * tau)
        row = mean + towards(goal - state.own - mean, noise)
        return view.alike(row), StraddleState(sums, state.own + row, way)


def _remote(offsets: Tensor) -> Tensor:
    """The direction `[d]` of the longest of the offsets `[h, d]`, the first among equals."""
    longest = torch.linalg.vector_norm(offsets, dim=1).argsort(descending=True, stable=True)[:1]
    return direction(offsets[longest][0])


def _beyond(kept: Tensor, way: Tensor, radius: float) -> Tensor:
    """The point `[d]` furthest from the centre of the sums `[k, d]` along `way`, within `radius` of all."""
    centre = kept.mean(dim=0)
    ahead = (centre - kept) @ way
    room = ahead.square() + radius * radius - (centre - kept).square().sum(dim=1)
    return centre + (room.clamp_min(0).sqrt() - ahead).min().clamp_min(0) * way


class AOnlyState(NamedTuple):
    """x_1 `[d]`, the mean distance of x from it so far `[]`, and the sum of moves `[d]`."""

    home: Tensor
    distance: Tensor
    moved: Tensor


@ATTACKS.register("a_only")
@dataclass(frozen=True)
class AOnly(_Guarded):
    """m + a move, cut to 0.9 V, that drives x outward while it is far from x_1 and takes this back when near.

    Far is ‖x - x_1‖ above its mean so far. Then the sum of moves tends to -0.95 τ (x - x_1)/‖x - x_1‖, else
    to zero: B stays balanced, while A, weighted by the distance, drifts. Source: our construction.

    Args:
        noise: Bound V on the noise of honest messages, in their units; None: that of the server's guard.
        rounds: Length T of the run; None: that of the guard.
        threshold: τ of the guard, in units of summed messages; None: the guard's own.

    Examples:
        >>> import torch
        >>> from byzopt import AOnly
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 2.0], [0.0, 0.0]])
        >>> AOnly(noise=1.0, rounds=100, threshold=40.0)(rows, byzantine=1)[2]  # round 1: no move yet
        tensor([2., 2.])
    """

    def start(self, cohort: Cohort, x: Tensor) -> AOnlyState:
        home = x.to(compute_dtype(x.dtype))
        return AOnlyState(home, home.new_zeros(()), torch.zeros_like(home))

    def step(self, state: AOnlyState, view: View, generator: torch.Generator) -> tuple[Tensor, AOnlyState]:
        noise, tau, k, _ = self.measure(view)
        state = self.start(view.cohort, view.x) if k == 1 else state
        offset = view.x.to(state.home.dtype) - state.home
        distance = torch.linalg.vector_norm(offset)
        usual = state.distance + (distance - state.distance) / k
        goal = -REACH * tau * direction(offset)
        move = towards(torch.where(distance > usual, goal, 0) - state.moved, noise)
        return view.alike(view.honest.mean(dim=0) + move), AOnlyState(state.home, usual, state.moved + move)
