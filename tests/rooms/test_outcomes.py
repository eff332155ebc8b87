"""Outcomes and progress as plain data: one way into a checkpoint and back, which loses nothing."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from byzopt.checkpoint import load, save
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput, Status
from byzopt.experiments import Outcome, Spec, run, simulate
from byzopt.experiments.store.outcomes import (
    outcome_of_summary,
    outcome_summary,
    pack_outcome,
    unpack_outcome,
)
from byzopt.experiments.store.table import rows
from byzopt.experiments.sweeps import RunStore, Sweep, Unwritable, run_sweep
from byzopt.tasks import ModuleTask, Quartic

FULL = Outcome(
    Status.DIVERGED,
    7,
    1.25,
    ({"t": 0, "loss": 2.0}, {"t": 6, "loss": 1.0, "accuracy": 0.5}),
    "it left",
    torch.arange(3.0),
    ((4, 2, "gradient"), (5, 3, "iterate")),
)
# Two workers are expelled in round 1, and all go on for longer than it takes to keep a checkpoint.
TASK = {"name": "quadratic", "d": 4, "noise": 0.1, "heterogeneity": 0.0}
SPEC = {"task": TASK, "method": "safeguard", "rule": "mean", "n": 10, "f": 2, "rounds": 30, "lr": 0.05}
SPEC |= {"attack": "nan", "eval_every": 10}


def test_every_field_of_an_outcome_is_in_a_checkpoint(tmp_path):
    for field in fields(Outcome):
        assert getattr(FULL, field.name) != field.default or field.default is MISSING, field.name
    save(tmp_path / "c", {"ended": pack_outcome(FULL)})
    found = unpack_outcome(load(tmp_path / "c")["ended"])
    assert found.x.equal(FULL.x)
    assert replace(found, x=None) == replace(FULL, x=None)


def test_what_a_store_tells_of_an_outcome_is_all_but_its_iterate():
    found = outcome_of_summary(outcome_summary(FULL), FULL.records)
    assert found == replace(FULL, x=None)


@pytest.mark.parametrize("field", [field.name for field in fields(Outcome)])
@pytest.mark.parametrize("value", [None, "x", [3], {"a": object()}, -1.5j])
def test_anything_else_in_a_checkpoint_is_refused(field, value):
    told = pack_outcome(FULL) | {field: value}
    if (field, value) in (("x", None), ("message", "x")):
        assert getattr(unpack_outcome(told), field) == value
        return
    with pytest.raises(InvalidInput, match="as byzopt wrote it"):
        unpack_outcome(told)


@pytest.mark.parametrize("told", [None, [], "x", {}, pack_outcome(FULL) | {"status": "splendid"}])
def test_what_is_no_outcome_is_refused(told):
    with pytest.raises(InvalidInput):
        unpack_outcome(told)


@pytest.mark.parametrize("stopped_after", ["checkpoint", "first run"])
def test_a_sweep_that_ends_between_checkpoint_and_store_keeps_who_was_expelled(
    stopped_after, tmp_path, monkeypatch
):
    sweep = Sweep(spec=SPEC, grid={"seed": [0, 1]})
    run_sweep(sweep, tmp_path / "whole", jobs=0)
    wanted = {row["run"]: row for row in rows(tmp_path / "whole").rows}
    puts = iter(range(9))
    put = RunStore.save_run

    def full(store: RunStore, *arguments: object) -> None:
        if next(puts) >= (stopped_after == "first run"):
            raise Unwritable("the disk is full")
        put(store, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(RunStore, "save_run", full)
        with pytest.raises(Unwritable):
            run_sweep(sweep, tmp_path / "parts", jobs=0)
    assert run_sweep(sweep, tmp_path / "parts", jobs=0).finished
    for name in wanted:
        one, other = (RunStore(tmp_path / place).read_outcome(name) for place in ("whole", "parts"))
        assert one.expelled
        assert replace(other, seconds=0.0) == replace(one, seconds=0.0)


def test_a_run_that_is_stopped_keeps_who_was_expelled_from_a_variant_before(tmp_path):
    spec = Spec.of(SPEC | {"compare": {"other": {"seed": 1}}})
    whole = run(spec)
    assert whole.main.expelled
    assert run(spec, out=tmp_path, on_round=lambda name, t: (name, t) == ("other", 20)).interrupted
    found = run(spec, out=tmp_path)
    assert {n: o.expelled for n, o in found.outcomes.items()} == {
        n: o.expelled for n, o in whole.outcomes.items()
    }


def test_a_run_killed_while_it_writes_is_unfinished_and_leaves_nothing(tmp_path):
    """As after SIGKILL: what was being written stays, in whichever file."""
    spec = Spec.of(SPEC)
    out = tmp_path / "runs" / "r"
    assert run(spec, out=out, on_round=lambda _, t: t == 20).interrupted
    for name in ("checkpoint.pt", "records.parquet", "result.json"):
        (out / f".{name}.0123abcd").write_bytes(b"half")
        if name == "result.json":
            (out / "records.parquet").write_bytes(b"whole, and of no use yet")
        found = rows(tmp_path / "runs")
        assert (found.rows, found.damaged, found.unfinished) == ([], {}, 1)
    assert run(spec, out=out).status is Status.COMPLETED
    assert {path.name for path in out.iterdir()} == {"records.parquet", "result.json", "spec.toml"}
    assert not rows(tmp_path / "runs").damaged


def test_results_and_tasks_are_told_in_short_lines():
    """Whatever they hold: records, workers and messages without end."""
    records = tuple({"t": float(t)} | {f"loss_worker_{i}": 1.0 for i in range(50)} for t in range(1000))
    ended = Outcome(Status.NO_MAJORITY, 7, 1.23456, records, "said", expelled=((3, 5, "far"),))
    told = "loss_worker_0=1, loss_worker_1=1, loss_worker_2=1, loss_worker_3=1, records=1000, expelled=[3]"
    assert str(ended) == f"Outcome(no_majority, rounds=7, seconds=1.23, {told}, message='said')"
    assert str(Outcome(Status.ERROR, 0, 0.0, ())) == "Outcome(error, rounds=0, seconds=0, records=0)"
    task = Quartic(d=4).build(Cohort.of(5, 2), 0)
    assert str(task) == f"{type(task).__name__}(n=5, byzantine=2, d=4)"
    own = ModuleTask(
        nn.Linear(3, 2),
        functional.cross_entropy,
        [(torch.ones(4, 3), torch.zeros(4, dtype=torch.long))] * 3,
        byzantine=[0],
        batch=2,
    )
    assert str(own) == f"ModuleTask(n=3, byzantine=1, d=8, samples=12, batch=2, strategy={own.strategy})"
    assert str(ModuleTask.__new__(ModuleTask)).startswith("<")  # not made yet: a debugger may look at it
    outcome = simulate(own, rule="mean", lr=0.1, rounds=2, f=0)
    assert len(str(outcome)) < 200
    assert "\n" not in str(outcome)
