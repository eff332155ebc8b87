"""Running a reproduction: its sweeps, as far as they are not stored, and its table from the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

from byzopt.experiments.running import prepared
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.store.run_store import Shelf
from byzopt.experiments.sweeps import Plan, Swept, run_sweep, survey
from byzopt.experiments.sweeps.runs import run_id
from byzopt.experiments.trials.outcome import Outcome, Progress, usable
from byzopt.experiments.trials.trial import Trial
from byzopt.reproductions.fits import Fitted, fitted
from byzopt.reproductions.reproduction import Cell, Measure, Part, Reproduction
from byzopt.reproductions.verdict import Line, judged

PROBE = 2.0  # seconds of rounds that an estimate is made from


@dataclass(frozen=True)
class Found:
    """A stored run of a cell: its seed, its id, its spec, how it ended."""

    seed: int
    run: str
    spec: Spec
    outcome: Outcome


@dataclass(frozen=True)
class Account:
    """What a store holds of a reproduction: each cell's runs by part, the lines of its tables, the fits."""

    reproduction: Reproduction
    found: dict[tuple[str, str, tuple[str, ...]], list[Found]]
    lines: tuple[Line, ...]
    fitted: tuple[Fitted, ...] = ()

    def of(self, part: Part, cell: Cell) -> list[Found]:
        """The stored runs of a cell."""
        return self.found[part.name, part.protocol, cell.at]


def plans(reproduction: Reproduction, store: str | Path, retry: bool = False) -> list[Plan]:
    """What would run, part by part; nothing is written."""
    return [survey(part.sweep, store, retry) for part in reproduction.parts]


def play(plan: Plan, **options: Any) -> Swept:
    """Run what a part lacks; the same call goes on after an interruption. Options: see `run_sweep`."""
    return run_sweep(plan, plan.shelf.root, **options)


def account(reproduction: Reproduction, store: str | Path) -> Account:
    """The tables of a reproduction, made from stored runs alone."""
    shelf = Shelf(Path(store))
    found, lines, fits = {}, list[Line](), list[Fitted]()
    for part in reproduction.parts:
        specs = _specs(part)
        for cell in part.cells:
            own = [(seed, spec := specs[cell.at, seed], run_id(spec)) for seed in part.seeds]
            here = [
                Found(seed, run, spec, shelf.outcome(run))
                for seed, spec, run in own
                if shelf.look(run).kind in ("whole", "failed")
            ]
            found[part.name, part.protocol, cell.at] = here
            for measure in part.measures:
                values = {one.seed: measured(measure, one.outcome) for one in here}
                lines.append(judged(part, cell, measure, values, len(part.seeds) - len(here)))
        told = [line for line in lines if line.part is part]
        fits += [one for fit in part.fits for one in fitted(part, fit, told)]
    return Account(reproduction, found, tuple(lines), tuple(fits))


def measured(measure: Measure, outcome: Outcome) -> float | None:
    """A measure of a run, in its unit; None where the run failed or never had it."""
    series = [(r["t"], r[measure.figure]) for r in outcome.records if measure.figure in r]
    if outcome.status.failed or not series or not all(usable(value) for _, value in series):
        return None
    match measure.how:
        case "final":
            value: float | None = series[-1][1]
        case "tail":
            value = fmean(value for _, value in series[-int(measure.at) :])
        case "least":
            value = min(value for _, value in series)
        case "at":
            value = next((value for t, value in series if t == measure.at), None)
        case "first_below":
            value = next((t for t, value in series if value <= measure.at), None)
    return measure.scale * value if value is not None and isfinite(value) else None


def seconds_left(plan: Plan, clock: Callable[[], float] = perf_counter) -> float:
    """About how long a part's missing runs take on one core: from a few timed rounds of the first one.

    Runs that advance as one batch take less.
    """
    missing = [intent.run.spec for intent in plan.intents if intent.play]
    if not missing:
        return 0.0
    a_round, a_look = _timed(missing[0], clock)
    return sum(spec.rounds * a_round + spec.rounds // spec.interval * a_look for spec in missing)


def _timed(spec: Spec, clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds for a round and for a measurement."""
    ready = prepared(spec, {})
    ready.task.measure(ready.task.start())  # may solve for an optimum, once
    began = clock()
    ready.task.measure(ready.task.start())
    a_look, began = clock() - began, clock()
    trial = Trial(ready, Progress(ready.start), lambda record: None)
    outcome = trial.run(lambda t: t > 1 and clock() - began > PROBE)  # round 1 was computed before
    looks = len(outcome.records)
    return max(clock() - began - looks * a_look, 0.0) / max(outcome.rounds - 1, 1), a_look


def _specs(part: Part) -> dict[tuple[tuple[str, ...], int], Spec]:
    """The spec of every cell and seed."""
    places = [(cell.at, seed) for cell in part.cells for seed in part.seeds]
    return dict(zip(places, part.sweep.specs(), strict=True))
