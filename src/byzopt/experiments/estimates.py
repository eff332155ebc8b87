"""Constants of theorems measured on a task: curvature, noise, heterogeneity, similarity, gap.

Everything is a maximum over a few points and samples, and so a lower estimate of a constant that should hold
everywhere; for quadratics, whose Hessian does not move, curvatures are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import inf, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators import Aggregator
from byzopt.errors import InvalidInput
from byzopt.experiments.curvature import DENSE, Extremes, extremes, hessian, product
from byzopt.servers.inner import value_and_grad
from byzopt.tasks import Task
from byzopt.tasks.optimum import Optimum, optimum
from byzopt.theory.promise import Constants

DRAWS = 4  # samples a point for σ
GRID = (0.0, *(10 ** (k / 4) for k in range(-12, 13)))  # of B²
Tell = Callable[[str, int, int], None]  # what is under way, how much of it is done, of how much
SMALL = 1 << 16  # numbers in the rows up to which every worker's own curvature is looked for


def silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""


class Pair(NamedTuple):
    """One admissible pair of mean‖∇f_i - ∇f‖² <= G² + B² ‖∇f‖²."""

    g: float
    b: float


def pairs(variances: Sequence[float], squares: Sequence[float]) -> list[Pair]:
    """For each B² of a grid the least G that holds at all the points: variance, and ‖∇f‖², at each."""
    seen = list(zip(variances, squares, strict=True))
    return [Pair(sqrt(max(0.0, *(v - b2 * s for v, s in seen), 0.0)), sqrt(b2)) for b2 in GRID]


def best_pair(found: Sequence[Pair], kappa: float | None) -> Pair:
    """The pair with the least common floor κG²/(1 - κB²); without κ, B = 0."""
    if kappa is None:
        return found[0]

    def floor(pair: Pair) -> float:
        free = 1 - kappa * pair.b**2
        return pair.g**2 / free if free > 0 else inf

    return min(found, key=floor)


def estimate(
    task: Task,
    rule: Aggregator,
    f: int,
    rounds: int,
    visited: Sequence[Tensor] = (),
    seed: int = 0,
    tell: Tell = silent,
) -> Constants:
    """What can be measured of the constants of a task, for `rounds` rounds of a rule that tolerates f.

    Points: the start, the optimum of the honest loss where it is found, points between them, and `visited`
    ones. What a task does not give (no full gradients, no proxy, no optimum) stays None. Cost: some hundred
    calls of `grads` for up to 64 coordinates, about 50 a point beyond.
    """
    known = Constants(n=task.n, f=f, d=task.layout.d, rounds=rounds)
    known = replace(known, kappa_linear=rule.kappa_linear(task.n), kappa_squared=rule.kappa_squared(task.n))
    try:
        task.full()
    except InvalidInput:
        return known
    lowest = _optimum(task)
    points = [*_between(task, lowest), *visited]
    found: dict[str, Any] = _heterogeneity(task, points, known.kappa_squared)
    found |= _curvature(task, points, lowest, seed, tell)
    found |= _noise(task, points, tell) | {"passes": task.passes}
    if lowest is not None:
        start = task.start()
        found["gap"] = max(0.0, task.objective(start)[0] - lowest.value)
        found["diameter"] = float((start - lowest.x).norm())
    return replace(known, **{name: value for name, value in found.items() if value is not None})


def slope(task: Task, x: Tensor) -> Tensor:
    """The full gradient of the mean honest loss at x `[d]`."""
    return _honest(task, x).mean(dim=0)


def _honest(task: Task, x: Tensor) -> Tensor:
    return task.grads(x, task.full())[list(task.cohort.honest)]


def _optimum(task: Task) -> Optimum | None:
    """The optimum where there surely is one, or where looking for it is cheap."""
    if not task.convexity and task.layout.d > DENSE:
        return None
    try:
        return optimum(task, precision=1e-9 if task.start().dtype == torch.float64 else 1e-4)
    except InvalidInput:
        return None


def _between(task: Task, lowest: Optimum | None) -> list[Tensor]:
    """The start and the optimum with points between; else ten normalised steps of descent."""
    x = task.start()
    if lowest is not None:
        return [torch.lerp(x, lowest.x, share) for share in (0.0, 0.5, 1.0)]
    points = [x]
    for k in range(1, 11):
        g = slope(task, x)
        length = float(g.norm())
        x = x - 0.1 * (1 + float(x.norm())) / k / length * g if length else x
        points.append(x)
    return points[::5]


def _heterogeneity(task: Task, points: Sequence[Tensor], kappa: float | None) -> dict[str, float]:
    variances, squares = [], []
    for x in points:
        rows = _honest(task, x).double()
        mean = rows.mean(dim=0)
        variances.append(float((rows - mean).square().sum(dim=1).mean()))
        squares.append(float(mean @ mean))
    g, b = best_pair(pairs(variances, squares), kappa)
    return {"zeta": sqrt(max(variances)), "g": g, "b": b, "gradient": sqrt(max(squares))}


def _curvature(
    task: Task, points: Sequence[Tensor], lowest: Optimum | None, seed: int, tell: Tell
) -> dict[str, float | None]:
    def mean(x: Tensor) -> Tensor:
        return slope(task, x)

    whole = [extremes(mean, x, seed) for x in _told("curvature, point", points, tell)]
    lipschitz = max(found.norm for found in whole)
    stated = task.convexity
    low = min(found.low for found in whole)
    measured = low if whole[0].sure and low > 1e-6 * lipschitz else None
    mu = stated or measured
    own = _own_curvature(task, points, seed)
    found: dict[str, float | None] = {"lipschitz": lipschitz, "mu": mu}
    found |= _similarity(task, points, seed, tell)
    if own is not None:
        found["local"] = sqrt(sum(max(at) ** 2 for at in zip(*own, strict=True)) / len(own[0]))
        lengths = [float(_honest(task, x).double().norm(dim=1).max()) for x in points]
        found |= _generalised([max(at) for at in own], lengths)
    if lowest is not None and mu:
        # f_i(x*) - f_i* <= ‖∇f_i(x*)‖²/(2μ) for μ-strongly convex f_i.
        floor = min(filter(None, (stated, _least(task, lowest.x))), default=0.0)
        spread = float(_honest(task, lowest.x).double().square().sum(dim=1).mean())
        found["star_gap"] = spread / (2 * floor) if floor > 0 else None
    return found


def _similarity(task: Task, points: Sequence[Tensor], seed: int, tell: Tell) -> dict[str, float | None]:
    proxy = task.proxy()
    if proxy is None:
        return {}

    def rest(x: Tensor) -> Tensor:
        return slope(task, x) - value_and_grad(proxy, x)[1]

    seen = _told("similarity, point", points, tell)
    return {"delta": max(extremes(rest, x, seed).norm for x in seen)}


def _own_curvature(task: Task, points: Sequence[Tensor], seed: int) -> list[list[float]] | None:
    """Every honest worker's ‖∇²f_i‖ at every point; None where that would take too long."""
    if task.layout.d <= DENSE:
        all_workers = [hessian(lambda x: _honest(task, x), x).double() for x in points]
        return [torch.linalg.matrix_norm(whole, 2).tolist() for whole in all_workers]
    if task.n * task.layout.d > SMALL:
        return None
    return [[_power(task, x, i, seed) for i in range(len(task.cohort.honest))] for x in points]


