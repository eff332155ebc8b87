"""Constants that a task states, checked against measurements: a refuted statement is an error.

A constant that is stated counts as certain in every promise, so that a wrong one would make promises untrue.
Points and draws prove none right, but they prove some wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from byzopt.certificates.smoothness import mean_gradient, path_changes
from byzopt.errors import require, unknown
from byzopt.tasks import Task
from byzopt.tasks.optimum import Optimum
from byzopt.theory.promise import Constants

SPARE = 1e-3  # relative: how far a measured value may be off by rounding, or by an optimum that is not exact
Steps = Sequence[tuple[float, Tensor, Tensor]]  # see `smoothness.moves`


def check_constant_names(stated: Mapping[str, Any]) -> None:
    """Raise `UnknownName` where a task states what is no constant of theorems."""
    known = [field.name for field in fields(Constants)]
    for name in stated:
        if name not in known:
            raise unknown("constant in what the task states", name, [*known, "least"])


def check_stated_constants(
    task: Task,
    stated: Mapping[str, Any],
    estimates: Mapping[str, Any],
    points: Sequence[Tensor],
    lowest: Optimum | None,
) -> None:
    """Raise `InvalidInput` where the `estimates` at `points`, between them and in draws refute the task."""
    steps = list(path_changes(task, points))
    eps = float(torch.finfo(task.start().dtype).eps) ** 0.5
    blur = eps * max(
        float(estimates.get(name) or 0.0) for name in ("start_rows", "start_gradient", "gradient")
    )
    for name, least, why in _floors(stated, estimates, steps, lowest):
        value = stated.get(name)
        slack = 0.0 if name in ("lipschitz", "local", "sample", "l0") else blur
        good = value is None or value >= least * (1 - SPARE) - slack
        _require(good, name, f"be at least {least:.6g}, for {why}", value)
    mu, gap, steep = stated.get("mu"), estimates.get("gap"), estimates.get("start_gradient")
    if mu and lowest is not None and gap and steep is not None:
        most = steep**2 / (2 * gap)
        _require(
            mu <= most * (1 + SPARE), "mu", f"be at most {most:.6g}, for 2 μ (f(x^0) - f*) <= ‖∇f(x^0)‖²", mu
        )
    if stated.get("convex") and (fold := _fold(task, points)) < 0:
        _require(
            False, "convex", "hold everywhere", f"gradients that turn back, by {fold:.3g} between points"
        )
    for l0, l1 in stated.get("curves") or ():
        needed = max((float((each - l1 * long).max()) for _, each, long in steps), default=0.0)
        rule = f"have an L0 of at least {needed:.6g} with L1 = {l1:.6g}, for gradients change so fast"
        _require(l0 >= needed * (1 - SPARE), "curves", rule, (l0, l1))
    for g, b in stated.get("pairs") or ():
        over = _beyond(estimates, g + blur, b)
        what = f"({g:.6g}, {b:.6g})"
        _require(over <= 0, "pairs", f"bound mean‖∇f_i - ∇f‖², which is {over:.3g} above it at a point", what)


def _floors(
    stated: Mapping[str, Any], estimates: Mapping[str, Any], steps: Steps, lowest: Optimum | None
) -> Iterator[tuple[str, float, str]]:
    """Stated constants, values that they cannot be below, and why."""
    if steps:
        yield "lipschitz", max(mean for mean, _, _ in steps), "gradients change so fast between points"
        largest = torch.stack([each for _, each, _ in steps]).amax(dim=0)
        local = float(largest.square().mean().sqrt())
        yield "local", local, "the honest workers' gradients change so fast between points"
        yield "sample", local, "in the mean square no minibatch is smoother than the whole"
        if (l1 := stated.get("l1")) is not None:
            needed = max(float((largest - l1 * long).max()) for _, largest, long in steps)
            yield "l0", needed, f"with L1 = {l1:.6g} the honest workers' gradients change so fast"
    noisy = [] if "spread" in stated else ["bound"]
    for name in [*noisy, "sigma"] if stated.get("sigma") == 0 else noisy:
        yield name, float(estimates.get(name) or 0.0), "a draw has so much noise"
    yield "zeta", float(estimates.get("zeta") or 0.0), "the honest gradients differ so much at a point"
    for name in ("gradient", "start_gradient"):
        yield name, float(estimates.get("start_gradient") or 0.0), "‖∇f(x^0)‖ is so large"
    if lowest is not None:
        yield "gap", float(estimates.get("gap") or 0.0), "the honest loss falls so far from x^0"
        if stated.get("mu"):  # then there is one x* only
            yield "diameter", float(estimates.get("diameter") or 0.0), "x* is so far from x^0"


def _fold(task: Task, points: Sequence[Tensor]) -> float:
    """The least slope of ∇f between successive points along the way from one to the other, rounding taken
    off: below 0 for no convex f."""
    rows, eps = [mean_gradient(task, x).double() for x in points], float(torch.finfo(task.start().dtype).eps)
    least = 0.0
    for (x, a), (y, b) in pairwise(zip(points, rows, strict=True)):
        way = (y - x).double()
        spare = 64 * eps * float(max(a.norm(), b.norm()) * way.norm())
        least = min(least, float((b - a) @ way) + spare)
    return least


def _beyond(estimates: Mapping[str, Any], g: float, b: float) -> float:
    """By how much the variance of honest gradients exceeds G² + B²‖∇f‖² at the points looked at."""
    seen: Sequence[tuple[float, float]] = estimates.get("seen") or ()
    return max((v * (1 - SPARE) - g**2 - b**2 * square for v, square in seen), default=0.0)


def _require(good: bool, name: str, rule: str, value: Any) -> None:
    what = f"Constant `{name}` that the task states"
    require(good, what, rule, value, "Correct it in `stated`, or leave it out to have it estimated.")
