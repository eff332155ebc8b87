"""Tuning on a grid: which settings a sweep chooses, by a rule stated beforehand, never on test figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import msgspec

from byzopt.errors import InvalidInput, require
from byzopt.experiments.specs.spec import RISING
from byzopt.experiments.store.reading import parse_json
from byzopt.experiments.sweeps.runs import Run
from byzopt.experiments.trials.outcome import Outcome, has_finite_square
from byzopt.files import read

NOTE = "tuned.json"  # where a sweep's choice is recorded
MOST = 1 << 26  # bytes of it
PREFIX = "validation_"  # of figures on samples held out for choosing


@dataclass(frozen=True)
class Tune:
    """What a sweep chooses, and how.

    `choose` names axes of the grid (`lr`, `method.eta`). One setting of them is chosen in every cell of the
    other axes, by the final `figure` (larger is better for accuracies, smaller for all others):

    - "best_mean": the best mean over seeds; a cell for each combination of the axes but `choose` and `seed`.
    - "best_final": the setting of the single best run; the same cells.
    - "best_worst_case": the best of the worst means over all attacks, as a defender must choose who does not
      know the attack; the axes of the attack (`attack`, `attack...`, `attackers`) make no cells either.

    A run that failed or has no figure counts as the worst; where every setting has such a run, none is
    chosen. Equal settings: the earlier in the grid.

    Choosing on test figures is refused. Where a task holds test samples out, `figure` must be one on its
    validation samples (`validation_accuracy`, with `task.validation` set); a task that has no validation
    samples to hold out needs `test_figures = true`, which the record of the choice repeats. A task of one's
    own is taken to measure on test samples unless its class says `tested = False`.
    """

    choose: tuple[str, ...]
    figure: str
    by: Literal["best_final", "best_mean", "best_worst_case"] = "best_mean"
    test_figures: bool = False

    def check(self, runs: Sequence[Run]) -> None:
        """Errors: `InvalidInput` for what is no axis, and for a choice on test figures."""
        require(bool(self.choose), "`tune.choose`", "name an axis of the grid", "none")
        axes = list(runs[0].point)
        for name in self.choose:
            require(
                name in axes, "`tune.choose`", "name axes of the grid", name, f"Known: {', '.join(axes)}."
            )
        require("seed" not in self.choose, "`tune.choose`", "leave the seed out", "seed")
        for run in runs:
            self._allowed(run)

    def _allowed(self, run: Run) -> None:
        task = run.spec.task
        if not task.tested or (self.figure.startswith(PREFIX) and bool(getattr(task, "validation", 0))):
            return
        can = hasattr(task, "validation")
        if can or not self.test_figures:
            remedy = (
                f"Set spec.task.validation and tune on {PREFIX}accuracy or {PREFIX}loss."
                if can
                else "The task has no validation samples; test_figures = true chooses on test figures. If it "
                "has no test samples either, its class should say so: `tested: ClassVar[bool] = False`."
            )
            raise InvalidInput(
                f"Tuning should choose on validation samples. Found the figure {self.figure!r} of task "
                f"{task.name!r} at {run.point}. {remedy}"
            )

    def pick(self, ended: Mapping[str, Outcome], runs: Sequence[Run]) -> dict[str, Any]:
        """What is chosen, in every cell, and from which runs: plain data. `ended` are outcomes by run id."""
        hidden = {*self.choose, "seed"}
        cells: dict[str, list[Run]] = {}
        for run in runs:
            about = {p: v for p, v in run.point.items() if p not in hidden and not self._pooled(p)}
            cells.setdefault(_key(about), []).append(run)
        rule = {"by": self.by, "figure": self.figure, "choose": list(self.choose)}
        on_test = self.test_figures and any(run.spec.task.tested for run in runs)
        return rule | {"on_test_figures": on_test, "cells": [self._cell(c, ended) for c in cells.values()]}

    def _pooled(self, path: str) -> bool:
        return self.by == "best_worst_case" and (path == "attackers" or path.split(".")[0] == "attack")

    def _cell(self, runs: Sequence[Run], ended: Mapping[str, Outcome]) -> dict[str, Any]:
        settings: dict[str, list[Run]] = {}
        for run in runs:
            settings.setdefault(_key(self._chosen(run)), []).append(run)
        scored: list[dict[str, Any]] = [
            {
                "setting": self._chosen(same[0]),
                "score": _number(self._score(same, ended)),
                "runs": [run.id for run in same],
            }
            for same in settings.values()
        ]
        best = max(range(len(scored)), key=lambda i: (_worth(scored[i]["score"], self._rises), -i))
        hidden = {*self.choose, "seed"}
        about = {p: v for p, v in runs[0].point.items() if p not in hidden and not self._pooled(p)}
        score = scored[best]["score"]
        chosen = None if score is None else scored[best]["setting"]
        return {"cell": about, "chosen": chosen, "score": score, "settings": scored}

    def _chosen(self, run: Run) -> dict[str, Any]:
        return {path: run.point[path] for path in self.choose}

    def _score(self, runs: Sequence[Run], ended: Mapping[str, Outcome]) -> float:
        worst, best = (min, max) if self._rises else (max, min)
        finals = [self._final(run, ended) for run in runs]
        if self.by == "best_final":
            return best(finals)
        if self.by == "best_mean":
            return fmean(finals)
        attacks: dict[str, list[float]] = {}
        for run, final in zip(runs, finals, strict=True):
            attacks.setdefault(_key({p: v for p, v in run.point.items() if self._pooled(p)}), []).append(
                final
            )
        return worst(fmean(values) for values in attacks.values())

    def _final(self, run: Run, ended: Mapping[str, Outcome]) -> float:
        outcome = ended[run.id]
        value = outcome.metrics.get(self.figure)
        if outcome.status.failed or value is None or not has_finite_square(value):
            return -inf if self._rises else inf
        return value

    @property
    def _rises(self) -> bool:
        return self.figure.removeprefix(PREFIX) in RISING


class ChosenCell(msgspec.Struct):
    """One cell of a recorded choice: where it is, what was chosen, by which score, out of which settings."""

    cell: dict[str, Any]
    chosen: dict[str, Any] | None
    score: float | None
    settings: list[dict[str, Any]]


class Choice(msgspec.Struct):
    """A choice as `Tune.pick` records it."""

    by: str
    figure: str
    choose: list[str]
    on_test_figures: bool
    cells: list[ChosenCell]


def read_choices(store: Path) -> tuple[dict[str, Choice], dict[str, str]]:
    """The choices of a store's sweeps by the name of their folder, and what is wrong with those that are not
    as they were written."""
    choices, damaged = {}, {}
    for path in sorted((store / "sweeps").glob(f"*/{NOTE}")):
        try:
            choice = parse_json(read(path, MOST), Choice)
            for one in choice.cells:
                fits = one.chosen is None or set(choice.choose) <= one.chosen.keys()
                require(fits, "A choice", f"name {', '.join(choice.choose)}", list(one.chosen or ()))
            choices[path.parent.name] = choice
        except (InvalidInput, OSError, ValueError) as error:
            damaged[f"sweeps/{path.parent.name}/{NOTE}"] = " ".join(str(error).split())
    return choices, damaged


def _worth(score: float | None, rises: bool) -> float:
    return -inf if score is None else score if rises else -score


def _number(score: float) -> float | None:
    """JSON has no infinity: None is a setting that failed."""
    return score if isfinite(score) else None


def _key(data: Any) -> str:
    return json.dumps(data, sort_keys=True)
