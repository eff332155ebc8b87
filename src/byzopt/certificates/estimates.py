"""Constants of theorems on a task: what it states for certain, and the rest measured at a few points.

What is measured is a maximum over a few points and samples, and so a lower estimate of a constant that should
hold everywhere. Estimates are held against each other and against what gradients do on a run's path
(`smoothness.reconcile_estimates`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators import Aggregator
from byzopt.certificates.curvature import DENSE
from byzopt.certificates.progress import OnProgress, no_progress
from byzopt.certificates.refuted import check_constant_names, check_stated_constants
from byzopt.certificates.smoothness import (
    estimate_smoothness,
    honest_gradients,
    mean_gradient,
    reconcile_estimates,
)
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.tasks import Task
from byzopt.tasks.optimum import Optimum, optimum
from byzopt.theory.promise import Constants

DRAWS = 4  # samples a point for σ
GRID = (0.0, *(10 ** (k / 4) for k in range(-12, 13)))  # of B²


class DissimilarityPair(NamedTuple):
    """One admissible pair of mean‖∇f_i - ∇f‖² <= G² + B² ‖∇f‖²."""

    g: float
    b: float


def dissimilarity_pairs(variances: Sequence[float], squares: Sequence[float]) -> list[DissimilarityPair]:
    """For each B² of a grid the least G that holds at all the points: variance, and ‖∇f‖², at each."""
    seen = list(zip(variances, squares, strict=True))
    return [DissimilarityPair(sqrt(max(0.0, *(v - b2 * s for v, s in seen), 0.0)), sqrt(b2)) for b2 in GRID]


def best_pair(candidates: Sequence[DissimilarityPair], kappa: float | None) -> DissimilarityPair:
    """The pair with the least common floor κG²/(1 - κB²) of theorems on inexact gradients; without κ, B = 0.

    Other theorems weigh G and B in other ways: each looks for its own best among all pairs.
    """

    def floor(pair: DissimilarityPair) -> float:
        if kappa is None:
            return pair.g if pair.b == 0 else inf
        free = 1 - kappa * pair.b**2
        return pair.g**2 / free if free > 0 else inf

    return min(candidates, key=floor)


def estimate_constants(
    task: Task,
    rule: Aggregator,
    f: int,
    rounds: int,
    visited: Sequence[Tensor] = (),
    seed: int = 0,
    on_progress: OnProgress = no_progress,
    path: Sequence[Tensor] = (),
) -> Constants:
    """What is known of the constants of a task, for `rounds` rounds of a rule on a server that tolerates f.

    What the task states holds for certain and is named in `exact`; the rest is measured at the start, the
    optimum of the honest loss where it is found, points between them, and `visited` ones. Estimates that
    contradict each other, or what gradients do between successive points of `path`, are raised, and `notes`
    say so. What a task does not give (no full gradients, no proxy, no optimum) stays None. Cost: some hundred
    calls of `grads` for up to 64 coordinates, about 70 a point beyond. Errors: `InvalidInput` where the task
    states what is refuted by what is measured.
    """
    known = Constants(n=task.n, f=f, d=task.layout.d, rounds=rounds)
    stated = task.stated()
    least = stated.pop("least", None)
    check_constant_names(stated)
    try:
        task.full()
    except InvalidInput:
        return with_rule(_filled(known, {}, stated, set(stated)), rule, task.cohort)
    lowest = _optimum(task)
    points = [*_between(task, lowest), *visited]
    estimates: dict[str, Any] = _heterogeneity(task, points)
    estimates |= estimate_smoothness(task, points, lowest, seed, on_progress, stated)
    estimates |= _noise(task, points, on_progress) | {"passes": task.passes}
    given, certain = _start(task, points, lowest, least)
    estimates |= given
    check_stated_constants(task, stated, estimates, points, lowest)
    del estimates["seen"]
    estimates, notes = reconcile_estimates(task, estimates, stated, [points, path])
    known = replace(_filled(known, estimates, stated, certain | set(stated)), notes=tuple(notes))
    return with_rule(known, rule, task.cohort)


def with_rule(known: Constants, rule: Aggregator, cohort: Cohort) -> Constants:
    """The constants of a task with another rule, against these liars."""
    liars = len(cohort.byzantine)
    known = replace(
        known,
        attackers=liars,
        tolerated=rule.tolerance(cohort.n),
        trusts=rule.trusts,
        betrayed=tuple(i for i in rule.trusts if i in cohort.byzantine),
        rule=" >> ".join(stage.name for stage in (*rule.stages, rule.last)),
        kappa_linear=rule.kappa_linear(cohort.n, liars),
        kappa_squared=rule.kappa_squared(cohort.n, liars),
        unproved=rule.unproved(cohort.n, liars),
    )
    if not known.pairs:
        return known
    g, b = best_pair([DissimilarityPair(*pair) for pair in known.pairs], known.kappa_squared)
    return replace(known, g=g, b=b)


def _filled(
    known: Constants, estimates: dict[str, Any], stated: dict[str, Any], exact: set[str]
) -> Constants:
    """The constants that were found, with what is stated in their place."""
    if {"pairs", "zeta"} & stated.keys():  # an estimated pair says nothing beside exact ones
        estimates = {name: value for name, value in estimates.items() if name not in ("pairs", "zeta")}
    if "curves" in stated:
        estimates = {name: value for name, value in estimates.items() if name not in ("l0", "l1")}
        exact = exact | {"l0", "l1"}
    there = estimates | stated
    return replace(known, **{k: v for k, v in there.items() if v is not None}, exact=frozenset(exact))


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
        g = mean_gradient(task, x)
        length = float(g.norm())
        x = x - 0.1 * (1 + float(x.norm())) / k / length * g if length else x
        points.append(x)
    return points[::5]


def _heterogeneity(task: Task, points: Sequence[Tensor]) -> dict[str, Any]:
    variances, squares = [], []
    for x in points:
        rows = honest_gradients(task, x).double()
        mean = rows.mean(dim=0)
        variances.append(float((rows - mean).square().sum(dim=1).mean()))
        squares.append(float(mean @ mean))
    fitting = tuple((g, b) for g, b in dissimilarity_pairs(variances, squares))
    seen = tuple(zip(variances, squares, strict=True))
    return {"zeta": sqrt(max(variances)), "pairs": fitting, "gradient": sqrt(max(squares)), "seen": seen}


def _start(
    task: Task, points: Sequence[Tensor], lowest: Optimum | None, least: float | None
) -> tuple[dict[str, float], set[str]]:
    """Figures of the start, and which are certain. Without the optimum: no loss lies below `least`."""
    start = task.start()
    rows = honest_gradients(task, start).double()
    lengths = {"start_gradient": float(rows.mean(dim=0).norm()), "start_rows": float(rows.norm(dim=1).mean())}
    if lowest is not None:
        lengths["gap"] = max(0.0, task.objective(start)[0] - lowest.value)
        lengths["diameter"] = float((start - lowest.x).norm())
        return lengths, {*lengths} if task.convexity else {"start_gradient", "start_rows"}
    if least is not None:
        values = [task.objective(x)[0] for x in points]
        lengths |= {"gap": values[0] - least, "star_gap": min(values) - least}
    return lengths, {*lengths}


def _noise(task: Task, points: Sequence[Tensor], on_progress: OnProgress) -> dict[str, float]:
    """σ, V and the mean-squared smoothness of minibatch gradients, over a few draws."""
    who = list(task.cohort.honest)
    squares, longest, smooth = [0.0], 0.0, 0.0
    for t in range(1, DRAWS + 1):
        on_progress("noise, draw", t, DRAWS)
        batch = task.draw(t)
        rows = [task.grads(x, batch)[who].double() for x in points]
        for x, seen in zip(points, rows, strict=True):
            noise = (seen - honest_gradients(task, x).double()).square().sum(dim=1)
            squares.append(float(noise.mean()))
            longest = max(longest, float(noise.max().sqrt()))
        for k in range(len(points) - 1):
            moved = float((points[k + 1] - points[k]).norm())
            change = (rows[k + 1] - rows[k]).square().sum(dim=1).mean().sqrt()
            smooth = max(smooth, float(change) / moved) if moved else smooth
    return {"sigma": sqrt(max(squares)), "bound": longest, "sample": smooth}
