"""Sweeps: grids of runs that survive anything, in one store."""

from byzopt.experiments.sweeps.running import Plan, Swept, run_sweep, survey
from byzopt.experiments.sweeps.shelf import Shelf, Stored, Unwritable
from byzopt.experiments.sweeps.sweep import Expansion, Refused, Run, Sweep, load_sweep, run_id
from byzopt.experiments.sweeps.tuning import Tune

__all__ = [
    "Expansion",
    "Plan",
    "Refused",
    "Run",
    "Shelf",
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
