"""Trainings on digits under attacks of `byzopt stress`, stored as they end: what two benchmarks share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from textwrap import fill
from typing import Any, NamedTuple

from byzopt.experiments import load
from byzopt.experiments.sweeps import RunStore
from byzopt.stress import stress
from byzopt.stress.verdict import tail_mean

USUAL = ("rounds=300", "eval_every=6", "task.byzantine_data=all")
CELLS = {  # by name: what is set in the spec
    "Dirichlet 0.1, f = 3": ("task.partition={name='dirichlet', alpha=0.1}", "f=3"),
    "Dirichlet 0.1, f = 6": ("task.partition={name='dirichlet', alpha=0.1}", "f=6"),
    "Dirichlet 1, f = 3": ("task.partition={name='dirichlet', alpha=1.0}", "f=3"),
    "Dirichlet 1, f = 6": ("task.partition={name='dirichlet', alpha=1.0}", "f=6"),
}


def prose(*pieces: str) -> str:
    """One paragraph of a page."""
    return fill(" ".join(pieces), 120, break_long_words=False, break_on_hyphens=False)


class Measurement(NamedTuple):
    """A candidate, with its settings, in a cell, under `attacks`, on `seeds` seeds from `first`."""

    stage: str
    cell: str
    candidate: str
    settings: tuple[str, ...]
    attacks: tuple[str, ...]
    first: int
    seeds: int


def measured(one: Measurement, store: Path, over: Callable[[], bool]) -> list[dict[str, Any]]:
    """The trials of a measurement: by attack the figure of each seed, and how much honest rows differed."""
    settings = [*USUAL, *CELLS[one.cell], *one.settings, f"seed={one.first}"]
    spec = load("byz-nsgdm/digits", settings, compare=False)
    result = stress(spec, store, attacks=one.attacks, seeds=one.seeds, stopped=over)
    kept, out = RunStore(store), []
    for trial in result.trials:
        outcomes = [kept.read_outcome(run) for run in trial.runs]
        ratios = [h for _, h in trial.apart]
        out.append(
            {
                "stage": one.stage,
                "cell": one.cell,
                "candidate": one.candidate,
                "attack": trial.attack,
                "seeds": [one.first + k for k in range(one.seeds)],
                "values": [tail_mean(outcome, trial.figure) for outcome in outcomes],
                "status": trial.status,
                "h": median(ratios) if ratios else None,
                "seconds": fmean(outcome.seconds for outcome in outcomes),
                "runs": list(trial.runs),
            }
        )
    return out