def _power(task: Task, x: Tensor, i: int, seed: int) -> float:
    """‖∇²f_i(x)‖ by eight steps of the power method."""
    generator = torch.Generator().manual_seed(seed)
    way = torch.randn(len(x), dtype=torch.float64, generator=generator).to(x)
    length = 0.0
    for _ in range(8):
        way = product(lambda y: _honest(task, y)[i], x, way / way.norm())
        length = float(way.norm())
        if length == 0:
            break
    return length


def _least(task: Task, x: Tensor) -> float:
    """The smallest curvature of any honest worker at x; 0 where it is not found."""
    if task.layout.d > DENSE:
        return 0.0
    whole = hessian(lambda y: _honest(task, y), x).double()
    return float(torch.linalg.eigvalsh(whole)[:, 0].min())


def _generalised(norms: Sequence[float], lengths: Sequence[float]) -> dict[str, float | None]:
    """(L0, L1) with ‖∇²f_i‖ <= L0 + L1 ‖∇f_i‖ at all points: the pair that is least at the middle one."""
    middle = sorted(lengths)[len(lengths) // 2]
    seen = list(zip(norms, lengths, strict=True))
    slopes = [0.0] + [(a - c) / (b - d) for a, b in seen for c, d in seen if b > d and a > c]
    best = min(slopes, key=lambda l1: (max(a - l1 * b for a, b in seen) + l1 * middle, l1))
    return {"l0": max(0.0, *(a - best * b for a, b in seen)), "l1": best}


def _told(what: str, points: Sequence[Tensor], tell: Tell) -> Iterator[Tensor]:
    """The points, each told when it is done with."""
    tell(what, 0, len(points))
    for k, x in enumerate(points, 1):
        yield x
        tell(what, k, len(points))


def _noise(task: Task, points: Sequence[Tensor], tell: Tell) -> dict[str, float]:
    """σ, V and the mean-squared smoothness of minibatch gradients, over a few draws."""
    honest = list(task.cohort.honest)
    squares, longest, smooth = [0.0], 0.0, 0.0
    for t in range(1, DRAWS + 1):
        tell("noise, draw", t, DRAWS)
        batch = task.draw(t)
        rows = [task.grads(x, batch)[honest].double() for x in points]
        for x, seen in zip(points, rows, strict=True):
            noise = (seen - _honest(task, x).double()).square().sum(dim=1)
            squares.append(float(noise.mean()))
            longest = max(longest, float(noise.max().sqrt()))
        for k in range(len(points) - 1):
            moved = float((points[k + 1] - points[k]).norm())
            change = (rows[k + 1] - rows[k]).square().sum(dim=1).mean().sqrt()
            smooth = max(smooth, float(change) / moved) if moved else smooth
    return {"sigma": sqrt(max(squares)), "bound": longest, "sample": smooth}


__all__ = ["Extremes", "Pair", "Tell", "best_pair", "estimate", "pairs", "silent", "slope"]
