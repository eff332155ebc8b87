"""Sweeps: grids of runs that survive anything, in one store."""

from byzopt.experiments.store.run_store import Shelf, Stored, Unwritable
from byzopt.experiments.sweeps.running import Plan, Swept, run_sweep, survey
from byzopt.experiments.sweeps.runs import Expansion, Run, SkippedPoint, run_id
from byzopt.experiments.sweeps.sweep import Sweep, load_sweep
from byzopt.experiments.sweeps.tuning import Tune

__all__ = [
    "Expansion",
    "Plan",
    "Run",
    "Shelf",
    "SkippedPoint",
    "Stored",
    "Sweep",
    "Swept",
    "Tune",
    "Unwritable",
    "load_sweep",
    "run_id",
    "run_sweep",
    "survey",
]
