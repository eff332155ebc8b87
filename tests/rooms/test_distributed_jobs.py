"""Whole jobs: torchrun on the examples, a rank killed on the way, a spec over processes."""

from __future__ import annotations

import difflib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from byzopt.experiments import load, run
from byzopt.experiments.trials.processes import worker_processes

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "harden_torchrun"


def torchrun(ranks, script, *arguments):
    launch = ["--standalone", f"--nproc-per-node={ranks}", "--max-restarts=2"]
    command = [sys.executable, "-m", "torch.distributed.run", *launch, str(EXAMPLES / script), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_scripts_differ_in_two_lines():
    before, after = ((EXAMPLES / f"{name}.py").read_text() for name in ("before", "robust_sgd"))
    code = [text.split('"""', 2)[2].splitlines() for text in (before, after)]
    changed = [line for line in difflib.ndiff(*code) if line[0] in "+-" and line[2:].strip()]
    assert [line[0] for line in changed] == ["+", "-", "+"]
    assert changed[0] == "+ from byzopt.distributed import RobustSGD"


def test_harden_is_one_line_and_an_import():
    before, after = ((EXAMPLES / f"{name}.py").read_text() for name in ("before", "hardened"))
    code = [text.split('"""', 2)[2].splitlines() for text in (before, after)]
    changed = [line for line in difflib.ndiff(*code) if line[0] in "+-" and line[2:].strip()]
    assert changed == ["+ from byzopt import harden", '+     harden(model, "rfa", f=1)']


@pytest.mark.slow
@pytest.mark.parametrize("script", ["robust_sgd.py", "hardened.py"])
def test_the_hardened_script_learns_although_one_of_four_ranks_is_faulty(script):
    out = torchrun(4, script, "--faulty", "1")
    assert float(re.search(r"accuracy ([0-9.]+)", out)[1]) > 0.93


@pytest.mark.slow
def test_a_killed_rank_is_restarted_and_the_result_is_the_same(tmp_path):
    found = {}
    for name, die_at in (("whole", "0"), ("killed", "27")):
        out = tmp_path / f"{name}.pt"
        given = ["--keep", str(tmp_path / name), "--out", str(out), "--steps", "40", "--die-at", die_at]
        torchrun(3, "elastic.py", *given)
        found[name] = torch.load(out, weights_only=True)
    assert found["whole"]["start"] == 0
    assert found["killed"]["start"] == 20
    assert torch.equal(found["whole"]["x"], found["killed"]["x"])


SPEC = """
task = {task}
rule = "nnm >> rfa"
method = {method}
attack = {attack}
n = 7
f = 2
rounds = 12
lr = 0.001
eval_every = 4
"""


BYZ_DM21 = '{name = "byz_dm21", compressor = {name = "top_k", k = 2}}'
BYZ_VR_DM21 = '{name = "byz_vr_dm21", compressor = "scaled_sign"}'
DIGITS = '{name = "digits", dtype = "float64", hidden = [8]}'


@pytest.mark.slow
@pytest.mark.parametrize(
    "task, method, attack, count",
    [
        ('"quartic"', BYZ_DM21, '"alie"', 2),
        ('"quartic"', '"robust_sgdm"', '"alie"', 3),
        ('"quartic"', BYZ_VR_DM21, '"sign_flip"', 7),
        (DIGITS, '"robust_sgdm"', '"label_flip"', 3),
        (DIGITS, '"robust_sgdm"', '{name = "stale", delay = 2}', 7),
    ],
)
def test_over_processes_a_spec_runs_as_in_one(tmp_path, task, method, attack, count):
    path = tmp_path / "spec.toml"
    path.write_text(SPEC.format(task=task, method=method, attack=attack))
    spec = load(path)
    alone = run(spec, out=tmp_path / "alone")
    with worker_processes(spec, count) as link:
        stopped = run(spec, out=tmp_path / "many", comm=link, on_round=lambda name, t: t == 5)
        assert stopped.interrupted
        many = run(spec, out=tmp_path / "many", comm=link)  # all states are sent out again
    assert len(alone.main.records) == len(many.main.records) == 4
    for one, other in zip(alone.main.records, many.main.records, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert other[key] == pytest.approx(value, rel=1e-12, abs=1e-14), key
    assert torch.allclose(alone.main.x, many.main.x, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_the_command_runs_over_processes(tmp_path):
    given = ["byz-nsgdm/quartic", "rounds=3", "--no-compare", "--json", "--out", str(tmp_path / "out")]
    engine = ["--engine", "torchrun", "--processes", "2"]
    command = [sys.executable, "-m", "byzopt", "run", *given, *engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"] == 3


@pytest.mark.slow
def test_a_killed_run_over_processes_leaves_no_file_and_no_process(tmp_path):
    place = tmp_path / "temporary"
    place.mkdir()
    given = ["byz-nsgdm/quartic", "rounds=100000000", "--no-compare", "--out", str(tmp_path / "out")]
    engine = ["--engine", "torchrun", "--processes", "2"]
    command = [sys.executable, "-m", "byzopt", "run", *given, *engine]
    where = {**os.environ, "TMPDIR": str(place)}
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=where)
    try:
        while not (tmp_path / "out" / "spec.toml").exists():  # round 1 is done: all processes have met
            assert run.poll() is None
            time.sleep(0.05)
    finally:
        run.kill()
    run.communicate(timeout=120)  # ends when the last process that may write to it is gone
    assert run.returncode == -signal.SIGKILL
    assert not list(place.iterdir())
