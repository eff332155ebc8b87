"""Running a reproduction: the part of its sweeps that is not stored, and its tables from the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import fmean
from time import perf_counter

from byzopt.experiments.running import prepare_spec
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.store.run_store import RunStore
from byzopt.experiments.sweeps import SweepPlan, plan_sweep
from byzopt.experiments.sweeps.runs import run_id
from byzopt.experiments.trials.outcome import Outcome, RunProgress, has_finite_square
from byzopt.experiments.trials.trial import Trial
from byzopt.reproductions.fits import FittedValue, fit_values
from byzopt.reproductions.reproduction import Cell, Part, Reproduction, TableMeasure
from byzopt.reproductions.verdict import ComparedCell, compare_cell

PROBE = 2.0  # seconds of rounds that an estimate is made from


@dataclass(frozen=True)
class CellRun:
    """A stored run of a cell: its seed, its id, its spec, how it ended."""

    seed: int
    run: str
    spec: Spec
    outcome: Outcome


@dataclass(frozen=True)
class ReproducedTables:
    """What a store holds of a reproduction: each cell's runs by part, the lines of its tables, the fits."""

    reproduction: Reproduction
    found: dict[tuple[str, str, tuple[str, ...]], list[CellRun]]
    lines: tuple[ComparedCell, ...]
    fitted: tuple[FittedValue, ...] = ()

    def of(self, part: Part, cell: Cell) -> list[CellRun]:
        """The stored runs of a cell."""
        return self.found[part.name, part.protocol, cell.at]


def plan_parts(reproduction: Reproduction, store: str | Path, retry: bool = False) -> list[SweepPlan]:
    """What would run, part by part; nothing is written."""
    return [plan_sweep(part.sweep, store, retry) for part in reproduction.parts]


def collect_tables(reproduction: Reproduction, store: str | Path) -> ReproducedTables:
    """The tables of a reproduction, made from stored runs alone."""
    run_store = RunStore(Path(store))
    runs_by_part, lines, fits = {}, list[ComparedCell](), list[FittedValue]()
    for part in reproduction.parts:
        specs = _specs(part)
        for cell in part.cells:
            wanted = [(seed, spec := specs[cell.at, seed], run_id(spec)) for seed in part.seeds]
            here = [
                CellRun(seed, run, spec, run_store.read_outcome(run))
                for seed, spec, run in wanted
                if run_store.inspect(run).kind in ("whole", "failed")
            ]
            runs_by_part[part.name, part.protocol, cell.at] = here
            for measure in part.measures:
                values = {one.seed: measured_value(measure, one.outcome) for one in here}
                lines.append(compare_cell(part, cell, measure, values, len(part.seeds) - len(here)))
        of_part = [line for line in lines if line.part is part]
        fits += [one for fit in part.fits for one in fit_values(part, fit, of_part)]
    return ReproducedTables(reproduction, runs_by_part, tuple(lines), tuple(fits))


def measured_value(measure: TableMeasure, outcome: Outcome) -> float | None:
    """A measure of a run, in its unit; None where the run failed or never had it."""
    series = [(r["t"], r[measure.figure]) for r in outcome.records if measure.figure in r]
    if outcome.status.failed or not series or not all(has_finite_square(value) for _, value in series):
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


def seconds_left(plan: SweepPlan, clock: Callable[[], float] = perf_counter) -> float:
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
    ready = prepare_spec(spec, {})
    ready.task.measure(ready.task.start())  # may solve for an optimum, once
    began = clock()
    ready.task.measure(ready.task.start())
    a_look, began = clock() - began, clock()
    trial = Trial(ready, RunProgress(ready.start), lambda record: None)
    outcome = trial.run(lambda t: t > 1 and clock() - began > PROBE)  # round 1 was computed before
    looks = len(outcome.records)
    return max(clock() - began - looks * a_look, 0.0) / max(outcome.rounds - 1, 1), a_look


def _specs(part: Part) -> dict[tuple[tuple[str, ...], int], Spec]:
    """The spec of every cell and seed."""
    places = [(cell.at, seed) for cell in part.cells for seed in part.seeds]
    return dict(zip(places, part.sweep.specs(), strict=True))
