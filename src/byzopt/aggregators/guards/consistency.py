"""FLDetector's guard: each worker against its own past, by a curvature that the server learns from its steps.

Zhang, Cao, Jia, Gong, KDD 2022 (arXiv:2207.09209), sections 3.2 to 3.4 as the authors' code has them
(`train_mnist.py`), since the text was not within reach: prediction, scores, gap statistic, two clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.expulsion import Expulsion, Roster
from byzopt.aggregators.core.filters import Filter, RoundContext
from byzopt.aggregators.core.foreseeing import Foreseen, in_turn
from byzopt.aggregators.guards import majority
from byzopt.aggregators.guards.guarded_mean import guarded_mean
from byzopt.aggregators.mean import Mean
from byzopt.aggregators.numerics.distances import Array
from byzopt.errors import require
from byzopt.rng import stream


class Past(NamedTuple):
    """The round before: rows `[n, d]`, point and aggregate `[d]`. Steps S and changes Y of the aggregate over
    them `[memory, d]`, the latest last. Scores `[window, n]`, the latest last."""

    rows: Tensor
    x: Tensor
    g: Tensor
    steps: Tensor
    changes: Tensor
    scores: Tensor


class ConsistencyState(NamedTuple):
    """Who is good, what is remembered, and how often more than f workers stood out."""

    roster: Roster
    past: Past
    alarms: Tensor


@dataclass(frozen=True)
class Consistency(Filter):
    """Expels those whose rows are unlike g_i(t-1) + B (x_t - x_{t-1}), B an L-BFGS Hessian of past steps.

    A round's score of a worker is its distance from that prediction over the sum of all workers' distances;
    after `warmup` rounds the last `window` of them are averaged. Where the gap statistic sees more than one
    cluster of these averages they are split in two, and the workers of the upper one are expelled.

    More than `f` altogether are not all liars: where there would be more nobody goes, which counts as an
    alarm, and once `f` are gone nobody is looked at. A row that is not finite expels its worker at once.
    `rule` answers for the others: see `guarded_mean`.
    """

    window: int = 10
    memory: int = 10
    warmup: int = 50
    references: int = 10
    seed: int = 0
    f: int = 0
    rule: Aggregator = Mean()

    def __post_init__(self) -> None:
        for name in ("window", "memory", "references"):
            require(getattr(self, name) >= 1, f"Parameter `{name}`", "be at least 1", getattr(self, name))
        require(self.warmup >= 2, "Parameter `warmup`", "be at least 2", self.warmup)

    def init(self, x0: Tensor, n: int) -> ConsistencyState:
        self.rule.check(n)
        wide = x0.to(linalg.compute_dtype(x0.dtype))
        none = wide.new_zeros(self.memory, len(x0))
        scores = torch.zeros(self.window, n, dtype=torch.float64, device=x0.device)
        past = Past(wide.new_zeros(n, len(x0)), wide, torch.zeros_like(wide), none, none, scores)
        count = torch.zeros((), dtype=torch.int64, device=x0.device)
        return ConsistencyState(Roster.all(n, x0.device), past, count)

    def preview(self, state: ConsistencyState, rows: Tensor, at: RoundContext) -> Tensor:
        return self.step(state, rows, at)[0]

    def step(
        self, state: ConsistencyState, rows: Tensor, at: RoundContext
    ) -> tuple[Tensor, ConsistencyState]:
        return self._stepped(state, rows, at, self._predicted(state.past, at))

    def foresee(self, state: ConsistencyState, rows: Tensor, at: RoundContext, rounds: int = 1) -> Foreseen:
        predicted = self._predicted(state.past, at)  # in this round whatever is sent

        def step(before: ConsistencyState, some: Tensor, ahead: int) -> tuple[Tensor, ConsistencyState]:
            there = at._replace(t=at.t + ahead)
            return self._stepped(
                before, some, there, self._predicted(before.past, there) if ahead else predicted
            )

        return in_turn(step, self.expelled, state, rows, rounds)

    def vectors(self, state: ConsistencyState, at: RoundContext) -> Tensor | None:
        past = state.past
        one_by_one = torch.stack([past.g, at.x.to(past.x) - past.x])
        return torch.cat([past.rows, past.steps, past.changes, one_by_one]).double()

    def with_vectors(
        self, state: ConsistencyState, at: RoundContext, vectors: Tensor
    ) -> tuple[Consistency, ConsistencyState, RoundContext]:
        sizes = [len(state.past.rows), self.memory, self.memory, 2]
        rows, steps, changes, (g, walked) = torch.split(vectors, sizes)
        past = Past(rows, torch.zeros_like(g), g, steps, changes, state.past.scores)
        return self, state._replace(past=past), at._replace(x=walked)

    def _predicted(self, past: Past, at: RoundContext) -> Tensor | None:
        """The rows `[n, d]` that everybody's past lets expect; None in the first rounds, when none are."""
        walked = at.x.to(past.x.dtype) - past.x
        return past.rows + self._bent(past, walked, at.t) if at.t > self.warmup else None

    def _stepped(
        self, state: ConsistencyState, rows: Tensor, at: RoundContext, predicted: Tensor | None
    ) -> tuple[Tensor, ConsistencyState]:
        fit, past = majority.fit(rows), state.past
        kept, alarms = state.roster.good & fit, state.alarms
        wide = torch.where(fit.unsqueeze(-1), rows, 0).to(past.rows.dtype)
        walked = at.x.to(past.x.dtype) - past.x
        if predicted is not None:
            away = linalg.norm(predicted - wide)
            past = past._replace(scores=_pushed(past.scores, _shares(away, kept)))
        odd = torch.zeros_like(kept)
        left = self.f - int((~kept).sum())
        if left > 0 and at.t >= self.warmup + self.window:
            means = past.scores.mean(dim=0)[kept].cpu().numpy()
            upper = self._upper(means, at.t)
            if 0 < upper.sum() <= left:
                odd[kept] = torch.from_numpy(upper).to(odd.device)
            alarms = alarms + int(upper.sum() > left)
        kept = kept & ~odd
        g = guarded_mean(self.rule, rows, kept, fit, True, at.t)
        after = self._remembered(past, wide, at, walked, g.to(past.g.dtype))
        nothing = torch.zeros_like(odd)
        roster = state.roster.keep(kept, at.t, (~fit, nothing, nothing, nothing, odd))
        return g, ConsistencyState(roster, after, alarms)

    def report(self, state: ConsistencyState) -> dict[str, float]:
        return {"expelled": float((~state.roster.good).sum()), "alarms": float(state.alarms)}

    def expelled(self, state: ConsistencyState) -> tuple[Expulsion, ...]:
        return state.roster.expulsions()

    def _bent(self, past: Past, walked: Tensor, t: int) -> Tensor:
        """B (x_t - x_{t-1}) by the pairs of the rounds before, of which round 1 has none; 0 without any."""
        count = min(t - 2, self.memory)
        return bent(past.steps[-count:], past.changes[-count:], walked) if count > 0 else 0 * walked

    def _remembered(self, past: Past, rows: Tensor, at: RoundContext, walked: Tensor, g: Tensor) -> Past:
        steps, changes = past.steps, past.changes
        if at.t > 1:
            steps, changes = _pushed(steps, walked), _pushed(changes, g - past.g)
        return Past(rows, at.x.to(past.x.dtype), g, steps, changes, past.scores)

    def _upper(self, means: Array, t: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of the averages `[m]` stand out; none where one cluster holds them all."""
        low, high = means.min(initial=np.inf), means.max(initial=-np.inf)
        if len(means) < 3 or not high > low:
            return np.zeros(len(means), dtype=bool)
        scaled = (means - low) / (high - low)
        drawn = torch.rand(
            self.references,
            len(means),
            generator=stream(self.seed, "gap", t),
            dtype=torch.float64,
            device="cpu",
        )
        if not several(scaled, drawn.numpy()):
            return np.zeros(len(means), dtype=bool)
        return np.asarray(scaled > split(scaled)[1])


def bent(steps: Tensor, changes: Tensor, v: Tensor) -> Tensor:
    """B v for the L-BFGS matrix B of the pairs (s_j, y_j), oldest first: `[m, d]`, `[m, d]`, `[d]` to `[d]`.

    The compact form (Byrd, Nocedal, Schnabel, 1994): B = σ I - [σS Y] [[σSᵀS, L], [Lᵀ, -D]]⁻¹ [σS Y]ᵀ with
    σ = <y_m, s_m>/‖s_m‖², L and D the part of SᵀY below its diagonal and on it. 0 where x did not move last.
    """
    m = len(steps)
    all_of = torch.cat([steps, changes, v.unsqueeze(0)]).double()
    inner = (all_of @ all_of.T).cpu()
    last = float(inner[m - 1, m - 1])
    if last == 0 or not inner.isfinite().all():
        return torch.zeros_like(v)
    sigma = float(inner[m - 1, 2 * m - 1]) / last
    across = inner[:m, m : 2 * m]
    below = across.tril(-1)
    middle = torch.cat(
        [
            torch.cat([sigma * inner[:m, :m], below], dim=1),
            torch.cat([below.T, -across.diagonal().diag()], dim=1),
        ]
    )
    lean = torch.cat([sigma * inner[:m, -1], inner[m : 2 * m, -1]])
    weights = torch.linalg.pinv(middle, hermitian=True) @ lean
    weights[:m] *= sigma
    product: Tensor = sigma * v - (weights.to(all_of) @ all_of[: 2 * m]).to(v.dtype)
    return product


def split(values: Array) -> tuple[float, float]:
    """The least sum of squares about the means of two clusters, and the largest value of the lower one."""
    ranked = np.sort(values)
    cuts = range(1, len(ranked))
    return min((_squares(ranked[:k]) + _squares(ranked[k:]), float(ranked[k - 1])) for k in cuts)


def several(values: Array, drawn: Array) -> bool:
    """Whether the gap statistic sees more than one cluster in `values` `[m]` of [0, 1], beside uniform sets
    `drawn` `[r, m]` (Tibshirani, Walther, Hastie, 2001): Gap(1) < Gap(2) - s_2."""
    tiny = np.finfo(float).tiny
    logs = np.log([[max(_squares(each), tiny), max(split(each)[0], tiny)] for each in (values, *drawn)])
    gaps = logs[1:].mean(axis=0) - logs[0]
    spread = sqrt(1 + 1 / len(drawn)) * float(logs[1:, 1].std())
    return bool(gaps[0] - gaps[1] + spread < 0)


def _squares(values: Array) -> float:
    return float(((values - values.mean()) ** 2).sum())


def _shares(away: Tensor, kept: Tensor) -> Tensor:
    """Distances as shares of their sum over those who count; 0 for the others."""
    away = torch.where(kept, away.double(), 0)
    total = away.sum()
    return away / torch.where(total > 0, total, 1)


def _pushed(window: Tensor, latest: Tensor) -> Tensor:
    return torch.cat([window[1:], latest.unsqueeze(0).to(window.dtype)])
