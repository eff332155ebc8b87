"""Figures of an attack reach the records, whatever attack it is inside of and wherever it acts."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from byzopt.attacks import ATTACKS, CLOCK_ATTACKS, Adversary, Attack, SignFlip, Sleeper
from byzopt.cohort import Cohort
from byzopt.engines import Asynchrony, Graph
from byzopt.experiments import simulate
from byzopt.graphs import Complete
from byzopt.intakes import Unique
from byzopt.mixers import CSPlus
from byzopt.tasks import Quadratic


@dataclass(frozen=True)
class Counted(Attack):
    """Counts the rounds in which it was asked."""

    name: ClassVar[str] = "counted"

    def start(self, cohort: Cohort, x: Tensor) -> tuple[int]:
        return (0,)

    def forge(self, view: Any, generator: torch.Generator) -> Tensor:
        return -view.own

    def step(self, state: Any, view: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        return -view.own, (state[0] + 1,)

    def report(self, state: Any) -> dict[str, float]:
        return {"counted": float(state[0])}


@dataclass(frozen=True)
class Poisoning(Counted):
    """The same, and data poisoning."""

    def poison(self, task: Any, workers: tuple[int, ...]) -> Any:
        return "poisoned", task


def places() -> list[tuple[Attack, str]]:
    """All attacks that are made of another, and the field in which that is."""
    found = []
    for room in (ATTACKS, CLOCK_ATTACKS):
        for name in room:
            recipe: Any = room.build(name)
            found += [
                (recipe, part.name)
                for part in fields(recipe)
                if isinstance(getattr(recipe, part.name), Attack)
            ]
    return found


def test_there_are_such_attacks() -> None:
    assert {part.name for part, _ in places()} >= {
        "limited",
        "sleeper",
        "raw_gradient",
        "shift_back",
        "flooding",
        "late_poison",
    }


@pytest.mark.parametrize(("attack", "where"), places(), ids=lambda one: getattr(one, "name", one))
def test_an_attack_around_another_passes_on_its_figures_and_its_poison(attack: Any, where: str) -> None:
    cohort, rows = Cohort.of(6, byzantine=2), torch.randn(6, 3).double()
    around = replace(attack, **{where: Counted()})
    adversary = Adversary(around, cohort, 2)
    state = adversary.start(rows[0])
    for t in (1, 2, 3):
        seen = (state, t, rows[0], rows, torch.Generator(), lambda rows: rows.mean(dim=0))
        _, state = adversary.forge_rows(*seen)
    assert around.report(state)["counted"] == (0.0 if isinstance(attack, Sleeper) else 3.0)
    if not isinstance(attack, Sleeper):  # which refuses an attack that poisons
        poisoning = Adversary(replace(attack, **{where: Poisoning()}), cohort, 2)
        assert poisoning.poison("task") == ("poisoned", "task")


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"graph": Graph(Complete(), CSPlus())},
        {"asynchrony": Asynchrony(intake=Unique(size=7))},
    ],
    ids=["server", "graph", "clock"],
)
def test_records_hold_the_figures_of_an_attack_everywhere(place: Any) -> None:
    task = Quadratic(d=4).build(Cohort.of(8, byzantine=1), seed=0)
    settings = {"lr": 0.1, "rounds": 4, "f": 1, "method": "robust_gd", "eval_every": 1} | place
    rule = "mean" if "graph" in place else "median"
    outcome = simulate(task, rule, attack=Counted(), **settings)
    counts = [record["counted"] for record in outcome.records[1:]]
    assert counts == sorted(counts)
    assert counts[-1] > 0  # on a clock a lie is made up when its worker is heard
    plain = simulate(task, rule, attack=SignFlip(), **settings)
    assert "counted" not in plain.records[-1]
