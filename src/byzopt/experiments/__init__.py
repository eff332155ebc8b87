"""Specs, presets, runs and their records."""

from byzopt.experiments.running import Result, run, simulate
from byzopt.experiments.specs.loading import load
from byzopt.experiments.specs.spec import MAIN, Spec
from byzopt.experiments.store.table import runs_table
from byzopt.experiments.trials.outcome import Outcome, Record

__all__ = ["MAIN", "Outcome", "Record", "Result", "Spec", "load", "run", "runs_table", "simulate"]
