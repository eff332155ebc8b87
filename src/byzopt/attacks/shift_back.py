"""The attack on samples: back to the start where most of a sample lie, another attack where they do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View
from byzopt.attacks.little import ALIE
from byzopt.cohort import Cohort
from byzopt.errors import require


class ShiftBackState(NamedTuple):
    """The point of round 1, `[d]`, the rounds so far, the other attack's state, and rounds shifted back."""

    start: Tensor
    k: int
    attack: Any
    backs: int = 0


@ATTACKS.register("shift_back")
@dataclass(frozen=True)
class ShiftBack(Attack):
    """`scale` (x - x_0) from every liar where more of those who take part lie than not, else `otherwise`.

    With `at_half` also where as many lie as do not, which no rule can tell either. The figure `shifted_back`
    counts these rounds. Poisons data as `otherwise` does.

    A server that believes them steps back towards the start: by all the way where `scale` is one over its
    step. With everybody present it is `otherwise` alone. Source: Malinovsky et al., arXiv:2311.14127,
    Section 5 (their lies make up what is missing for x_0; here the direction, scaled).

    Args:
        scale: Factor of x - x_0 in rounds with a majority of liars, > 0.
        otherwise: What liars send in other rounds.
        at_half: Whether half of those who take part are enough.

    Examples:
        >>> import torch
        >>> from byzopt import ShiftBack, SignFlip
        >>> rows = torch.tensor([[1.0], [2.0], [3.0]])
        >>> ShiftBack(otherwise=SignFlip())(rows, byzantine=1)  # liars are no majority
        tensor([[ 1.0000],
                [ 2.0000],
                [-1.5000]])
    """

    scale: float = 10.0
    otherwise: Attack = ALIE()
    at_half: bool = False
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own", "honest", "defence", "loss"})

    def __post_init__(self) -> None:
        require(self.scale > 0, "Parameter `scale` of shift_back", "be positive", self.scale)

    @property
    def indexed(self) -> bool:  # type: ignore[override]
        """As of the other attack."""
        return self.otherwise.indexed

    def poison(self, task: Any, workers: tuple[int, ...]) -> Any:
        return self.otherwise.poison(task, workers)

    def start(self, cohort: Cohort, x: Tensor) -> ShiftBackState:
        return ShiftBackState(x, 0, self.otherwise.start(cohort, x))

    def report(self, state: ShiftBackState) -> dict[str, float]:
        """`shifted_back`: rounds so far in which liars shifted back; and what the other attack reports."""
        return self.otherwise.report(state.attack) | {"shifted_back": float(state.backs)}

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return self.step(self.start(view.cohort, view.x), view, generator)[0]

    def step(
        self, state: ShiftBackState, view: View, generator: torch.Generator
    ) -> tuple[Tensor, ShiftBackState]:
        if _most_lie(view, self.at_half):
            back = view.alike(self.scale * (view.x - state.start))
            return back, state._replace(k=state.k + 1, backs=state.backs + 1)
        inside = view.since(0, self.otherwise.knows)
        forged, after = self.otherwise.step(state.attack, inside, generator)
        return forged, state._replace(k=state.k + 1, attack=after)


def _most_lie(view: View, at_half: bool) -> bool:
    if view.present is None:
        return False
    liars = int(view.present[list(view.cohort.byzantine)].sum())
    return 2 * liars > int(view.present.sum()) - at_half
