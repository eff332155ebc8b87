"""The safeguard of SafeguardSGD: sums of gradients over windows, against a median of those still trusted.

arXiv:2012.14368, Algorithm 1. There sums are divided by |good| while thresholds are not, so that honest sums
stay n times below them; here one convention is kept (`sums`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, inf, isfinite
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.expulsion import Expulsion, Roster
from byzopt.aggregators.core.filters import Filter, RoundContext
from byzopt.aggregators.guards import majority, pairs, summing
from byzopt.aggregators.guards.guarded_mean import guarded_mean
from byzopt.aggregators.guards.majority import Crowd, MedianRow
from byzopt.aggregators.guards.pairs import Pairs
from byzopt.aggregators.guards.summing import Old, Summed, Way
from byzopt.aggregators.mean import Mean
from byzopt.errors import require
from byzopt.rng import stream
from byzopt.theory.safeguard import threshold

Scale = Literal["raw", "normalised", "printed"]
Measured = Literal["pairs", "medoid", "window_end", "capped"]
SETTLE = 10  # rounds of a window before thresholds measured in it are tested
WIDE, NEAR, FAR = 100, 2.0, 3.0  # parameters from which c = 2 is wide enough, and c below it
SPARE = 1e-3  # what `window_end` adds to a distance


class Window(NamedTuple):
    """Sums `[n, d]` (or their sketch `[n, k]`) of the window under way, and of the squared weights that they
    were taken with; the threshold that the windows before have left; what workers' rows say of each other."""

    sums: Tensor
    weight: Tensor
    limit: Tensor
    pairs: Pairs


class SafeguardState(NamedTuple):
    """The roster, the windows' sums, and how often no row had a majority."""

    roster: Roster
    windows: tuple[Window, ...]
    misses: Tensor


