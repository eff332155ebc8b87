"""Algorithm 1 of arXiv:1803.08917 written straight from the paper: float64, one worker at a time, slow.

With the corrections that the library states: B_i a vector sum, the B median selected with its own radius.
Nothing here is shared with the library. Safeguard of arXiv:2012.14368 below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, isfinite, log, sqrt

import numpy as np

Vector = np.ndarray
Rows = list[Vector]


def length(a: Vector) -> float:
    return sqrt(sum(float(x) ** 2 for x in a))


def apart(a: Vector, b: Vector) -> float:
    return length(a - b)


def middle(values: Sequence[float]) -> float:
    ordered, n = sorted(values), len(values)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def majority_radius(rows: Rows, i: int, able: Sequence[bool]) -> float:
    near = sorted(apart(rows[i], rows[j]) if able[i] and able[j] else inf for j in range(len(rows)))
    return near[len(rows) // 2]


def medoid(rows: Rows, able: Sequence[bool] | None = None) -> int:
    able = able or [True] * len(rows)
    radii = [majority_radius(rows, i, able) for i in range(len(rows))]
    return radii.index(min(radii))


def project(x: Vector, centre: Vector, radius: float) -> Vector:
    away = apart(x, centre)
    return x if away <= radius else centre + (x - centre) * (radius / away)


def byzantine_sgd(
    x1: Vector,
    send: Callable[[int, Vector], Rows],
    n: int,
    rounds: int,
    step: float,
    noise: float,
    diameter: float,
    p_fail: float = 0.05,
    b_test: float = 4.0,
    anytime: bool = False,
    adaptive: bool = False,
    over_good: bool = False,
    smooth: bool = True,
    good: set[int] | None = None,
) -> tuple[list[Vector], Vector, set[int], dict[int, tuple[int, str]]]:
    """Points x_1 .. x_{T+1}, the answer, who is good, and when and why the others were expelled."""
    x1 = np.array(x1, dtype=np.float64)
    good = set(range(n)) if good is None else set(good)
    a, b = [0.0] * n, [np.zeros_like(x1) for _ in range(n)]
    path, walked, why, big = [x1], 0.0, {}, log(16 * n * rounds / p_fail)
    for k in range(1, rounds + 1):
        x = path[-1]
        g = send(k, x)
        able = [all(isfinite(float(c)) for c in row) for row in g]
        walked += float(apart(x, x1)) ** 2
        for i in range(n):
            if able[i]:
                a[i] += float(np.dot(g[i], x - x1))
                b[i] = b[i] + g[i]
        horizon = k if anytime else rounds
        tau_a = 4 * diameter * noise * sqrt(horizon * big)
        if adaptive:
            tau_a = min(tau_a, 4 * noise * sqrt(big * walked))
        tau_b = b_test * noise * sqrt(horizon * big)
        a_med, b_med, g_med = middle(a), b[medoid(b)], g[medoid(g, able)]
        for i in sorted(good):
            reason = ""
            if not able[i]:
                reason = "not finite"
            elif apart(g[i], g_med) > 4 * noise:
                reason = "gradient"
            elif apart(b[i], b_med) > tau_b:
                reason = "sum B"
            elif abs(a[i] - a_med) > tau_a:
                reason = "sum A"
            if reason:
                good = good - {i}
                why[i] = (k, reason)
        xi = np.zeros_like(x1)
        for i in sorted(good):
            xi = xi + g[i]
        xi = xi / (len(good) if over_good else n)
        path.append(project(x - step * xi, x1, diameter))
    counted = path[1:] if smooth else path[:-1]
    total = np.zeros_like(x1)
    for point in counted:
        total = total + point
    return path, total / rounds, good, why


def epochs(
    x1: Vector,
    send: Callable[[int, Vector], Rows],
    n: int,
    plan: Sequence[tuple[int, float, float]],
    noise: float,
    p_fail: float = 0.05,
) -> tuple[Vector, set[int]]:
    """The same on each (rounds, radius, step) of the plan in turn, from the answer before; the mask stays."""
    good, done = set(range(n)), 0
    for rounds, radius, step in plan:
        _, x1, good, _ = byzantine_sgd(
            x1,
            lambda k, x, done=done: send(done + k, x),
            n,
            rounds,
            step,
            noise,
            radius,
            p_fail / len(plan),
            good=good,
        )
        done += rounds
    return x1, good


def safeguard(
    x: Vector,
    send: Callable[[int, Vector], Rows],
    n: int,
    rounds: int,
    step: float,
    windows: Sequence[int],
    limits: Sequence[float],
    normalised: bool = False,
    shake: Callable[[int], Vector] | None = None,
) -> tuple[list[Vector], set[int]]:
    """arXiv:2012.14368, Algorithm 1 with thresholds `limits` of its windows; sums divided if `normalised`."""
    x = np.array(x, dtype=np.float64)
    good, path = set(range(n)), [x]
    sums = [[np.zeros_like(x) for _ in range(n)] for _ in windows]
    for t in range(rounds):
        g = send(t + 1, x)
        now, after = sorted(good), set(good)
        for own, window, limit in zip(sums, windows, limits, strict=True):
            if t % window == 0:
                own[:] = [np.zeros_like(x) for _ in range(n)]
            for i in now:
                own[i] = own[i] + g[i] / (len(now) if normalised else 1)
            able = [i in good for i in range(n)]
            centre = own[medoid(own, able)]
            after &= {i for i in now if apart(own[i], centre) <= 2 * limit}
        mean = np.zeros_like(x)
        for i in now:
            mean = mean + g[i]
        mean = mean / len(now)
        x = x - step * (mean + (shake(t + 1) if shake else 0))
        good = after
        path.append(x)
    return path, good
