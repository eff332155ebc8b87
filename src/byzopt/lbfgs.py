"""L-BFGS over one flat vector, for smooth functions in the server's or the task's own hands."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor

Function = Callable[[Tensor], tuple[float, Tensor]]  # x -> (value, gradient)
TRIALS = 40  # of one line search
ARMIJO, CURVATURE = 1e-4, 0.9
IDLE = 60  # steps without progress after which it stalls: fewer cut short what is badly conditioned
ROUNDING = 1e-15  # of a value, relative: a rise below it is none


class Ended(NamedTuple):
    """Where a minimiser stopped. `reason`: "met", "budget", "stalled" (no step lowers the value in floating
    point), "nonfinite" (no finite value along the way)."""

    x: Tensor
    value: float
    grad: Tensor
    steps: int
    evaluations: int
    reason: str


class _Point(NamedTuple):
    x: Tensor
    value: float
    grad: Tensor


def minimise(
    function: Function,
    x0: Tensor,
    met: Callable[[Tensor, Tensor], bool],
    budget: int,
    history: int = 100,
    first: float = 1.0,
) -> Ended:
    """Minimise `function` from `x0` `[d]` until `met(x, grad)`, looked at after every step, or the budget.

    At least one and at most `budget` steps; `first` is the length, in gradients, that the first step tries.
    Line search by bisection to the weak Wolfe conditions, in the approximate form of Hager and Zhang (2005)
    where the values differ by rounding alone. Cost: about one evaluation and 4 `history` d numbers a step.
    """
    here = _Point(x0, *function(x0))
    pairs: list[tuple[Tensor, Tensor, float]] = []
    spent, idle, least, lowest = 1, 0, float(here.grad.norm()), here.value
    for step in range(1, budget + 1):
        way = -_inverse(pairs, here.grad, first)
        there, trials = _search(function, here, way)
        spent += trials
        if there is None and pairs:  # the memory may mislead: once more along the gradient
            pairs.clear()
            there, trials = _search(function, here, -first * here.grad)
            spent += trials
        if there is None:
            reason = "stalled" if isfinite(here.value) else "nonfinite"
            return Ended(*here, step - 1, spent, reason)
        moved, bent = there.x - here.x, there.grad - here.grad
        if float(moved @ bent) > 0:
            pairs = [*pairs[-history + 1 :], (moved, bent, 1 / float(moved @ bent))]
        # Steps that lower neither the value nor the gradient beyond rounding may go on for ever.
        length = float(there.grad.norm())
        idle = 0 if length < 0.9 * least or there.value < lowest - noise(lowest) else idle + 1
        least, lowest = min(least, length), min(lowest, there.value)
        here = there
        if met(here.x, here.grad):
            return Ended(*here, step, spent, "met")
        if idle == IDLE:
            return Ended(*here, step, spent, "stalled")
    return Ended(*here, budget, spent, "budget")


def noise(value: float) -> float:
    """A change of a value that may be rounding alone."""
    return ROUNDING * (1 + abs(value))


def _inverse(pairs: list[tuple[Tensor, Tensor, float]], grad: Tensor, first: float) -> Tensor:
    """The inverse Hessian that the pairs suggest, times `grad`: the two-loop recursion."""
    if not pairs:
        return first * grad
    out, shares = grad, []
    for moved, bent, scale in reversed(pairs):
        shares.append(scale * float(moved @ out))
        out = out - shares[-1] * bent
    moved, bent, scale = pairs[-1]
    out = out / (scale * float(bent @ bent))
    for (moved, bent, scale), share in zip(pairs, reversed(shares), strict=True):
        out = out + (share - scale * float(bent @ out)) * moved
    return out


def _search(function: Function, here: _Point, way: Tensor) -> tuple[_Point | None, int]:
    """A point along `way` that meets the weak Wolfe conditions, or None; and the evaluations it took."""
    slope = float(here.grad @ way)
    if not slope < 0:
        return None, 0
    low, high, t = 0.0, float("inf"), 1.0
    best: _Point | None = None
    for trial in range(1, TRIALS + 1):
        x = torch.add(here.x, way, alpha=t)
        value, grad = function(x)
        rise, steep = value - here.value, float(grad @ way)
        fine = isfinite(value) and isfinite(steep)
        close = fine and abs(rise) <= noise(here.value) and steep <= (2 * ARMIJO - 1) * slope
        if not fine or not (close or rise <= ARMIJO * t * slope):
            high = t
        elif steep < CURVATURE * slope:
            low, best = t, _Point(x, value, grad)
        else:
            return _Point(x, value, grad), trial
        t = _between(low, high, rise, slope) if high < float("inf") else 4 * t
        if torch.equal(torch.add(here.x, way, alpha=t), here.x):
            break
    return best, trial


def _between(low: float, high: float, rise: float, slope: float) -> float:
    """The next trial: where a parabola through the value at `high` is lowest; else the middle."""
    if low == 0 and isfinite(rise) and rise - high * slope > 0:
        return min(max(-slope * high**2 / (2 * (rise - high * slope)), 0.1 * high), 0.5 * high)
    return (low + high) / 2
