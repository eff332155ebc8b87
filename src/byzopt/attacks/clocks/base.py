"""What an attack on a clock is: another attack for what is said, and a choice of when."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from byzopt.attacks.base import Attack, Knowledge, View
from byzopt.cohort import Cohort
from byzopt.registry import Registry


class ClockAttack(Attack):
    """A recipe that says when liars answer, and by another attack, `rows`, what.

    Where there is no clock there is no time to choose, and it is refused.

    Examples:
        >>> from byzopt.attacks import CLOCK_ATTACKS, ClockAttack
        >>> isinstance(CLOCK_ATTACKS.build("flooding"), ClockAttack)
        True
    """

    rows: Attack
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own", "honest", "defence", "loss"})

    @abstractmethod
    def pace(self, fastest: float, slowest: float) -> float:
        """How long a liar takes for an answer, beside the mean times of the fastest and the slowest honest
        worker; infinite: it never answers."""

    @property
    def indexed(self) -> bool:  # type: ignore[override]
        """As of the other attack."""
        return self.rows.indexed

    @property
    def finite(self) -> bool:  # type: ignore[override]
        """As of the other attack."""
        return self.rows.finite

    def poison(self, task: Any, workers: tuple[int, ...]) -> Any:
        return self.rows.poison(task, workers)

    def start(self, cohort: Cohort, x: Tensor) -> Any:
        return self.rows.start(cohort, x)

    def report(self, state: Any) -> dict[str, float]:
        """As of the other attack."""
        return self.rows.report(state)

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return self.rows.forge(view.since(0, self.rows.knows), generator)

    def step(self, state: Any, view: View, generator: torch.Generator) -> tuple[Tensor, Any]:
        return self.rows.step(state, view.since(0, self.rows.knows), generator)


CLOCK_ATTACKS: Registry[ClockAttack] = Registry("clock attack", ClockAttack)
