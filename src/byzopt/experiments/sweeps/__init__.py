"""Sweeps: grids of runs that survive anything, in one store."""

from byzopt.deprecation import former_names
from byzopt.experiments.store.run_store import RunStore, StoredRun, Unwritable
from byzopt.experiments.sweeps.planning import SweepPlan, plan_sweep
from byzopt.experiments.sweeps.running import SweepResult, run_sweep
from byzopt.experiments.sweeps.runs import Expansion, Run, SkippedPoint, run_id
from byzopt.experiments.sweeps.sweep import Sweep, load_sweep
from byzopt.experiments.sweeps.tuning import Tune

__all__ = [
    "Expansion",
    "Run",
    "RunStore",
    "SkippedPoint",
    "StoredRun",
    "Sweep",
    "SweepPlan",
    "SweepResult",
    "Tune",
    "Unwritable",
    "load_sweep",
    "plan_sweep",
    "run_id",
    "run_sweep",
]

__getattr__ = former_names(__name__, {"survey": plan_sweep})
