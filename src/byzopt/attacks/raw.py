"""Byzantine workers without momentum of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, Remembering, State, View
from byzopt.attacks.flips import BitFlip
from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.linalg import compute_dtype


class RawState(NamedTuple):
    """The last own messages `[b, d]`, and the state of the attack inside."""

    last: Tensor
    attack: State


@ATTACKS.register("raw_gradient")
@dataclass(frozen=True)
class RawGradient(Remembering):
    """`attack` by workers whose own messages are gradients, while honest ones send heavy balls.

    A Byzantine worker's message v_j^t = (1 - η) v_j^{t-1} + g_j^t is turned back into g_j^t before `attack`
    sees it as its own; `eta` has to be the method's, with `momentum = "heavy_ball"`. Poisons data as `attack`
    does. Source: the MNIST script of the code released with arXiv:2603.12512, whose bit and label flips send
    raw gradients, about 1/η times shorter than the honest rows.

    Args:
        attack: What is done to the raw gradient.
        eta: Weight η of the new gradient in the method's momentum.

    Examples:
        >>> import torch
        >>> from byzopt import BitFlip, RawGradient
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> RawGradient(attack=BitFlip(), eta=0.1)(rows, byzantine=1)[1]  # round 1: messages are gradients
        tensor([-3., -4.])
    """

    attack: Attack = field(default_factory=BitFlip)
    eta: float = 0.1
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own", "honest", "defence", "loss"})

    def __post_init__(self) -> None:
        require(0 < self.eta <= 1, "Parameter `eta` of raw_gradient", "lie in (0, 1]", self.eta)

    def poison(self, task: Any, workers: tuple[int, ...]) -> Any:
        return self.attack.poison(task, workers)

    def start(self, cohort: Cohort, x: Tensor) -> RawState:
        shape = (len(cohort.byzantine), x.numel())
        last = torch.zeros(shape, dtype=compute_dtype(x.dtype), device=x.device)
        return RawState(last, self.attack.start(cohort, x))

    def report(self, state: RawState) -> dict[str, float]:
        """As of the attack inside."""
        return self.attack.report(state.attack)

    def step(self, state: RawState, view: View, generator: torch.Generator) -> tuple[Tensor, RawState]:
        own = view.own
        inside = view.owning(own - (1 - self.eta) * state.last, self.attack.knows)
        forged, memory = self.attack.step(state.attack, inside, generator)
        return forged, RawState(own, memory)
