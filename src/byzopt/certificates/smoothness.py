"""Smoothness of a task's losses, measured: of their mean, of every worker's, of what a proxy leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from byzopt.certificates.curvature import DENSE, extreme_eigenvalues, hessian, hessian_product
from byzopt.certificates.progress import OnProgress
from byzopt.servers.inner import value_and_grad
from byzopt.tasks import Task
from byzopt.tasks.optimum import Optimum
from byzopt.theory.promise import Constants

MOST = 1 << 22  # numbers in the rows up to which every worker's own curvature is looked for


def honest_gradients(task: Task, x: Tensor) -> Tensor:
    """The honest workers' full gradients at x, `[h, d]`."""
    return task.grads(x, task.full())[list(task.cohort.honest)]


def mean_gradient(task: Task, x: Tensor) -> Tensor:
    """The full gradient of the mean honest loss at x `[d]`."""
    return honest_gradients(task, x).mean(dim=0)


def estimate_smoothness(
    task: Task,
    points: Sequence[Tensor],
    lowest: Optimum | None,
    seed: int,
    on_progress: OnProgress,
    stated: dict[str, Any],
) -> dict[str, Any]:
    """L, μ, Δ, the L_i, (L0, L1) and the mean of f* - f_i*, as far as the task does not state them."""
    estimates: dict[str, Any] = {}
    if not {"lipschitz", "mu"} <= stated.keys():
        whole = [
            extreme_eigenvalues(lambda y: mean_gradient(task, y), x, seed)
            for x in _told("curvature, point", points, on_progress)
        ]
        estimates["lipschitz"] = max(at.norm for at in whole)
        low = min(at.low for at in whole)
        estimates["mu"] = low if whole[0].sure and low > 1e-6 * estimates["lipschitz"] else None
    if "delta" not in stated:
        estimates |= _similarity(task, points, seed, on_progress)
    if not {"local", "l0"} <= stated.keys() and not {"local", "curves"} <= stated.keys():
        estimates |= _own(task, points, seed)
    mu = stated.get("mu") or estimates.get("mu")
    if lowest is not None and mu and "star_gap" not in stated:
        # f_i(x*) - f_i* <= ‖∇f_i(x*)‖²/(2μ) for μ-strongly convex f_i.
        floor = min(filter(None, (stated.get("mu"), _least(task, lowest.x))), default=0.0)
        spread = float(honest_gradients(task, lowest.x).double().square().sum(dim=1).mean())
        estimates["star_gap"] = spread / (2 * floor) if floor > 0 else None
    return estimates


def reconcile_estimates(
    task: Task, estimates: dict[str, Any], stated: dict[str, Any], paths: Sequence[Sequence[Tensor]]
) -> tuple[dict[str, Any], list[str]]:
    """Estimates that contradict neither each other nor what gradients do between successive points of
    `paths`, and what was changed for it. What is stated stays."""
    estimates, notes = dict(estimates), []

    def lift(name: str, least: float | None, why: str) -> None:
        value = estimates.get(name)
        if name not in stated and value is not None and least is not None and value < least * (1 - 1e-9):
            notes.append(f"{name} raised from {value:.4g} to {least:.4g}: {why}")
            estimates[name] = least

    def get(name: str) -> float | None:
        value: float | None = stated[name] if name in stated else estimates.get(name)
        return value

    steps = [step for path in paths for step in path_changes(task, path)]
    lift(
        "lipschitz", max((mean for mean, _, _ in steps), default=None), "gradients on the path change so fast"
    )
    slope, gap, l1 = get("start_gradient"), get("gap"), get("l1")
    if slope and gap:
        lift("lipschitz", slope**2 / (2 * gap), "‖∇f(x^0)‖² <= 2 L (f(x^0) - f*)")
    if steps and "curves" not in stated and "l0" not in stated:

        def needed(l1: float) -> float:
            return max(float((each - l1 * long).max()) for _, each, long in steps)

        if l1 is not None:
            lift("l0", needed(l1), f"with L1 = {l1:.4g} the assumption is violated on the path")
        estimates["curves"] = tuple((max(l0, needed(l1)), l1) for l0, l1 in estimates.get("curves", ()))
    lift("local", get("lipschitz"), "the root mean square of the L_i is at least L")
    lift("sample", get("local") or get("lipschitz"), "in the mean square no minibatch is smoother")
    lift("bound", get("sigma"), "the longest noise is at least its root mean square")
    mu, lipschitz = get("mu"), get("lipschitz")
    if "mu" not in stated and mu and lipschitz and mu > lipschitz:
        estimates["mu"] = lipschitz
        notes.append(f"mu lowered from {mu:.4g} to {lipschitz:.4g}: it is at most L")
    return estimates, notes


