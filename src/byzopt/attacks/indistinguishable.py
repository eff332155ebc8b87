"""The adversary of the lower bounds: messages that could be honest ones of the opposite problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View
from byzopt.errors import InvalidInput, require


@ATTACKS.register("indistinguishable")
@dataclass(frozen=True)
class Indistinguishable(Attack):
    """Sends what makes both signs of `hard_lin` and `hard_quad` look alike over the run's `rounds`.

    Each liar's mean message is drawn from Q ∝ (p_other - p_own)₊. When every worker lies with probability
    a' = TV/(1 + TV) (`theory.byzantine_limits.fraction`), all messages have one law whatever the sign, and
    every rule is right half the time, for every n. The data are poisoned: rows are sent as they are.
    Source: rebuilt from arXiv:1803.08917, Theorems 4.3 and 4.4. Errors: other tasks.

    Args:
        rounds: Length of the run.

    Raises:
        InvalidInput: A task that is neither `hard_lin` nor `hard_quad`.

    Examples:
        >>> from byzopt import Cohort, HardLin, Indistinguishable, simulate
        >>> task = HardLin().build(Cohort.of(10, 4), seed=0)
        >>> attack = Indistinguishable(rounds=5)
        >>> simulate(task, "median", lr=0.1, rounds=5, f=4, attack=attack).status.value
        'completed'
    """

    rounds: int = 1000
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own"})
    batched = True

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "Parameter `rounds` of indistinguishable", "be at least 1", self.rounds)

    def poison(self, task: Any, workers: tuple[int, ...]) -> Any:
        if not hasattr(task, "mirrored"):
            raise InvalidInput(
                f"The attack indistinguishable needs a task with a secret sign. Found {type(task).__name__}. "
                "Use hard_lin or hard_quad, or another attack."
            )
        return task.mirrored(workers, self.rounds)

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.own
