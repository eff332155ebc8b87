"""Specs, presets, runs and their records."""

from byzopt.experiments.result import Result
from byzopt.experiments.running import run, simulate
from byzopt.experiments.specs.loading import load
from byzopt.experiments.specs.spec import MAIN, Spec
from byzopt.experiments.store.table import runs_table
from byzopt.experiments.trials.outcome import Outcome, Record

__all__ = ["MAIN", "Outcome", "Record", "Result", "Spec", "load", "run", "runs_table", "simulate"]