@dataclass(frozen=True)
class Safeguard(Filter):
    """good <- {i in good: ‖S_i - S_med‖ <= 2 Th for every window}; the answer is the mean over good before.

    S_i sums worker i's gradients over windows of `lengths` rounds that start afresh; S_med is a row of good
    with more than n/2 others within Th. Th is given (`limits_of`), or 8 V sqrt(T_w log(16 n T/p)) from
    `noise` V. Without either it is `measured`:

    - `pairs`, no threshold at all: a worker goes who is at odds with more than `f` others over a window, as
      `byzopt.theory.accusing` measures it. No honest worker goes, with probability 1 - p, for any n > 2 f and
      whatever the liars do, while the honest sample one distribution.
    - `medoid`: max(floor, c s) in place of 2 Th, s the majority radius of the medoid of this round's sums,
      from a window's tenth round on. Empirical: f copies of an honest row shrink s, near n = 2 f + 1 to 0.
    - `window_end` (released by third parties): the distance of the (⌊n/2⌋+1)-th nearest sum to the median
      when the window before ended, + 0.001, in place of 2 Th; before that `limits_of`, or no test. The median
      is the first of good in random order with n/2 sums within it, or the one with most.
    - `capped` (released by third parties): 2 c min(cap, s), s the least median distance of any sum to all,
      with strict inequality; caps are `limits_of`. Good is rebuilt from all workers in every round.

    `sums`: `raw`; `normalised`, divided by |good_k|, thresholds in proportion; `printed`, with thresholds as
    they are. `reset` trusts all again when the longest window starts afresh. `sketch` keeps sums as a secret
    random projection to so many numbers a worker (`sketch.sketched`).

    A row that is not finite expels its worker at once. `rule`: see `guarded_mean`. `differing`: to be run
    also where workers' data differ, which expels honest ones.
    """

    lengths: tuple[int, ...]
    rounds: int
    noise: float | None = None
    limits_of: tuple[float, ...] | None = None
    sums: Scale = "raw"
    c: float | None = None
    floor: float = 0.0
    reset: bool = False
    finder: Literal["medoid", "random"] = "medoid"
    p_fail: float = 0.05
    seed: int = 0
    rule: Aggregator = Mean()
    measured: Measured = "medoid"
    sketch: int | None = None
    f: int | None = None
    differing: bool = False
    batched = True

    def __post_init__(self) -> None:
        good = 1 <= len(self.lengths) <= 2 and all(length >= 1 for length in self.lengths)
        require(good, "The windows of a safeguard", "be one or two, of at least 1 round", self.lengths)
        match = self.limits_of is None or len(self.limits_of) == len(self.lengths)
        require(match, "The thresholds of a safeguard", "be one for each window", self.limits_of)
        least = 0.5 if self.measured == "capped" else 1
        require(self.c is None or self.c >= least, "Parameter `c`", f"be at least {least}", self.c)
        require(self.sketch is None or self.sketch >= 1, "Parameter `sketch`", "be at least 1", self.sketch)
        free = self.noise is None or self.measured in ("pairs", "medoid")
        require(free, f"Thresholds {self.measured}", "be measured, without `noise`", self.noise)
        ok = self.noise is None or (isfinite(self.noise) and self.noise >= 0)
        require(ok, "The noise bound V (`noise`)", "be finite and at least 0", self.noise)
        counted = not self.paired or (self.f is not None and self.f >= 0)
        require(counted, "A safeguard that goes by pairs", "know `f`, at least 0", self.f, "A spec gives it.")

    @property
    def paired(self) -> bool:
        """Whether workers are tested against each other, because no threshold is known."""
        return self.measured == "pairs" and self.limits_of is None and self.noise is None

    @property
    def assumes_one_distribution(self) -> bool:
        return not self.differing

    def init(self, x0: Tensor, n: int) -> SafeguardState:
        self.rule.check(n)
        require(not self.paired or 2 * (self.f or 0) < n, "Pairs", "have 2 f < n", f"f = {self.f}, n = {n}")
        dtype = linalg.compute_dtype(x0.dtype)
        width = x0.numel() if self.sketch is None else min(self.sketch, x0.numel())
        blank = torch.zeros(n, width, dtype=dtype, device=x0.device)
        zero = torch.zeros((), dtype=torch.float64, device=x0.device)
        first = self.limits_of or (inf,) * len(self.lengths)
        between = pairs.empty_window(n if self.paired else 0, x0.device)
        windows = tuple(Window(blank, zero, zero + limit, between) for limit in first)
        return SafeguardState(Roster.all(n, x0.device), windows, zero.long())

    def preview(self, state: SafeguardState, rows: Tensor, at: RoundContext) -> Tensor:
        return self.step(state, rows, at)[0]

    def step(self, state: SafeguardState, rows: Tensor, at: RoundContext) -> tuple[Tensor, SafeguardState]:
        roster = state.roster
        if self.reset and at.t > 1 and self._age(max(self.lengths), at.t) == 1:
            roster = roster._replace(good=torch.ones_like(roster.good))
        good = roster.good
        if self.measured == "capped":
            roster = roster._replace(good=torch.ones_like(good))
        share = 1 / roster.good.sum(dim=-1).clamp_min(1).double()
        share = torch.ones_like(share) if self.sums == "raw" else share
        ages = [self._age(length, at.t) for length in self.lengths]
        summed = self._summed(state, good, share, rows, ages)
        fit = summed.fit
        windows, kept, misses, odd = [], roster.good & fit, state.misses, torch.zeros_like(fit)
        for place, window in enumerate(state.windows):
            after = self._after(window, summed, share.square(), place, ages[place])
            if self.paired:
                drifted, odd_here = pairs.accused(after.pairs, ages[place], self.f or 0, self._level)
                windows.append(after)
                kept, odd = kept & ~(drifted | odd_here), odd | (odd_here & ~drifted)
                continue
            passed, has_median, limit = self._passed(after, summed.sums[place], place, ages[place], at.t)
            windows.append(after._replace(limit=limit))
            kept, misses = kept & passed, misses + (~has_median).long()
        aggregate = guarded_mean(self.rule, rows, good & fit, fit, True, at.t, summed.mean)
        roster = roster.keep(kept, at.t, (~fit, odd, ~kept))
        return aggregate, SafeguardState(roster, tuple(windows), misses)

    def gone(self, states: SafeguardState, count: int, n: int) -> Tensor:
        return ~states.roster.good & (states.roster.round > 0)

    def vectors(self, state: SafeguardState, at: RoundContext) -> Tensor | None:
        if state.windows[0].sums.shape[-1] != at.x.shape[-1]:
            return None  # a sketch keeps inner products nearly, and does not see a basis
        return torch.cat([window.sums.double() for window in state.windows])

    def with_vectors(
        self, state: SafeguardState, at: RoundContext, vectors: Tensor
    ) -> tuple[Safeguard, SafeguardState, RoundContext]:
        sums = torch.split(vectors, len(vectors) // len(state.windows))
        windows = [old._replace(sums=new) for old, new in zip(state.windows, sums, strict=True)]
        there = replace(self, c=self._factor(at.x.shape[-1])) if self.measured == "medoid" else self
        at = at._replace(x=vectors.new_zeros(vectors.shape[1]))  # it does not look at points
        return there, state._replace(windows=tuple(windows)), at

    def report(self, state: SafeguardState) -> dict[str, float]:
        return {"expelled": float((~state.roster.good).sum()), "no_median": float(state.misses)}

    def expelled(self, state: SafeguardState) -> tuple[Expulsion, ...]:
        gone = ~state.roster.good
        return tuple(one for one in state.roster.expulsions() if gone[one.worker])

    def _age(self, length: int, t: int) -> int:
        """The round's number in its window, from 1."""
        return (t - 1) % length + 1

    def _summed(
        self, state: SafeguardState, good: Tensor, share: Tensor, rows: Tensor, ages: list[int]
    ) -> Summed:
        """The round's rows in the windows' sums, in one pass where that can be."""
        everybody = self.paired or self.measured == "capped"
        way = Way(good, everybody, share, self.sums == "raw", self.paired, self.sketch, self.seed)
        windows = [Old(each.sums, age == 1) for each, age in zip(state.windows, ages, strict=True)]
        # The random finder may do with the distances of a few rows of many.
        measures = self.finder == "medoid" or rows.shape[-2] <= majority.FEW
        summed = summing.at_once(rows, windows, way) if measures else None
        return summed or summing.in_turn(rows, windows, way)

    def _after(self, window: Window, summed: Summed, weight: Tensor, place: int, age: int) -> Window:
        before = window.pairs
        if age == 1:
            before = Pairs(*(torch.zeros_like(part) for part in before))
        else:
            weight = window.weight + weight
        between = pairs.extended(before, summed.moves, summed.sums[place]) if self.paired else before
        return Window(summed.sums[place].rows, weight, window.limit, between)

    def _passed(
        self, window: Window, sums: Crowd, place: int, age: int, t: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Who passes this window's test, whether there was a median to test against, the limit after it."""
        if self.measured == "window_end":
            middle = majority.fullest(sums, window.limit, stream(self.seed, "vmed", place, t))
            ended = age == self.lengths[place]
            after = torch.where(middle.radius.isfinite(), middle.radius + SPARE, window.limit)
            passed = middle.dists <= window.limit.unsqueeze(-1)
            return passed, middle.found, after if ended else window.limit
        if self.measured == "capped":
            middle = majority.central(sums)
            limit = 2 * (self.c or 1.0) * torch.minimum(window.limit, middle.radius)
            near = middle.dists < limit.unsqueeze(-1)
            return near | ~middle.found.unsqueeze(-1), middle.found, window.limit
        # Weights are 1 or near 1/n: their root mean square turns thresholds of raw sums into those of these.
        scale = (window.weight / age).sqrt() if self.sums == "normalised" else torch.ones_like(window.weight)
        if self.limits_of is None and self.noise is None:
            middle = majority.medoid_row(sums, torch.full_like(scale, inf))
            limit = torch.maximum(self.floor * scale, self._factor(window.sums.shape[-1]) * middle.radius)
            old_enough = age > min(SETTLE, self.lengths[place] - 1)
        else:
            limit = 2 * self._limit(place, sums.fit.shape[-1]) * scale
            middle = self._find(sums, limit / 2, place, t)
            old_enough = True
        finite = middle.radius.isfinite()
        passed = (middle.dists <= limit.unsqueeze(-1)) | ~finite.unsqueeze(-1)
        return (passed if old_enough else torch.ones_like(passed)), middle.found & finite, window.limit

    def _factor(self, d: int) -> float:
        """What radii of medoids are multiplied by for sums of d coordinates."""
        return self.c or (NEAR if d >= WIDE else FAR)

    @property
    def _level(self) -> float:
        """Of all windows of the run together `p_fail`."""
        return self.p_fail / sum(ceil(self.rounds / length) for length in self.lengths)

    def _limit(self, place: int, n: int) -> float:
        if self.limits_of is not None:
            return self.limits_of[place]
        return threshold(self.lengths[place], self.rounds, n, self.noise or 0.0, self.p_fail)

    def _find(self, sums: Crowd, radius: Tensor, place: int, t: int) -> MedianRow:
        if self.finder == "medoid":
            return majority.medoid_row(sums, radius)
        return majority.random_median(sums, radius, stream(self.seed, "vmed", place, t))
