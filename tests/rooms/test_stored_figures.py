"""Figures in files: which are stored, how many, and who reads them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from byzopt.errors import InvalidInput
from byzopt.experiments import Spec, run
from byzopt.experiments.store.table import rows
from byzopt.experiments.sweeps import run_sweep
from tests.sealed import SPEC, SWEEP

READ = """
import sys
from byzopt.parquet import Limits, read, write
raw = write([{"variant": "main", "t": t, "loss": 0.5} for t in range(100)], "variant", "t")
assert len(read(raw, "variant", "t", Limits(100, 1000, ["main"]))["loss"]) == 100
"""


@pytest.mark.parametrize("times", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_reading_a_table_never_ends_the_interpreter_badly(times):
    """`pyarrow.parquet.read_table` on a file object did, about once in twenty calls."""
    root = str(Path(__file__).resolve().parents[2] / "src")
    for _ in range(times):
        several = [
            subprocess.Popen([sys.executable, "-c", READ], env={**os.environ, "PYTHONPATH": root})
            for _ in range(4)
        ]
        assert [one.wait(60) for one in several] == [0] * 4


def test_nothing_else_reads_parquet():
    root = Path(__file__).resolve().parents[2]
    own = {root / "src" / "byzopt" / "parquet.py", Path(__file__)}
    for folder in ("src", "tests", "scripts", "benchmarks", "examples"):
        for path in (root / folder).rglob("*.py"):
            assert path in own or "read_table(" not in path.read_text(), path


def test_a_run_of_more_records_than_are_read_is_refused_before_it_starts(tmp_path, monkeypatch):
    more = {"rounds": 700_000, "eval_every": 1}
    Spec.of(SPEC | more)
    with pytest.raises(InvalidInput, match=r"at most 1,000,000 records\. Found 1,400,000 with its variants"):
        Spec.of(SPEC | more | {"compare": {"mean": {"rule": "mean"}}})
    monkeypatch.setattr("byzopt.experiments.trials.outcome.MOST_NUMBERS", 20)
    with pytest.raises(InvalidInput, match="Raise `eval_every`"):
        run(Spec.of(SPEC), out=tmp_path / "r")
    swept = run_sweep(SWEEP, tmp_path / "st", jobs=0)
    assert all("Raise `eval_every`" in one.message for one in swept.stored.values())


def test_a_figure_of_ones_own_may_not_be_called_as_something_else_is(tmp_path, monkeypatch):
    from byzopt.tasks.quartic import QuarticTask

    measure = QuarticTask.measure
    monkeypatch.setattr(QuarticTask, "measure", lambda task, x: measure(task, x) | {"rounds": 3.0})
    with pytest.raises(InvalidInput, match="not in use for a run"):
        run(Spec.of(SPEC), out=tmp_path / "r")


def test_figures_of_any_kind_of_number_are_stored(tmp_path, monkeypatch):
    from byzopt.tasks.quartic import QuarticTask

    measure = QuarticTask.measure
    more = {"count": 2**60 + 1, "good": True, "rest": math.inf, "none": math.nan}
    monkeypatch.setattr(QuarticTask, "measure", lambda task, x: measure(task, x) | more)
    run(Spec.of(SPEC), out=tmp_path / "r")
    (row,) = rows(tmp_path).rows
    assert (row["count"], row["good"], row["rest"]) == (2.0**60, 1.0, math.inf)
    assert math.isnan(row["none"])
    assert json.loads((tmp_path / "r" / "result.json").read_text())["variants"]["main"]["rest"] is None