def fit_to_path(task: Task, known: Constants, path: Sequence[Tensor]) -> Constants:
    """Constants whose estimates do not contradict what gradients do between successive points of a path."""
    names = ("lipschitz", "l0", "curves", "local", "sample", "bound", "mu")
    stated = {name: getattr(known, name, None) for name in known.exact}
    estimates, notes = reconcile_estimates(task, dict(vars(known)), stated, [path])
    return replace(known, **{name: estimates[name] for name in names}, notes=(*known.notes, *notes))


def path_changes(task: Task, path: Sequence[Tensor]) -> Iterator[tuple[float, Tensor, Tensor]]:
    """For successive points: ‖Δ∇f‖/‖Δx‖, that of every honest worker, and their longer gradients `[h]`.

    What rounding could have added to a difference is taken off it.
    """
    if len(path) < 2:
        return
    rows = [honest_gradients(task, x).double() for x in path]
    eps = float(torch.finfo(path[0].dtype).eps)
    for (x, a), (y, b) in pairwise(zip(path, rows, strict=True)):
        length = float((y - x).norm())
        if length == 0:
            continue
        long = torch.maximum(a.norm(dim=1), b.norm(dim=1))
        by_worker = ((b - a).norm(dim=1) - 64 * eps * long).clamp(min=0) / length
        mean = float((b - a).mean(dim=0).norm()) - 64 * eps * float(long.max())
        yield max(0.0, mean) / length, by_worker, long


def _similarity(task: Task, points: Sequence[Tensor], seed: int, on_progress: OnProgress) -> dict[str, float]:
    proxy = task.proxy()
    if proxy is None:
        return {}

    def rest(x: Tensor) -> Tensor:
        return mean_gradient(task, x) - value_and_grad(proxy, x)[1]

    seen = _told("similarity, point", points, on_progress)
    return {"delta": max(extreme_eigenvalues(rest, x, seed).norm for x in seen)}


def _own(task: Task, points: Sequence[Tensor], seed: int) -> dict[str, Any]:
    """The root mean square of the L_i and (L0, L1), where every worker's curvature is not too much work."""
    if task.n * task.layout.d > MOST:
        return {}
    norms = [_norms(task, x, seed) for x in points]
    lengths = [float(honest_gradients(task, x).double().norm(dim=1).max()) for x in points]
    local = sqrt(sum(max(at) ** 2 for at in zip(*norms, strict=True)) / len(norms[0]))
    return {"local": local} | _generalised([max(at) for at in norms], lengths)


def _norms(task: Task, x: Tensor, seed: int) -> list[float]:
    """Every honest worker's ‖∇²f_i(x)‖."""
    if task.layout.d <= DENSE:
        whole = hessian(lambda y: honest_gradients(task, y), x).double()
        norms: list[float] = torch.linalg.matrix_norm(whole, 2).tolist()
        return norms
    return [_power(task, x, i, seed) for i in task.cohort.honest]


def _power(task: Task, x: Tensor, i: int, seed: int) -> float:
    """‖∇²f_i(x)‖ by eight steps of the power method."""
    generator = torch.Generator().manual_seed(seed)
    way = torch.randn(len(x), dtype=torch.float64, generator=generator, device="cpu").to(x)
    full, length = task.full(), 0.0
    for _ in range(8):
        way = hessian_product(lambda y: task.grads_of(y, full, slice(i, i + 1))[0], x, way / way.norm())
        length = float(way.norm())
        if length == 0:
            break
    return length


def _least(task: Task, x: Tensor) -> float:
    """The smallest curvature of any honest worker at x; 0 where it is not found."""
    if task.layout.d > DENSE:
        return 0.0
    whole = hessian(lambda y: honest_gradients(task, y), x).double()
    return float(torch.linalg.eigvalsh(whole)[:, 0].min())


def _generalised(norms: Sequence[float], lengths: Sequence[float]) -> dict[str, Any]:
    """(L0, L1) with ‖∇²f_i‖ <= L0 + L1 ‖∇f_i‖ at all points: the pair that is least at the middle one, and
    `curves`, all that touch the points."""
    middle = sorted(lengths)[len(lengths) // 2]
    seen = list(zip(norms, lengths, strict=True))
    slopes = [0.0] + [(a - c) / (b - d) for a, b in seen for c, d in seen if b > d and a > c]
    best = min(slopes, key=lambda l1: (max(a - l1 * b for a, b in seen) + l1 * middle, l1))
    curves = tuple((max(0.0, *(a - l1 * b for a, b in seen)), l1) for l1 in sorted(set(slopes)))
    return {"l0": max(0.0, *(a - best * b for a, b in seen)), "l1": best, "curves": curves}


def _told(what: str, points: Sequence[Tensor], on_progress: OnProgress) -> Iterator[Tensor]:
    """The points, each told when it is done with."""
    on_progress(what, 0, len(points))
    for k, x in enumerate(points, 1):
        yield x
        on_progress(what, k, len(points))
