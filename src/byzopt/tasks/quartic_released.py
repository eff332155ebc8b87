"""The quartic as the code released with arXiv:2603.12512 runs it, number for number."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from byzopt import linalg
from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.tasks.base import TASKS, TaskRecipe
from byzopt.tasks.quartic import QuarticTask

REACH, MOST = 100.0, 1000.0  # ‖x‖ and ‖g_i‖ are cut there
NOISE, SHIFT = 1e-5, 1e-6  # standard deviations of a coordinate
SHIFTS_SEED = 0  # whatever the run's seed is


class ReleasedQuarticTask(QuarticTask):
    """g_i = cut(4 min(‖x‖, 100)² x + s_i + ξ), with the released code's own random numbers."""

    def __init__(self, cohort: Cohort, d: int, seed: int) -> None:
        self._numbers, shifts = _begun(cohort, d, seed)
        super().__init__(cohort, d, NOISE, shifts, seed)
        self._drawn = 0  # rounds that `_numbers` has given

    def draw(self, t: int) -> Tensor:
        # NumPy's old stream has no way to jump ahead; rounds are asked for in order, or start again.
        if t <= self._drawn:
            self._numbers, _ = _begun(self.cohort, self.layout.d, self.seed)
            self._drawn = 0
        for _ in range(self._drawn, t):
            noise = self._numbers.randn(self.n, self.layout.d)
        self._drawn = t
        return torch.from_numpy(NOISE * noise)

    def grads(self, x: Tensor, batch: Tensor) -> Tensor:
        length = linalg.norm(x).clamp(max=REACH)
        slope = 4 * (length**2).unsqueeze(-1) * x
        return _cut(slope.unsqueeze(-2) + self.shifts + batch)

    def rows_at(self, points: Tensor, batch: Tensor, workers: slice) -> Tensor:
        length = linalg.norm(points).clamp(max=REACH)
        slopes = 4 * (length**2).unsqueeze(-1) * points
        return _cut(slopes + self.shifts[..., workers, :] + batch[..., workers, :])

    def stated(self) -> dict[str, Any]:
        return {"sampling": "fresh"}  # where gradients are cut they belong to no loss


@TASKS.register("quartic_released")
@dataclass(frozen=True)
class ReleasedQuartic(TaskRecipe):
    """`quartic` as the code released with arXiv:2603.12512 runs it: d = 10, float64, NumPy's own stream.

    Noise has standard deviation 1e-5 and not variance 1e-5; 16 honest workers have shifts of standard
    deviation 1e-6, the last one minus their sum. Both come from NumPy's `RandomState`: shifts always from
    seed 0; the noise of seed 0 goes on where they end, that of other seeds starts afresh. Every worker draws
    its noise in every round, in the order of workers. Gradients longer than 1000 are cut, ‖x‖ counts as at
    most 100.

    Args:
        d: Dimension.

    Examples:
        >>> from byzopt import Cohort, ReleasedQuartic
        >>> task = ReleasedQuartic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> x = task.start()
        >>> rows = task.grads(x, task.draw(1))  # one gradient from each worker, in round 1
        >>> rows.shape == (20, len(x))
        True
        >>> sorted(task.measure(x))
        ['grad_norm', 'loss']
    """

    tested: ClassVar[bool] = False

    d: int = 10

    def __post_init__(self) -> None:
        require(self.d >= 1, "Parameter `d` of quartic_released", "be at least 1", self.d)

    @property
    def dimension(self) -> int:
        return self.d

    def build(self, cohort: Cohort, seed: int) -> ReleasedQuarticTask:
        return ReleasedQuarticTask(cohort, self.d, seed)


def _cut(rows: Tensor) -> Tensor:
    """Gradients of at most the length that the released code lets pass."""
    lengths = linalg.norm(rows).unsqueeze(-1)
    rows = torch.where(lengths > MOST, rows * (MOST / lengths), rows)
    return torch.where(lengths < inf, rows, 0.0)


def _begun(cohort: Cohort, d: int, seed: int) -> tuple[np.random.RandomState, Tensor]:
    """The stream of a run before its first round, and the shifts `[n, d]`."""
    numbers = np.random.RandomState(SHIFTS_SEED)
    honest = list(cohort.honest)
    free = SHIFT * numbers.randn(len(honest) - 1, d)
    shifts = torch.zeros(cohort.n, d, dtype=torch.float64, device="cpu")
    # Added one by one, as released: the order decides the last bit.
    shifts[honest] = torch.from_numpy(np.concatenate([free, -sum(free, np.zeros((1, d)))]))
    return numbers if seed == SHIFTS_SEED else np.random.RandomState(seed % 2**32), shifts
