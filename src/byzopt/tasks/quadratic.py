"""Strongly convex quadratics with known optimum, noise and heterogeneity."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.layout import Layout
from byzopt.rng import stream
from byzopt.tasks.base import TASKS, Task, TaskRecipe
from byzopt.tasks.crowd import Crowd, Stacked


class QuadraticTask(Task):
    """f_i(x) = 1/2 (x - b_i)' A (x - b_i) with A = diag(`spectrum` `[d]`) and b_i = `centres[i]`."""

    def __init__(self, cohort: Cohort, spectrum: Tensor, centres: Tensor, noise: float, seed: int) -> None:
        self.cohort, self.layout = cohort, Layout.flat(len(spectrum))
        self.spectrum, self.centres, self.noise, self.seed = spectrum, centres, noise, seed
        self.optimum = centres[list(cohort.honest)].mean(dim=0)

    def start(self) -> Tensor:
        return torch.ones(self.layout.d, dtype=torch.float64)

    def draw(self, t: int) -> Tensor:
        generator = stream(self.seed, "quadratic", "noise", t)
        drawn = torch.randn(self.n, self.layout.d, dtype=torch.float64, generator=generator)
        return self.noise / sqrt(self.layout.d) * drawn

    def grads(self, x: Tensor, batch: Tensor) -> Tensor:
        return self.spectrum * (x.unsqueeze(-2) - self.centres) + batch

    def crowd(self, tasks: Sequence[Any]) -> Crowd:
        joint = copy(self)
        joint.spectrum = torch.stack([task.spectrum for task in tasks]).unsqueeze(1)
        joint.centres = torch.stack([task.centres for task in tasks])
        return Stacked(tasks, joint)

    def full(self) -> Tensor:
        return torch.zeros(self.n, self.layout.d, dtype=torch.float64)

    def measure(self, x: Tensor) -> dict[str, float]:
        away = x - self.optimum
        slope = self.spectrum * away
        gap, length, distance = away @ slope / 2, linalg.norm(slope), linalg.norm(away)
        return {"loss": float(gap), "grad_norm": float(length), "distance": float(distance)}


@TASKS.register("quadratic")
@dataclass(frozen=True)
class Quadratic(TaskRecipe):
    """f_i(x) = 1/2 (x - b_i)' A (x - b_i) in float64; worker i answers A (x - b_i) + ξ; x^0 = (1 .. 1).

    A is diagonal with `d` eigenvalues geometric from `mu` to `L` (d = 1: `L`). ξ ~ N(0, noise²/d I) anew for
    each worker and round: E ‖ξ‖² = `noise`², the σ² of the theorems. b_i ~ N(0, heterogeneity²/d I) once for
    each worker, Byzantine ones too: E ‖b_i‖² = `heterogeneity`². The honest objective's optimum is the mean
    of the honest b_i, in closed form. Measured: `loss` f(x) - f*, `grad_norm` ‖∇f(x)‖, `distance` ‖x - x*‖.
    """

    d: int = 20
    mu: float = 0.1
    L: float = 1.0
    noise: float = 0.1
    heterogeneity: float = 0.1

    def __post_init__(self) -> None:
        require(self.d >= 1, "Parameter `d` of quadratic", "be at least 1", self.d)
        found = f"mu = {self.mu}, L = {self.L}"
        require(0 < self.mu <= self.L < inf, "The spectrum of quadratic", "satisfy 0 < mu <= L", found)
        spreads = (self.noise, self.heterogeneity)
        valid = all(0 <= spread < inf for spread in spreads)
        require(valid, "`noise` and `heterogeneity` of quadratic", "be finite and at least 0", spreads)

    @property
    def dimension(self) -> int:
        return self.d

    def build(self, cohort: Cohort, seed: int) -> QuadraticTask:
        share = torch.linspace(0, 1, self.d, dtype=torch.float64) if self.d > 1 else torch.ones(1).double()
        spectrum = self.mu * (self.L / self.mu) ** share
        generator = stream(seed, "quadratic", "centres")
        drawn = torch.randn(cohort.n, self.d, dtype=torch.float64, generator=generator)
        centres = self.heterogeneity / sqrt(self.d) * drawn
        return QuadraticTask(cohort, spectrum, centres, self.noise, seed)
