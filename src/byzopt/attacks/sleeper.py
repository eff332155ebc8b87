"""An attack that waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, Remembering, State, View
from byzopt.attacks.flips import SignFlip
from byzopt.cohort import Cohort
from byzopt.errors import require


@ATTACKS.register("sleeper")
@dataclass(frozen=True)
class Sleeper(Remembering):
    """The own message for `until` rounds, then `attack`, which counts its rounds from 1 when it wakes.

    It sees no more than it declares itself. Errors: an attack that poisons data, which cannot wait.

    Args:
        attack: What is done after waking.
        until: Number of honest rounds.

    Raises:
        InvalidInput: An attack that poisons data, which cannot wait.

    Examples:
        >>> import torch
        >>> from byzopt import BitFlip, Sleeper
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> sleeper = Sleeper(attack=BitFlip(), until=50)
        >>> sleeper(rows, byzantine=1, t=50)[1], sleeper(rows, byzantine=1, t=51)[1]
        (tensor([3., 4.]), tensor([-3., -4.]))
    """

    attack: Attack = field(default_factory=SignFlip)
    until: int = 50
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own", "honest", "defence", "loss"})

    def __post_init__(self) -> None:
        require(self.until >= 0, "Parameter `until` of sleeper", "be at least 0", self.until)
        poisons = type(self.attack).poison is not Attack.poison
        require(
            not poisons,
            "The attack inside a sleeper",
            "forge rows",
            f"one that poisons data, {type(self.attack).__name__}",
        )

    def start(self, cohort: Cohort, x: Tensor) -> State:
        return self.attack.start(cohort, x)

    def report(self, state: State) -> dict[str, float]:
        """As of the attack inside."""
        return self.attack.report(state)

    def step(self, state: State, view: View, generator: torch.Generator) -> tuple[Tensor, Any]:
        if view.t <= self.until:
            return view.own, state
        return self.attack.step(state, view.since(self.until, self.attack.knows), generator)
