"""Many runs of ByzantineSGD's guard and step in one batch, under the hug adversary: for slopes of gaps.

`line` and `bowl` are the two problems; `benchmarks/byzantine_slopes.py` asks more of them than the tests do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.filters import RoundContext
from byzopt.aggregators.guards.guard import HistoryGuard
from byzopt.layout import Layout
from byzopt.rng import stream
from byzopt.servers import ProjectedStep, ServerContext
from byzopt.theory.byzantine_epochs import Curved, Epoch, schedule
from byzopt.theory.byzantine_sgd import GuardSetting, nonsmooth_step, thresholds

RUNS = 10


class Ended(NamedTuple):
    """The answers `[RUNS, d]`, honest expulsions and all rounds; rounds and answers at each epoch's end."""

    x: Tensor
    expelled: int
    rounds: int
    epochs: tuple[tuple[int, Tensor], ...]


def contest(
    slope: Callable[[Tensor], Tensor],
    plan: Sequence[Epoch],
    n: int,
    f: int,
    d: int,
    noise: float,
    runs: int = RUNS,
) -> Ended:
    """Rows slope(x) plus noise of length `noise`; the last f of n workers hug the guard's threshold."""
    guard, step = HistoryGuard(tuple(plan), noise), ProjectedStep(tuple(plan))
    x = torch.zeros(d, dtype=torch.float64)
    memory, state = guard.init(x, n), step.init(x, ServerContext(Layout.flat(d)))
    memory = torch.utils._pytree.tree_map(lambda part: part.expand(runs, *part.shape).clone(), memory)
    state = state._replace(**{k: x.expand(runs, d) for k in ("x", "home", "mean")})
    generator, t, ends = stream(9, "arena"), 0, []
    for epoch in plan:
        at = GuardSetting(n, f, epoch.rounds, noise, epoch.radius, 0.05 / len(plan))
        tau, ascent, moved = thresholds(at).b, torch.zeros(runs, d).double(), torch.zeros(runs, d).double()
        for k in range(1, epoch.rounds + 1):
            t, asked = t + 1, step.ask(state)
            drawn = torch.randn(runs, n, d, dtype=torch.float64, generator=generator)
            rows = slope(asked).unsqueeze(1) + noise * torch.nn.functional.normalize(drawn, dim=-1)
            mean = rows[:, : n - f].mean(dim=1)
            ascent = ascent + mean
            way = -0.95 * tau * k / epoch.rounds * torch.nn.functional.normalize(ascent, dim=-1) - moved
            way = way * (0.9 * noise / way.norm(dim=-1, keepdim=True).clamp_min(1e-300)).clamp_max(1)
            moved, rows[:, n - f :] = moved + way, (mean + way).unsqueeze(1)
            g, memory = guard.step(memory, rows, RoundContext(t, asked))
            state = step.tell(state, g)
        ends.append((t, step.answer(state)))
    return Ended(step.answer(state), int((~memory.roster.good[:, : n - f]).sum()), t, tuple(ends))


def line(n: int, f: int, rounds: int, d: int = 1, theta: float | None = None, runs: int = RUNS) -> float:
    """The mean gap on f = θ x_1 over the unit ball; θ shrinks with what cannot be told apart."""
    at = GuardSetting(n, f, rounds, 1.0, 1.0)
    theta = theta or rescaled(n, f, rounds, 1.0, at.log)
    way = torch.zeros(d, dtype=torch.float64)
    way[0] = theta
    plan = [Epoch(rounds, 1.0, nonsmooth_step(at, theta))]
    ended = contest(lambda x: way.expand_as(x), plan, n, f, d, 1.0, runs)
    assert ended.expelled == 0
    return float((theta + ended.x @ way).mean())


def decided(n: int, f: int, theta: float, near: float, runs: int = RUNS, within: float = 1.08) -> float:
    """The rounds T at which the gap under hug is θD, that is the answer in the middle: by bisection from a
    factor 1.5 about `near`, which grows where it has to. Hug's speed 0.9 V limits θ to below 0.9 δ V."""
    assert theta < 0.9 * f / n
    low, high = near / 1.5, near * 1.5

    def lost(rounds: float) -> bool:
        return line(n, f, round(rounds), theta=theta, runs=runs) >= theta

    while not lost(low):
        low, high = low / 2, low
    while lost(high):
        low, high = high, high * 2
    while high > low * within:
        middle = sqrt(low * high)
        low, high = (middle, high) if lost(middle) else (low, middle)
    return sqrt(low * high)


class Milestone(NamedTuple):
    """The end of an epoch: rounds so far, and the mean gap."""

    rounds: int
    gap: float


def bowl(
    n: int, f: int, count: int, start: float = 4.0, away: float = 1.0, runs: int = RUNS
) -> list[Milestone]:
    """Gaps at the ends of `count` practical epochs on ‖x - b‖²/2 in three dimensions, ‖b‖ = `away` D_1."""
    plan = schedule(Curved(n, f, 1.0, start, 1.0, 1.0), count, "practical")
    best = torch.tensor([start * away, 0, 0], dtype=torch.float64)
    ended = contest(lambda x: x - best, plan, n, f, 3, 1.0, runs)
    assert ended.expelled == 0
    return [Milestone(t, float((x - best).square().sum(dim=-1).mean() / 2)) for t, x in ended.epochs]


def steepness(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The log-log slope of `values` by `sizes`: least squares."""
    x, y = [log2(s) for s in sizes], [log2(v) for v in values]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    cross = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return cross / sum((a - mx) ** 2 for a in x)


def rescaled(n: int, f: int, rounds: int, noise: float, log: float) -> float:
    """θ ~ V sqrt(Λ)(1/sqrt(nT) + 2.5 δ/sqrt(T)): the slope at which a linear instance is just undecided."""
    return noise * sqrt(log / rounds) * (2.5 * f / n if f else 1 / sqrt(n))
