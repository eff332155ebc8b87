"""The rules of the benchmark: its cells, its attacks, its seeds, and how a defence is tuned."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from byzopt.errors import require, unknown
from byzopt.experiments.specs.overrides import merge
from byzopt.stress.catalogue import ENSEMBLE, NO_ATTACK

Size = Literal["quick", "core", "full"]
PROTOCOL = "2"  # changes whenever an old figure could not be compared with a new one
ATTACK_SET = "4"  # changes with `ATTACKS`, and when one of them becomes stronger
SEEDS = (0, 1, 2)  # of the figures; the same for all defences and attacks
HELD_OUT = 1000  # the seed of tuning, which no figure has
SETTINGS = 3  # that every defence names and of which one is chosen
DRAWS = 2  # of the lots of a defence that draws some, for each seed
# The loss that a method's server is granted where it needs one: data that no worker has changed.
CLEAN = {"name": "sample", "size": 100}
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")  # of an entry
# Numbers of workers and liars of cells, and before them one in which every rule has room.
SIZES = ((50, 1), (20, 3), (20, 6), (11, 5))
CHEAP = {"budget": "cheap"}
# Without attack first, then by what they cost. Searches are those without the evolution strategy.
ATTACKS: dict[str, Mapping[str, Any]] = {
    NO_ATTACK: {"name": "none"},
    **{
        name: ENSEMBLE[name]
        for name in ("ipm x10", "ipm x0.5", "alie", "mimic", "min-max", "sign flip", "label flip")
    },
    **{
        name: {**ENSEMBLE[name], **CHEAP}
        for name in ("searched: cos", "searched: workers", "searched: shrink")
    },
}
# The entry whose figures without attack are the ceiling and whose time is the unit. It defends against
# nothing, and is tuned without attack.
REFERENCE = "mean"
TUNED_AGAINST = ("ipm x10", "alie", "searched: cos")  # attacks whose worst chooses a defence's setting
PARTITIONS: dict[str, Mapping[str, Any]] = {
    "iid": {"name": "iid"},
    "dirichlet1": {"name": "dirichlet", "alpha": 1.0},
    "dirichlet0.1": {"name": "dirichlet", "alpha": 0.1},
    "contiguous": {"name": "contiguous"},
}


@dataclass(frozen=True)
class TaskRules:
    """What is trained, and by what it is judged.

    A rate of 1 in an entry stands for a step of `length` where the method sets lengths, else for the
    gradient times `multiple`, so that the same rates suit all tasks. `figure` is what a cell's score is made
    of, `tuned_by` what a setting is chosen by: on samples held out of training where the task measures on
    test samples. `floor` is what knowing nothing gives; None: what is measured before the first round.
    """

    title: str
    spec: Mapping[str, Any]
    figure: str
    tuned_by: str
    floor: float | None = None
    length: float = 1.0
    multiple: float = 1.0
    partitions: tuple[str, ...] = ("iid", "dirichlet1", "dirichlet0.1")

    @property
    def rises(self) -> bool:
        """Whether more is better."""
        return self.figure == "accuracy"


# Honest workers share all data, so that no label is lost with the liars; each liar holds an honest one's.
TASKS: dict[str, TaskRules] = {
    "digits": TaskRules(
        "digits, MLP 64-24-10: test accuracy",
        {
            "task": {
                "name": "digits",
                "hidden": [24],
                "batch": 32,
                "validation": 200,
                "byzantine_data": "mirror",
            },
            "rounds": 60,
        },
        "accuracy",
        "validation_accuracy",
        floor=0.1,
        multiple=3.0,
    ),
    "a9a": TaskRules(
        "a9a, logistic regression: gap to the least training loss",
        {
            "task": {
                "name": "logistic_regression",
                "data": "a9a",
                "l2": 0.00056,
                "unit_norm": True,
                "batch": 32,
                "gap": True,
                "byzantine_data": "honest",
            },
            "rounds": 60,
        },
        "gap",
        "gap",
        multiple=10.0,
    ),
    "mnist": TaskRules(
        "MNIST, CNN: test accuracy",
        {
            "task": {
                "name": "mnist",
                "model": "cnn",
                "batch": 32,
                "validation": 2000,
                "byzantine_data": "mirror",
            },
            "rounds": 300,
        },
        "accuracy",
        "validation_accuracy",
        floor=0.1,
        multiple=3.0,
    ),
    "shakespeare": TaskRules(
        "tiny Shakespeare, character transformer: test loss",
        {
            "task": {
                "name": "shakespeare",
                "context": 32,
                "layers": 1,
                "heads": 2,
                "width": 32,
                "dropout": 0.0,
                "batch": 8,
                "eval_samples": 256,
                "validation": 256,
                "byzantine_data": "mirror",
            },
            "rounds": 200,
        },
        "loss",
        "validation_loss",
        partitions=("iid", "contiguous"),
    ),
}


@dataclass(frozen=True, order=True)
class Cell:
    """A task, a way to deal its data, and how many of how many workers lie.

    Args:
        task: One of `TASKS`.
        partition: One of `PARTITIONS`.
        n: Number of workers.
        f: Number of liars, which the server knows.

    Examples:
        >>> from byzopt.benchmark import Cell
        >>> Cell.of("digits-dirichlet0.1-n20-f3").f
        3
    """

    task: str
    partition: str
    n: int
    f: int

    @property
    def name(self) -> str:
        """The name of the cell, `digits-dirichlet0.1-n20-f3`."""
        return f"{self.task}-{self.partition}-n{self.n}-f{self.f}"

    @property
    def rules(self) -> TaskRules:
        """What is trained in the cell, and by what it is judged."""
        return TASKS[self.task]

    @property
    def spec(self) -> dict[str, Any]:
        """What all specs of the cell share."""
        own = {"task": {"partition": dict(PARTITIONS[self.partition])}, "n": self.n, "f": self.f}
        merged = merge(self.rules.spec, own)
        return {**merged, "eval_every": max(1, merged["rounds"] // 50)}

    @property
    def attacks(self) -> dict[str, Mapping[str, Any]]:
        """The attacks of the set, by name."""
        return dict(ATTACKS)

    @classmethod
    def of(cls, name: str) -> Cell:
        """The cell of that name.

        Args:
            name: As `digits-dirichlet0.1-n20-f3`.

        Returns:
            The cell.

        Raises:
            UnknownName: No cell of the full benchmark is called so.
        """
        known = {cell.name: cell for cell in cells("full")}
        if name not in known:
            raise unknown("cell of the benchmark", name, list(known))
        return known[name]


def cells(size: Size) -> tuple[Cell, ...]:
    """The cells of the benchmark, in the order in which they are run.

    Args:
        size: "quick" (one cell), "core", or "full".

    Returns:
        The cells in the order in which they are run.

    Raises:
        InvalidInput: Another size.

    Examples:
        >>> from byzopt.benchmark import cells
        >>> [cell.name for cell in cells("quick")], len(cells("core"))
        (['digits-dirichlet0.1-n20-f3'], 8)
    """
    require(size in ("quick", "core", "full"), "The size", "be quick, core or full", repr(size))
    unlike, alike = "dirichlet0.1", "dirichlet1"
    core = [Cell(task, part, 20, f) for part in (unlike, alike) for f in (3, 6) for task in ("digits", "a9a")]
    if size != "full":
        return tuple(core[:1] if size == "quick" else core)
    dealt = [(task, part) for task in TASKS for part in TASKS[task].partitions]
    every = [Cell(task, part, n, f) for task, part in dealt for n, f in SIZES[1:]]
    return (*core, *(cell for cell in every if cell not in core))


def chosen_cells(names: Sequence[str], size: Size) -> tuple[Cell, ...]:
    """The cells that are named, or without any name those of the size. Errors: `UnknownName`."""
    return tuple(map(Cell.of, names)) or cells(size)
