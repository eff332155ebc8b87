"""Threat models: any attack by attackers who know less than everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from byzopt.attacks.adaptive import AutoByz
from byzopt.attacks.base import ATTACKS, Attack, Knowledge, Remembering, State, View
from byzopt.cohort import Cohort
from byzopt.linalg import compute_dtype

Threat: TypeAlias = Literal["omniscient", "no_rule", "own_data", "one_round_late"]


class LimitedState(NamedTuple):
    """The honest rows `[h, d]` of the round before, and the state of the attack inside."""

    last: Tensor
    attack: State


@ATTACKS.register("limited")
@dataclass(frozen=True)
class Limited(Remembering):
    """`attack` by attackers who know what `threat` says. What they may not know is not handed to them.

    `"omniscient"`: this round's honest rows, and the server's rule as it stands: what an attack declares in
    `knows`. `"no_rule"`: the honest rows, but not the rule: in its place two common ones, the coordinate-wise
    median and the mean of the n - f rows nearest to the medoid. `"own_data"`: only what the faulty workers
    would send if they were honest, which stands for every honest row, in turn; no rule. `"one_round_late"`:
    the rule, and the honest rows of the round before; in round 1 as with `"own_data"`.

    Poisons data as `attack` does.

    Args:
        attack: The attack. Default: the searched one.
        threat: What it may know.

    Examples:
        >>> from byzopt.attacks import ATTACKS
        >>> ATTACKS.build({"name": "limited", "attack": "alie", "threat": "own_data"}).attack.name
        'alie'
    """

    attack: Attack = field(default_factory=AutoByz)
    threat: Threat = "no_rule"
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own", "honest", "defence", "loss"})

    @property
    def searches(self) -> bool:
        return self.attack.searches and self.threat in ("omniscient", "one_round_late")

    def poison(self, task: Any, workers: tuple[int, ...]) -> Any:
        return self.attack.poison(task, workers)

    def start(self, cohort: Cohort, x: Tensor) -> LimitedState:
        shape = (len(cohort.honest) if self.threat == "one_round_late" else 0, x.numel())
        last = torch.zeros(shape, dtype=compute_dtype(x.dtype), device=x.device)
        return LimitedState(last, self.attack.start(cohort, x))

    def report(self, state: LimitedState) -> dict[str, float]:
        """As of the attack inside."""
        return self.attack.report(state.attack)

    def step(
        self, state: LimitedState, view: View, generator: torch.Generator
    ) -> tuple[Tensor, LimitedState]:
        late = self.threat == "one_round_late"
        known = state.last if late and view.t > 1 else self._known(view)
        defence = view.defence if late or self.threat == "omniscient" else GuessedRules(view.f)
        inside = view.believing(known, self.attack.knows, defence)
        forged, memory = self.attack.step(state.attack, inside, generator)
        return forged, LimitedState(view.honest if late else state.last, memory)

    def _known(self, view: View) -> Tensor:
        """The honest rows `[h, d]` that the attackers believe in."""
        if self.threat in ("omniscient", "no_rule"):
            return view.honest
        own = view.own
        return own[torch.arange(len(view.cohort.honest), device=own.device) % len(own)]


@dataclass(frozen=True)
class GuessedRules:
    """Rules that attackers take for likely who do not know the server's; `f` is what it tolerates."""

    f: int

    def __call__(self, rows: Tensor) -> Tensor:
        """The first guess, for attacks that ask one defence: `[n, d]` to `[d]`."""
        return _near_medoid(rows, self.f)

    def draws(self) -> list[Callable[[Tensor], Tensor]]:
        """All guesses, for attacks that average over what they do not know."""
        return [_median, self]


def _median(rows: Tensor) -> Tensor:
    ordered, n = rows.sort(dim=-2).values, rows.shape[-2]  # `quantile` takes no more than 16 million numbers
    return (ordered[..., (n - 1) // 2, :] + ordered[..., n // 2, :]) / 2


def _near_medoid(rows: Tensor, f: int) -> Tensor:
    distances = torch.cdist(rows, rows)
    nearest = distances[distances.sum(dim=1).argmin()].argsort(stable=True)[: max(len(rows) - f, 1)]
    return rows[nearest].mean(dim=0)
