"""A task whose noise has exactly length V, for the theorems of ByzantineSGD, and runs on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from byzopt.aggregators import Mean
from byzopt.attacks import Attack
from byzopt.cohort import Cohort
from byzopt.engines import Snapshot
from byzopt.layout import Layout
from byzopt.methods import MethodRecipe
from byzopt.rng import stream
from byzopt.tasks import Task
from tests.running import play


class Bowl(Task):
    """curve/2 ‖x - b‖², b = (0.5, 0, ...); with noise of length V in each row; x^0 = 0."""

    def __init__(
        self, cohort: Cohort, d: int = 5, noise: float = 1.0, curve: float = 1.0, seed: int = 0
    ) -> None:
        self.cohort, self.layout = cohort, Layout.flat(d)
        self.noise, self.curve, self.seed = noise, curve, seed
        self.optimum = torch.zeros(d, dtype=torch.float64)
        self.optimum[0] = 0.5

    def start(self) -> Tensor:
        return torch.zeros_like(self.optimum)

    def draw(self, t: int) -> Tensor:
        drawn = torch.randn(
            self.n, self.layout.d, dtype=torch.float64, generator=stream(self.seed, "bowl", t)
        )
        return self.noise * drawn / drawn.norm(dim=1, keepdim=True)

    def full(self) -> Tensor:
        return torch.zeros(self.n, self.layout.d, dtype=torch.float64)

    def grads(self, x: Tensor, batch: Tensor) -> Tensor:
        return self.curve * (x - self.optimum).unsqueeze(-2) + batch

    def measure(self, x: Tensor) -> dict[str, float]:
        away = x - self.optimum
        return {"loss": self.curve * float(away @ away) / 2, "grad_norm": self.curve * float(away.norm())}


@dataclass(frozen=True)
class Setup:
    """n workers of which the last f lie, on a bowl of dimension d with noise V, for `last` rounds."""

    n: int = 10
    f: int = 4
    d: int = 5
    last: int = 200
    noise: float = 1.0
    curve: float = 1.0
    lr: float = 0.05

    def run(self, recipe: MethodRecipe, attack: str | Attack = "none", seed: int = 0) -> list[Snapshot]:
        """All rounds of a run."""
        return list(self.play(recipe, attack, seed))

    def play(self, recipe: MethodRecipe, attack: str | Attack, seed: int) -> Iterator[Snapshot]:
        """Its rounds as they come; as a spec would, it tells a recipe f."""
        if getattr(recipe, "f", self.f) is None:
            recipe = replace(cast(Any, recipe), f=self.f)
        task = Bowl(Cohort.of(self.n, self.f), self.d, self.noise, self.curve, seed)
        return play(recipe, Mean(), attack, task, self.n, self.f, self.lr, self.last, seed)
