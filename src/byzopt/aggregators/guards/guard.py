"""ByzantineSGD's guard: three tests against medians, two of them on sums over the whole run.

arXiv:1803.08917, Algorithm 1, with corrections: B_i is a vector sum, and the B median is selected with half
the radius of its test (`thresholds="printed"` restores one radius). Only differences between workers matter,
so A and B are held about the sums of rows near the rounds' medians: they stay as small as the deviations.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.expulsion import Expulsion, Roster
from byzopt.aggregators.core.filters import Filter, GuardLimits, RoundContext
from byzopt.aggregators.guards import majority, moving, pairs
from byzopt.aggregators.guards.guarded_mean import guarded_mean
from byzopt.aggregators.guards.majority import Crowd, MedianRow
from byzopt.aggregators.guards.moving import Moved, Way
from byzopt.aggregators.guards.pairs import Pairs
from byzopt.aggregators.mean import Mean
from byzopt.errors import require
from byzopt.kernels import Walk
from byzopt.rng import stream
from byzopt.theory.byzantine_epochs import Epoch
from byzopt.theory.byzantine_sgd import RADII, SELECT, TEST, ThresholdRule, log_factor

Finder = Literal["medoid", "random"]
SETTLE = 50  # rounds in which a learnt V may only grow
FADE = 0.99  # by which a learnt V may fall in a round afterwards
SAFE = 1.25  # times the largest majority radius seen
WIDE = 100  # parameters from which honest pairs lie sqrt(2) apart for one deviation


class GuardSums(NamedTuple):
    """A `[n]` (float64) and B `[n, d]` (or its sketch `[n, k]`) about sums near the medians', x_1 `[d]`,
    Σ v², Σ v²‖x - x_1‖²; what workers' rows and their A say of each other."""

    a: Tensor
    b: Tensor
    home: Tensor
    energy: Tensor
    path: Tensor
    pairs: Pairs
    pairs_a: Pairs


class GuardState(NamedTuple):
    """The roster, the sums, the learnt V, the factor of all thresholds, and how often no row had a majority
    or nobody was left."""

    roster: Roster
    sums: GuardSums
    noise: Tensor
    scale: Tensor
    misses: Tensor
    alarms: Tensor


class Radii(NamedTuple):
    """The thresholds of one round, of A, B and the gradients; the last two with their radii of selection."""

    a: Tensor
    b: Tensor
    b_select: Tensor
    g: Tensor
    g_select: Tensor


