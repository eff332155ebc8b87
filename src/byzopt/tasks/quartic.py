"""The quartic ‖x‖⁴ with fixed shifts and noise: (L0, L1)-smooth, not smooth."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.layout import Layout
from byzopt.rng import stream
from byzopt.tasks.base import TASKS, DataTaskRecipe, Task
from byzopt.tasks.crowd import Crowd, Stacked
from byzopt.theory.nsgdm import quartic


class QuarticTask(Task):
    """f(x) = ‖x‖⁴; worker i answers 4 ‖x‖² x + s_i + ξ with shifts that sum to zero over the honest."""

    def __init__(self, cohort: Cohort, d: int, noise: float, shifts: Tensor, seed: int) -> None:
        self.cohort, self.layout = cohort, Layout.flat(d)
        self.noise, self.shifts, self.seed = noise, shifts, seed

    def start(self) -> Tensor:
        return torch.ones(self.layout.d, dtype=torch.float64, device="cpu")

    def draw(self, t: int) -> Tensor:
        generator = stream(self.seed, "quartic", "noise", t)
        return self.noise * torch.randn(
            self.n, self.layout.d, dtype=torch.float64, generator=generator, device="cpu"
        )

    def grads(self, x: Tensor, batch: Tensor) -> Tensor:
        # A dot product for each run, so that a run among others has the bits of one alone.
        square = x @ x if x.ndim == 1 else torch.stack([point @ point for point in x]).unsqueeze(1)
        slope = 4 * square * x
        return slope.unsqueeze(-2) + self.shifts + batch

    def rows_at(self, points: Tensor, batch: Tensor, workers: slice) -> Tensor:
        slopes = 4 * points.square().sum(dim=-1, keepdim=True) * points
        return slopes + self.shifts[..., workers, :] + batch[..., workers, :]

    def crowd(self, tasks: Sequence[Any]) -> Crowd:
        joint = copy(self)
        joint.shifts = torch.stack([task.shifts for task in tasks])
        return Stacked(tasks, joint)

    def full(self) -> Tensor:
        return torch.zeros(self.n, self.layout.d, dtype=torch.float64, device="cpu")

    def loss_of(self, x: Tensor, workers: Sequence[int]) -> float:
        return float((x @ x) ** 2 + (self.shifts[list(workers)] @ x).mean())

    def objective(self, x: Tensor) -> tuple[float, Tensor]:
        return float((x @ x) ** 2), 4 * (x @ x) * x

    def stated(self) -> dict[str, Any]:
        lengths = linalg.norm(self.shifts[list(self.cohort.honest)]).tolist()
        sigma, radius = self.noise * sqrt(self.layout.d), float(linalg.norm(self.start()))
        curve = quartic(1.0, lengths, radius, sigma)
        kinds = [10 ** (k / 8) for k in range(-32, 25)]  # of L1: every one holds, with an L0 of its own
        curves = tuple((quartic(l1, lengths, radius).l0, l1) for l1 in kinds)
        known: dict[str, Any] = {"lipschitz": None, "local": None, "mu": None, "curves": curves}
        known |= {"sigma": sigma, "spread": self.noise, "sampling": "fresh" if self.noise else "exact"}
        known |= {"zeta": curve.zeta, "pairs": ((curve.zeta, 0.0),), "star_gap": curve.star_gap}
        return known | {"gap": curve.start_gap, "diameter": radius, "convex": True}

    def measure(self, x: Tensor) -> dict[str, float]:
        radius = float(linalg.norm(x))
        return {"loss": radius**4, "grad_norm": 4 * radius**3}

    def measure_workers(self, x: Tensor) -> dict[str, list[float]]:
        """f_i(x) = ‖x‖⁴ + <s_i, x>, without the noise."""
        linear_terms = self.shifts[list(self.cohort.honest)] @ x
        return {"loss": (linalg.norm(x) ** 4 + linear_terms).tolist()}


@TASKS.register("quartic")
@dataclass(frozen=True)
class Quartic(DataTaskRecipe):
    """Section 6 of arXiv:2603.12512: g_i = 4 ‖x‖² x + ξ + s_i in float64, x^0 = (1 .. 1).

    `noise_variance` of each coordinate of ξ, drawn anew in every round; `shift_variance` of each coordinate
    of s_i, drawn once per honest worker and centred so that Σ s_i = 0 over the honest. Byzantine workers'
    own gradients have no shift. (L0, L1) = (16 / L1², L1) for every L1 > 0.

    Args:
        d: Dimension.
        noise_variance: Variance of each coordinate of a round's noise.
        shift_variance: Variance of each coordinate of a worker's shift.

    Examples:
        >>> from byzopt import Cohort, Quartic
        >>> task = Quartic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> x = task.start()
        >>> rows = task.grads(x, task.draw(1))  # one gradient from each worker, in round 1
        >>> rows.shape == (20, len(x))
        True
        >>> sorted(task.measure(x))
        ['grad_norm', 'loss']
    """

    tested: ClassVar[bool] = False

    d: int = 10
    noise_variance: float = 1e-5
    shift_variance: float = 1e-3

    def __post_init__(self) -> None:
        require(self.d >= 1, "Parameter `d` of quartic", "be at least 1", self.d)
        variances = (self.noise_variance, self.shift_variance)
        valid = all(0 <= variance < inf for variance in variances)
        require(valid, "The variances of quartic", "be finite and at least 0", variances)

    @property
    def dimension(self) -> int:
        return self.d

    def build_on(self, cohort: Cohort, seed: int, data_seed: int) -> QuarticTask:
        honest = list(cohort.honest)
        drawn = torch.randn(
            len(honest),
            self.d,
            dtype=torch.float64,
            generator=stream(data_seed, "quartic", "shifts"),
            device="cpu",
        )
        shifts = torch.zeros(cohort.n, self.d, dtype=torch.float64, device="cpu")
        shifts[honest] = sqrt(self.shift_variance) * (drawn - drawn.mean(dim=0))
        return QuarticTask(cohort, self.d, sqrt(self.noise_variance), shifts, seed)
