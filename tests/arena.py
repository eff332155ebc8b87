"""Many runs of ByzantineSGD's guard and step in one batch, under the hug adversary: for slopes of gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.filters import At
from byzopt.aggregators.guard import Guard
from byzopt.layout import Layout
from byzopt.rng import stream
from byzopt.servers import ProjectedStep, Site
from byzopt.theory.byzantine_epochs import Epoch
from byzopt.theory.byzantine_sgd import Setting, thresholds

RUNS = 10


class Ended(NamedTuple):
    """The answers `[RUNS, d]`, honest expulsions and all rounds; rounds and answers at each epoch's end."""

    x: Tensor
    expelled: int
    rounds: int
    epochs: tuple[tuple[int, Tensor], ...]


def contest(
    slope: Callable[[Tensor], Tensor], plan: Sequence[Epoch], n: int, f: int, d: int, noise: float
) -> Ended:
    """Rows slope(x) plus noise of length `noise`; the last f of n workers hug the guard's threshold."""
    guard, step = Guard(tuple(plan), noise), ProjectedStep(tuple(plan))
    x = torch.zeros(d, dtype=torch.float64)
    memory, state = guard.init(x, n), step.init(x, Site(Layout.flat(d)))
    memory = torch.utils._pytree.tree_map(lambda part: part.expand(RUNS, *part.shape).clone(), memory)
    state = state._replace(**{k: x.expand(RUNS, d) for k in ("x", "home", "mean")})
    generator, t, ends = stream(9, "arena"), 0, []
    for epoch in plan:
        at = Setting(n, f, epoch.rounds, noise, epoch.radius, 0.05 / len(plan))
        tau, ascent, moved = thresholds(at).b, torch.zeros(RUNS, d).double(), torch.zeros(RUNS, d).double()
        for k in range(1, epoch.rounds + 1):
            t, asked = t + 1, step.ask(state)
            drawn = torch.randn(RUNS, n, d, dtype=torch.float64, generator=generator)
            rows = slope(asked).unsqueeze(1) + noise * torch.nn.functional.normalize(drawn, dim=-1)
            mean = rows[:, : n - f].mean(dim=1)
            ascent = ascent + mean
            way = -0.95 * tau * k / epoch.rounds * torch.nn.functional.normalize(ascent, dim=-1) - moved
            way = way * (0.9 * noise / way.norm(dim=-1, keepdim=True).clamp_min(1e-300)).clamp_max(1)
            moved, rows[:, n - f :] = moved + way, (mean + way).unsqueeze(1)
            g, memory = guard.step(memory, rows, At(t, asked))
            state = step.tell(state, g)
        ends.append((t, step.answer(state)))
    return Ended(step.answer(state), int((~memory.roll.good[:, : n - f]).sum()), t, tuple(ends))


def steepness(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The log-log slope of `values` by `sizes`: least squares."""
    x, y = [log2(s) for s in sizes], [log2(v) for v in values]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    cross = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return cross / sum((a - mx) ** 2 for a in x)


def rescaled(n: int, f: int, rounds: int, noise: float, log: float) -> float:
    """θ ~ V sqrt(Λ)(1/sqrt(nT) + 2.5 δ/sqrt(T)): the slope at which a linear instance is just undecided."""
    return noise * sqrt(log / rounds) * (2.5 * f / n if f else 1 / sqrt(n))