@dataclass(frozen=True)
class HistoryGuard(Filter):
    """good <- {i in good: |A_i - A_med| <= τ_A, ‖B_i - B_med‖ <= τ_B, ‖g_i - g_med‖ <= 4V}; Σ_good g_i/n.

    `epochs` say when sums start anew and on which balls (one epoch: the plain method). `noise` V. None: no
    thresholds, for V cannot be learnt from rows of which f lie. Then a worker goes who is at odds with more
    than `f` others in A, in B or in the gradients, as `byzopt.theory.accusing` measures it. A ball of
    infinite radius leaves τ_A = 4V sqrt(Λ Σ‖x_t - x_1‖²) alone, which `adaptive_a` adds elsewhere. `anytime`
    has k for T in sqrt(TΛ). `finder` None: `random` for `printed` thresholds, else `medoid`. `over_good`
    divides by |good|. `differing`: to be run also where workers' data differ, which expels honest ones.

    A row that is not finite expels its worker at once and enters no sum. Nobody left: the aggregate is 0, the
    thresholds double, and the finite ones are tried again. `rule`: see `guarded_mean`.

    `sketch` keeps B as a secret random projection to so many numbers a worker (`sketch.sketched`), for its
    test only: n x k numbers in place of n x d.
    """

    epochs: tuple[Epoch, ...]
    noise: float | None
    thresholds: ThresholdRule = "default"
    p_fail: float = 0.05
    anytime: bool = False
    adaptive_a: bool = False
    finder: Finder | None = None
    over_good: bool = False
    seed: int = 0
    n: int | None = None
    rule: Aggregator = Mean()
    sketch: int | None = None
    f: int | None = None
    differing: bool = False
    batched = True

    def __post_init__(self) -> None:
        require(self.sketch is None or self.sketch >= 1, "Parameter `sketch`", "be at least 1", self.sketch)
        ok = self.noise is None or (isfinite(self.noise) and self.noise >= 0)
        require(ok, "The noise bound V (`noise`)", "be finite and at least 0", self.noise)
        counted = self.noise is not None or (self.f is not None and self.f >= 0)
        require(
            counted, "A guard that is told no `noise` V", "know `f`, at least 0", self.f, "A spec gives it."
        )
        log_factor(1, 1, self.p_fail)

    @property
    def assumes_one_distribution(self) -> bool:
        return not self.differing

    def init(self, x0: Tensor, n: int) -> GuardState:
        self.rule.check(n)
        fits = self.n is None or self.n == n
        require(
            fits, "The method's number of workers `n`", "be that of the run", f"{self.n} with {n} workers"
        )
        device = x0.device
        number = torch.zeros((), dtype=torch.float64, device=device)
        count = torch.zeros((), dtype=torch.int64, device=device)
        b = torch.zeros(
            n, min(self.sketch or x0.numel(), x0.numel()), dtype=linalg.compute_dtype(x0.dtype), device=device
        )
        sizes = (n if self.noise is None else 0, device)
        between = pairs.empty_window(*sizes), pairs.empty_window(*sizes, threes=False)
        sums = GuardSums(number.expand(n).clone(), b, x0, number, number, *between)
        return GuardState(Roster.all(n, device), sums, number, number + 1, count, count)

    def preview(self, state: GuardState, rows: Tensor, at: RoundContext) -> Tensor:
        return self.step(state, rows, at)[0]

    def step(self, state: GuardState, rows: Tensor, at: RoundContext) -> tuple[Tensor, GuardState]:
        epoch, k = self._clock(at.t)
        state = _fresh(state, at.x) if k == 1 else state
        walk, way = Walk(at.x, state.sums.home), self._way(rows)
        moved = (
            moving.at_once(rows, state.sums.b, walk, state.roster.good, way) if self._measures(rows) else None
        )
        here = moved.rows if moved else Crowd(rows, majority.fit(rows))
        g, noise = self._gradients(state, here, at.t)
        moved = moved or moving.in_turn(here, state.sums.b, majority.take(rows, g.place), walk, way)
        sums = self._grown(state.sums, moved, noise)
        if self.noise is None:
            return self._by_pairs(state, moved, sums, noise, k, at.t)
        radii = self._radii(sums, noise, state.scale, epoch, k, rows.shape[-2])
        b = self._find(moved.sums, radii.b_select, at.t, "B")
        a = (sums.a - majority.middle_value(sums.a).unsqueeze(-1)).abs()
        failed = (
            ~here.fit,
            ~(g.dists <= radii.g.unsqueeze(-1)),
            ~(b.dists <= radii.b.unsqueeze(-1)),
            ~(a <= radii.a.unsqueeze(-1)),
        )
        kept = state.roster.good & ~(failed[0] | failed[1] | failed[2] | failed[3])
        aggregate = guarded_mean(self.rule, rows, kept, here.fit, self.over_good, at.t, moved.mean)
        misses = state.misses + (~(g.found & b.found)).long()
        after = GuardState(state.roster, sums, noise, state.scale, misses, state.alarms)
        return aggregate, self._judged(after, kept, here.fit, failed, at.t)

    def _by_pairs(
        self, state: GuardState, moved: Moved, sums: GuardSums, noise: Tensor, k: int, t: int
    ) -> tuple[Tensor, GuardState]:
        """A step without V: who is at odds with more than f others is expelled. A gets half of the level."""
        f, level, fit = self.f or 0, self.p_fail / len(self.epochs) / 2, moved.rows.fit
        b, g = pairs.accused(sums.pairs, k, f, level)
        a, _ = pairs.accused(sums.pairs_a, k, f, level)
        kept = state.roster.good & fit & ~(a | b | g)
        aggregate = guarded_mean(self.rule, moved.rows.rows, kept, fit, self.over_good, t, moved.mean)
        roster = state.roster.keep(kept, t, (~fit, g, b, a))
        return aggregate, state._replace(roster=roster, sums=sums, noise=noise)

    def limits(self, state: GuardState, at: RoundContext) -> GuardLimits:
        """The thresholds of this round, for attackers that know the defence: V, τ_B, k and T of the epoch."""
        epoch, k = self._clock(at.t)
        sums = state.sums if k > 1 else _fresh(state, at.x).sums
        noise = state.noise if self.noise is None else torch.full_like(state.noise, self.noise)
        ahead = sums._replace(energy=sums.energy + noise.square())
        radii = self._radii(ahead, noise, state.scale, epoch, k, state.roster.good.shape[-1])
        return GuardLimits(float(noise), float(radii.b), k, max(epoch.rounds, k))

    def gone(self, states: GuardState, count: int, n: int) -> Tensor:
        return states.roster.round > 0

    def vectors(self, state: GuardState, at: RoundContext) -> Tensor | None:
        sums = (_fresh(state, at.x) if self._clock(at.t)[1] == 1 else state).sums
        if sums.b.shape[-1] != at.x.shape[-1]:
            return None  # a sketch keeps inner products nearly, and does not see a basis
        return torch.cat([sums.b.double(), (at.x.double() - sums.home.double()).unsqueeze(0)])

    def with_vectors(
        self, state: GuardState, at: RoundContext, vectors: Tensor
    ) -> tuple[HistoryGuard, GuardState, RoundContext]:
        b, walked = vectors[:-1], vectors[-1]
        sums = state.sums._replace(b=b, home=torch.zeros_like(walked))
        return self, state._replace(sums=sums), at._replace(x=walked)

    def report(self, state: GuardState) -> dict[str, float]:
        gone = float((~state.roster.good).sum())
        return {"expelled": gone, "no_median": float(state.misses), "alarms": float(state.alarms)}

    def expelled(self, state: GuardState) -> tuple[Expulsion, ...]:
        return state.roster.expulsions()

    def _clock(self, t: int) -> tuple[Epoch, int]:
        """The epoch of round t, and the round's number in it. The last epoch has no end."""
        for epoch in self.epochs[:-1]:
            if t <= epoch.rounds:
                return epoch, t
            t -= epoch.rounds
        return self.epochs[-1], t

    def _gradients(self, state: GuardState, here: Crowd, t: int) -> tuple[MedianRow, Tensor]:
        """The median of the round's rows, and V: as given, or as learnt with this round."""
        if self.noise is not None:
            noise = torch.full_like(state.noise, self.noise)
            return self._find(here, SELECT * noise * state.scale, t, "g"), noise
        middle = majority.medoid_row(here, torch.full_like(state.noise, inf))
        wide = 2**-0.5 if here.rows.shape[-1] >= WIDE else 1.0
        now = SAFE * wide * torch.where(middle.radius.isfinite(), middle.radius, 0)
        return middle, torch.maximum(now, state.noise * (1.0 if t <= SETTLE else FADE))

    def _way(self, rows: Tensor) -> Way:
        return Way(self.sketch, self.seed, self.noise is None, None if self.over_good else rows.shape[-2])

    def _measures(self, rows: Tensor) -> bool:
        """Whether all distances are worth their cost: the random finder may do with a few rows' of many."""
        return self._finder == "medoid" or rows.shape[-2] <= majority.FEW

    def _grown(self, sums: GuardSums, moved: Moved, noise: Tensor) -> GuardSums:
        """The sums with this round's rows."""
        a, energy, fit = sums.a + moved.along, noise.square(), moved.rows.fit
        between, between_a = sums.pairs, sums.pairs_a
        if self.noise is None:
            between = pairs.extended(between, moved.moves, moved.sums)
            along, all_along = (Crowd(part.unsqueeze(-1), fit) for part in (moved.along, a))
            between_a = pairs.extended(between_a, along, all_along)
        path = sums.path + energy * moved.path
        return GuardSums(a, moved.sums.rows, sums.home, sums.energy + energy, path, between, between_a)

    def _find(self, crowd: Crowd, radius: Tensor, t: int, what: str) -> MedianRow:
        if self._finder == "medoid":
            return majority.medoid_row(crowd, radius)
        return majority.random_median(crowd, radius, stream(self.seed, "vmed", what, t))

    @property
    def _finder(self) -> Finder:
        return self.finder or ("random" if self.thresholds == "printed" else "medoid")

    def _radii(self, sums: GuardSums, noise: Tensor, scale: Tensor, epoch: Epoch, k: int, n: int) -> Radii:
        horizon = max(epoch.rounds, k)
        log = log_factor(n, horizon, self.p_fail / len(self.epochs))
        fixed = self.noise is not None and not self.anytime
        energy = noise.square() * horizon if fixed else sums.energy
        unit = scale * (log * energy).sqrt()
        a = scale * 4 * (log * sums.path).sqrt()
        if isfinite(epoch.radius):
            ball = 4 * epoch.radius * unit
            a = torch.minimum(a, ball) if self.adaptive_a else ball
        select, test = RADII[self.thresholds]
        return Radii(a, test * unit, select * unit, TEST * noise * scale, SELECT * noise * scale)

    def _judged(
        self, state: GuardState, kept: Tensor, fit: Tensor, failed: tuple[Tensor, ...], t: int
    ) -> GuardState:
        """The state after this round's expulsions."""
        nobody = ~kept.any(dim=-1)
        stay = torch.where(nobody.unsqueeze(-1), fit, kept)
        return state._replace(
            roster=state.roster.keep(stay, t, failed),
            scale=torch.where(nobody, 2 * state.scale, state.scale),
            alarms=state.alarms + nobody.long(),
        )


def _fresh(state: GuardState, x: Tensor) -> GuardState:
    """The state at the start of an epoch at `x`: empty sums and the same roster."""
    old = state.sums
    zeros = (torch.zeros_like(part) for part in (old.a, old.b, old.energy, old.path))
    a, b, energy, path = zeros
    between = (Pairs(*(torch.zeros_like(part) for part in each)) for each in (old.pairs, old.pairs_a))
    return state._replace(sums=GuardSums(a, b, x, energy, path, *between))
