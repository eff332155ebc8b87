"""The minimiser of the mean honest loss, for true gaps and for constants of theorems."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt import lbfgs
from byzopt.errors import InvalidInput
from byzopt.tasks.base import Task

PRECISION = 1e-9  # of ‖∇f‖
BUDGET = 20_000
KEPT = 16  # optima


class Optimum(NamedTuple):
    """The minimiser `x` `[d]`, the least `value`, and the `grad_norm` that is left."""

    x: Tensor
    value: float
    grad_norm: float


SOLVED: dict[Hashable, Optimum] = {}  # by the name of an objective, the latest last


def optimum(task: Task, x0: Tensor | None = None, precision: float = PRECISION) -> Optimum:
    """Minimise `task.objective` from `x0` (default: the task's start) to ‖∇f‖ < `precision`, by L-BFGS.

    Errors: `InvalidInput` for a task without an objective, and where the precision is not reached: no
    minimum exists, or the task's dtype is too coarse for it.
    """
    known = getattr(task, "lowest", None)
    if isinstance(known, Lowest) and x0 is None and precision >= PRECISION:
        return known.solved
    start = task.start() if x0 is None else x0
    value, grad = task.objective(start)
    if _length(grad) < precision:
        return Optimum(start, value, _length(grad))
    end = lbfgs.minimise(task.objective, start, lambda x, g: _length(g) < precision, BUDGET)
    if _length(end.grad) >= precision:
        raise InvalidInput(
            f"The honest loss should have a minimum with ‖grad f‖ < {precision:g}. Found "
            f"{_length(end.grad):.3g} after {end.steps} steps ({end.reason}). Use float64 and l2 (or wd) > 0."
        )
    return Optimum(end.x, end.value, _length(end.grad))


class Lowest:
    """A task's least honest loss, solved for when first asked.

    `key` may name the honest objective: whatever tasks have it, this process then solves for it once.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.key: Hashable = None

    @cached_property
    def solved(self) -> Optimum:
        """The optimum."""
        if self.key is None:
            return optimum(self._task)
        if self.key not in SOLVED:
            SOLVED[self.key] = optimum(self._task)
            for old in list(SOLVED)[:-KEPT]:
                del SOLVED[old]
        return SOLVED[self.key]

    @property
    def value(self) -> float:
        """f*."""
        return self.solved.value

    def figures(self, task: Task, x: Tensor) -> dict[str, float]:
        """`train_loss` f(x), the mean honest loss with its regulariser, its `grad_norm`, and `gap` f - f*."""
        loss, grad = task.objective(x)
        return {"train_loss": loss, "grad_norm": _length(grad), "gap": loss - self.value}


def _length(grad: Tensor) -> float:
    return float(torch.linalg.vector_norm(grad, dtype=torch.float64))
