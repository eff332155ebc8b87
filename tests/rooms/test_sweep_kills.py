"""Sweeps that are killed, interrupted, damaged or run twice at once: no run is lost, doubled or different."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import pytest
from torch import Tensor

from byzopt.checkpoint import load, save
from byzopt.experiments.sweeps import RunStore, Sweep, Unwritable, plan_sweep, run_sweep
from byzopt.experiments.sweeps.batches import RunBatch
from byzopt.experiments.sweeps.claims import Claims, claim_owner
from byzopt.experiments.sweeps.queue import BatchQueue
from byzopt.experiments.sweeps.run_batch import run_batch
from byzopt.tasks.quartic import QuarticTask

KILLS = 20
SPEC = {"task": "quartic", "rounds": 60, "lr": 0.1, "eval_every": 10}
GRID = {
    "rule": ["mean", "nnm >> krum"],
    "attack": ["bit_flip", {"name": "mimic"}],
    "stop": [{}, {"grad_norm": 30.0}],  # runs of a batch that end early
    "seed": [0, 1],
}
SWEEP = Sweep(name="small", spec=SPEC, grid=GRID, together=6)


def records(store: Path) -> dict[str, bytes]:
    """The records of every run, as stored."""
    return {path.parent.name: path.read_bytes() for path in sorted(store.glob("*/records.parquet"))}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    store = tmp_path_factory.mktemp("undisturbed")
    swept = run_sweep(SWEEP, store, jobs=0)
    assert swept.finished
    assert swept.counts["converged"] >= 1
    found = records(store)
    assert len(found) == 16
    return found


def _child(store: Path, rounds: int, delay: float) -> None:
    """A sweep that is killed `delay` seconds after so many rounds: how far it comes hangs on no clock."""
    asked = 0

    def stopped() -> bool:  # asked after every round
        nonlocal asked
        asked += 1
        if asked == rounds:
            Thread(target=_die, args=(delay,), daemon=True).start()
        return False

    run_sweep(SWEEP, store, jobs=0, every=0.001, stopped=stopped)


def _die(delay: float) -> None:
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_sweep_that_is_killed_at_twenty_random_moments_ends_with_the_very_same_records(
    undisturbed, tmp_path
):
    draw, kills, kept = random.Random(3), 0, 0
    for _ in range(KILLS):
        moment = draw.randint(2, 100), draw.uniform(0, 0.003)
        child = get_context("fork").Process(target=_child, args=(tmp_path, *moment))
        child.start()
        child.join()
        if child.exitcode == -signal.SIGKILL:
            kills += 1
        else:
            assert child.exitcode == 0
            victims = draw.sample(sorted(records(tmp_path)), 9)
            for run in victims:  # the sweep was through: go on with some of its runs gone
                shutil.rmtree(tmp_path / run)
        kept += any(tmp_path.glob("batches/*.pt"))
    assert kills >= KILLS // 2
    assert kept >= 3
    swept = run_sweep(SWEEP, tmp_path, jobs=0)
    assert swept.finished
    assert records(tmp_path) == undisturbed
    leftovers = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not leftovers
    assert not list((tmp_path / "batches").iterdir())


def test_two_sweeps_on_one_store_at_once_share_the_runs(undisturbed, tmp_path):
    context = get_context("fork")
    told = context.Queue()
    children = [context.Process(target=_sharing, args=(tmp_path, told)) for _ in range(2)]
    for child in children:
        child.start()
    ended = [told.get(timeout=600) for _ in range(16 + 2)]
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    runs = [run for run in ended if run != "whole"]
    assert sorted(runs) == sorted(undisturbed)  # each ended once, wherever
    assert ended.count("whole") == 2
    assert records(tmp_path) == undisturbed


def _sharing(store: Path, told) -> None:
    swept = run_sweep(SWEEP, store, jobs=0, tell=lambda kind, c: kind == "ended" and told.put(c[0]))
    told.put("whole" if swept.finished else "left")


def test_a_claim_dies_with_its_owner(tmp_path):
    child = get_context("fork").Process(target=_hold, args=(tmp_path,))
    child.start()
    while claim_owner(tmp_path, "a") is None:
        time.sleep(0.01)
    with Claims(tmp_path) as mine:
        assert not mine.take(["b", "a"])
        assert claim_owner(tmp_path, "b") is None
        assert claim_owner(tmp_path, "a")["pid"] == child.pid
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert mine.take(["b", "a"])
        with Claims(tmp_path) as other:
            assert not other.take(["a"])
    assert not list(tmp_path.iterdir())


def _hold(folder: Path) -> None:
    with Claims(folder) as claims:
        claims.take(["a"])
        time.sleep(60)


DAMAGE = {
    "truncated records": lambda run: _cut(run / "records.parquet"),
    "truncated result": lambda run: _cut(run / "result.json"),
    "a changed figure": lambda run: _change(run / "result.json"),
    "a spec of something else": lambda run: (run / "spec.toml").write_text("n = 3"),
    "no result": lambda run: (run / "result.json").unlink(),
    "a flipped bit": lambda run: _flip(run / "records.parquet"),
}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _change(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    result["variants"]["main"]["loss"] += 1e-9
    path.write_text(json.dumps(result), encoding="utf-8")


def test_damaged_runs_are_reported_and_rerun_to_the_same_bits(undisturbed, tmp_path):
    run_sweep(SWEEP, tmp_path, jobs=0)
    victims = dict(zip(sorted(undisturbed), DAMAGE, strict=False))
    for run, what in victims.items():
        DAMAGE[what](tmp_path / run)
    plan = plan_sweep(SWEEP, tmp_path)
    assert {i.run.id for i in plan.intents if i.why.startswith("damaged: ")} == set(victims)
    assert {i.run.id for i in plan.intents if i.play} == set(victims)
    assert run_sweep(plan, jobs=0).finished
    assert records(tmp_path) == undisturbed


def test_a_full_disk_ends_the_sweep_and_loses_nothing(undisturbed, tmp_path, monkeypatch):
    store, put = RunStore(tmp_path), os.replace
    writes = iter(range(10**6))

    def full(source: str, target: str) -> None:
        if next(writes) > 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(Unwritable, match=r"No space left.*no run is lost"):
            run_sweep(SWEEP, tmp_path, jobs=0)
    stored = records(tmp_path)
    assert 0 < len(stored) < 16
    assert all(store.inspect(run).kind == "whole" for run in stored)
    assert run_sweep(SWEEP, tmp_path, jobs=0).finished
    assert records(tmp_path) == undisturbed


def test_a_stop_keeps_checkpoints_and_the_sweep_goes_on_to_the_same_bits(undisturbed, tmp_path):
    rounds = iter(range(10**6))
    swept = run_sweep(SWEEP, tmp_path, jobs=0, stopped=lambda: next(rounds) > 80)
    assert not swept.finished
    assert list((tmp_path / "batches").glob("*.pt"))
    whys = [intent.why for intent in plan_sweep(SWEEP, tmp_path).intents]
    assert any(why.startswith("unfinished") for why in whys)
    assert run_sweep(SWEEP, tmp_path, jobs=0).finished
    assert records(tmp_path) == undisturbed


def test_values_added_to_a_sweep_compute_the_new_runs_alone(undisturbed, tmp_path):
    run_sweep(SWEEP, tmp_path, jobs=0)
    wider = Sweep(name="small", spec=SPEC, grid=GRID | {"seed": [0, 1, 2]}, together=6)
    plan = plan_sweep(wider, tmp_path)
    assert plan.to_play == sum(len(batch.runs) for batch in plan.batches) == 8
    run_sweep(plan, jobs=0)
    assert undisturbed.items() <= records(tmp_path).items()


def test_a_run_that_cannot_be_made_keeps_its_reason_and_the_others_end(tmp_path):
    sweep = Sweep(
        spec=SPEC | {"rounds": 5, "rule": "mean"}, grid={"attack": ["bit_flip", "label_flip", "alie"]}
    )
    swept = run_sweep(sweep, tmp_path, jobs=0)
    assert swept.finished
    assert swept.counts == {"completed": 2, "error": 1}
    (failed,) = [i for i in plan_sweep(sweep, tmp_path).intents if i.stored.kind == "failed"]
    assert "labels" in failed.why
    assert "--retry" in failed.why
    assert not failed.play
    assert "Traceback" in (tmp_path / failed.run.id / "log.txt").read_text()
    assert plan_sweep(sweep, tmp_path, retry=True).to_play == 1


def test_an_error_in_one_run_of_a_batch_is_that_runs_alone(tmp_path, monkeypatch):
    def measure(task: QuarticTask, x: Tensor) -> dict[str, float]:
        if task.cohort.byzantine == (19,):
            raise ZeroDivisionError("planted")
        return honest(task, x)

    honest = QuarticTask.measure
    monkeypatch.setattr(QuarticTask, "measure", measure)
    sweep = Sweep(
        spec=SPEC | {"rounds": 5, "rule": "mean", "attack": "bit_flip"}, grid={"attackers": [0, 1, 2]}
    )
    swept = run_sweep(sweep, tmp_path, jobs=0)
    assert swept.counts == {"completed": 2, "error": 1}
    assert "ZeroDivisionError: planted" in {one.message for one in swept.stored.values()}


def test_a_worker_that_dies_is_tried_again_and_then_its_run_has_failed(tmp_path):
    runs = Sweep(spec=SPEC | {"rounds": 3, "rule": "mean"}, grid={"seed": [0, 1, 2]}).expand().runs
    store, ended = RunStore(tmp_path), []
    work = BatchQueue([RunBatch(runs)], store, lambda kind, content: ended.append((kind, *content[:2])))
    tried = []
    while (batch := work.next()) is not None:
        tried.append(len(batch.runs))
        if runs[1] in batch.runs:
            work.crashed(batch, "killed by SIGKILL")
        else:
            work.ended(batch, run_batch(batch, store, work.tell, lambda: False))
    assert tried == [3, 3, 1, 1, 1, 1]
    told = {run: status for kind, run, status in ended if kind == "ended"}  # on a busy machine also of rounds
    assert told == {runs[0].id: "completed", runs[1].id: "error", runs[2].id: "completed"}
    assert "killed by SIGKILL" in store.inspect(runs[1].id).message
    assert not work.left


def test_a_batch_that_is_put_aside_goes_on_at_its_second_place_and_not_while_it_is_under_way(tmp_path):
    runs = Sweep(spec=SPEC | {"rounds": 3, "rule": "mean"}, grid={"seed": [0, 1]}).expand().runs
    slow, other = RunBatch(runs[:1]), RunBatch(runs[1:])
    store, ended = RunStore(tmp_path), []
    work = BatchQueue([slow._replace(patience=0.0), slow, other], store, lambda kind, content: None)
    hasty, between = work.next(), work.next()
    assert (hasty.id, hasty.patience, between.id) == (slow.id, 0.0, other.id)
    assert work.next() is None  # its second place waits
    for batch in (hasty, between):
        work.ended(batch, run_batch(batch, store, work.tell, lambda: False))
        ended.append(store.inspect(batch.ids[0]).kind)
    assert ended == ["missing", "whole"]
    assert store.has_checkpoint(slow.id)
    last = work.next()
    assert last == slow
    work.ended(last, run_batch(last, store, work.tell, lambda: False))
    assert store.inspect(slow.ids[0]).kind == "whole"
    assert not work.left


FILE = """
name = "small"
together = 6
[spec]
task = "quartic"
rounds = 60
lr = 0.1
eval_every = 10
[grid]
rule = ["mean", "nnm >> krum"]
attack = ["bit_flip", {name = "mimic"}]
stop = [{}, {grad_norm = 30.0}]
seed = [0, 1]
"""


@pytest.mark.slow
def test_the_command_with_a_worker_process_goes_on_after_a_kill_and_after_ctrl_c(undisturbed, tmp_path):
    (tmp_path / "small.toml").write_text(FILE)
    command = [sys.executable, "-m", "byzopt", "sweep", "small.toml", "--store", "st", "--jobs", "1"]
    command += ["--checkpoint-every", "0.05"]
    for number, status in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        began = time.time()
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not _checkpoint_since(tmp_path, began):
            time.sleep(0.005)
        process.send_signal(number)
        _, err = process.communicate(timeout=600)
        assert process.returncode == status, err
        while list(tmp_path.glob("st/claims/*")):
            time.sleep(0.01)  # the worker of a parent that is gone notices, keeps a checkpoint and goes
    assert re.search(r"go on with: .*byzopt sweep small\.toml", err)
    assert run_sweep(tmp_path / "small.toml", tmp_path / "st", jobs=0).finished
    assert records(tmp_path / "st") == undisturbed


def _checkpoint_since(place: Path, began: float) -> bool:
    return any(path.stat().st_mtime > began for path in place.glob("st/batches/*.pt"))


def test_a_checkpoint_that_is_damaged_or_does_not_fit_starts_the_batch_again(undisturbed, tmp_path):
    rounds = iter(range(10**6))
    run_sweep(SWEEP, tmp_path, jobs=0, stopped=lambda: next(rounds) > 50)
    (kept,) = (tmp_path / "batches").glob("*.pt")
    content = load(kept)
    first = next(iter(content["running"]))
    state, *rest = content["running"][first]
    content["running"][first] = (state[:-1], *rest)
    save(kept, content)
    assert run_sweep(SWEEP, tmp_path, jobs=0).finished
    assert records(tmp_path) == undisturbed
    assert "starts again" in (tmp_path / first / "log.txt").read_text()
