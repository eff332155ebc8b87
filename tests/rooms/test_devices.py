"""Runs on devices: what is not here is refused in a line by every command, and a round waits once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import byzopt as bz
from byzopt.cohort import Cohort
from byzopt.distributed.flat import FlatParameters
from byzopt.engines import rounds
from byzopt.errors import InvalidInput
from byzopt.experiments.running import run
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.trials.prepared import RunSettings, prepare
from byzopt.methods import ByzNSGDM
from byzopt.tasks import Pool, devices, sequence_cross_entropy
from byzopt.tasks.models import GPT, mlp
from tests.pretend import DEVICE, Counts, PretendDevice

ROOT = Path(__file__).parents[2]
AWAY = ["nope", "", "cuda:-1", "meta", "mps", "xpu", "cuda:99"]
SPEC = 'task = {{name = "digits", device = "{}"}}\nrule = "median"\nn = 7\nf = 1\nrounds = 2\nlr = 0.1\n'
COMMANDS = {
    "run": "run spec.toml",
    "run with a bound": "run spec.toml --bound",
    "run over processes": "run spec.toml --engine torchrun --processes 1",
    "sweep": "sweep sweep.toml --jobs 0",
    "sweep over processes": "sweep sweep.toml --jobs 2",
    "plan of a sweep": "sweep sweep.toml --dry-run",
    "stress": "stress spec.toml --jobs 0",
    "audit": "audit spec.toml",
    "explain": "explain spec.toml",
    "break": "break median --n 7 --f 1 --task {table}",
    "reproduce": "reproduce byz-nsgdm/mnist-spread --quick --jobs 0 --device={device}",
    "reproduce what needs none": "reproduce byz-dm21/a9a --quick --jobs 0 --device={device}",
    "plan to reproduce": "reproduce byz-dm21/a9a --dry-run --device={device}",
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("device", AWAY)
def test_a_device_that_is_not_here_is_one_line(device, words, byzopt, here):
    if device in here_are():
        pytest.skip("this machine has one")
    (here / "spec.toml").write_text(SPEC.format(device), encoding="utf-8")
    (here / "sweep.toml").write_text('base = "spec.toml"\ngrid = {seed = [0, 1]}\n', encoding="utf-8")
    before = sorted(here.rglob("*"))
    table = f'{{"name":"digits","device":"{device}"}}'
    said = byzopt(*(word.format(device=device, table=table) for word in words.split()))
    assert said.status == 2
    assert not said.out
    assert said.err.startswith("byzopt: error: Parameter `device` should ")
    assert said.err.count("\n") == 1
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("device", AWAY)
def test_a_device_that_is_not_here_is_named_in_python(device):
    if device in here_are():
        pytest.skip("this machine has one")
    spec = Spec(
        task={"name": "digits", "device": device},
        method="byz_nsgdm",
        rule="median",
        attack="none",
        n=7,
        f=1,
        rounds=2,
        lr=0.1,
    )
    with pytest.raises(InvalidInput, match="Parameter `device`"):
        run(spec)
    with pytest.raises(InvalidInput, match="Parameter `device`"):
        bz.simulate(spec.task.build(Cohort.of(7, 1), 0), rule="median", f=1, rounds=2, lr=0.1)


def test_a_device_without_float64_is_refused(monkeypatch):
    real = torch.zeros

    def poor(*size, dtype=None, device=None):
        if dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return real(*size, dtype=dtype)

    monkeypatch.setattr(devices.torch, "zeros", poor)
    with pytest.raises(InvalidInput, match="should have float64"):
        devices.device_of("mps")


def here_are():
    kinds = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kinds["xpu"] = torch.xpu.is_available()
    return {kind for kind, there in kinds.items() if there}


def small_task(kind):
    """A module task of 20 workers on the pretend device, to be built while that is on."""
    samples, labels = torch.randn(200, *((1, 28, 28) if kind == "cnn" else (20,))), torch.randint(10, (200,))
    loss, module = functional.cross_entropy, mlp((20, 16, 10), 0)
    if kind == "cnn":
        module = nn.Sequential(
            nn.Conv2d(1, 3, 5), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(108, 10)
        )
    if kind == "gpt":
        samples, loss, module = (
            torch.randint(30, (200, 8)),
            sequence_cross_entropy,
            GPT(30, 8, 1, 2, 16, 0.0, 0),
        )
        labels = samples.roll(-1, 1)
    pool = Pool.dealt(samples, labels, torch.arange(200).split(10))
    return bz.ModuleTask(module, loss, pool, batch=2, seed=0, byzantine=3, device=DEVICE)


@pytest.mark.parametrize("kind", ["mlp", "cnn", "gpt"])
def test_a_round_of_training_on_a_device_waits_once_for_the_products_of_its_rule(kind):
    with PretendDevice() as device:
        task, attack = small_task(kind), bz.ATTACKS.build("alie")
        method = ByzNSGDM().build(bz.rule_from("nnm >> rfa", f=3), 0.1)
        begun = prepare(task, method, RunSettings(attack, 3, 0, 10**9, 10**9))
        played = rounds(begun.method, begun.engine, begun.first.state, 10**9)
        next(played)
        device.counts = Counts()
        next(played)
    assert device.counts.waits == ["aten._to_copy.default"]
    assert device.counts.launches <= 250


QUICK = ("byz_nsgdm", "byz_dm21", "byz_vr_marina_pp", "rosdhb")
SLOW = sorted(
    set(bz.METHODS) - {*QUICK, "diloco", "fldetector"}
)  # of 500 steps a round; looks at its history


def waits(rounds, **said):
    """What a whole run waited for that is measured at its two ends alone; the run."""
    with PretendDevice() as device:
        said = {"rule": "nnm >> rfa", "f": 3, "lr": 0.1, "attack": "alie", "eval_every": 10**9} | said
        result = bz.simulate(small_task("mlp"), rounds=rounds, **said)
    return len(device.counts.waits), result


@pytest.mark.parametrize("method", [*QUICK, *(pytest.param(each, marks=pytest.mark.slow) for each in SLOW)])
def test_runs_of_all_methods_wait_once_a_round(method):
    try:
        few, _ = waits(2, method=method)
    except InvalidInput as error:  # a method for other tasks
        assert "loss that the server owns" in str(error) or "one distribution" in str(error)  # noqa: PT017
        return
    assert waits(5, method=method)[0] == few + 3


TABLES = {
    "linear": {},
    "full gradients": {"batch": "full", "partition": {"name": "dirichlet", "alpha": 1.0}},
    "perceptron": {"model": "mlp", "validation": 100, "proxy": "sample", "byzantine_data": "all"},
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_round_of_digits_waits_once_on_a_device(table):
    counts = []
    for last in (1, 3):
        with PretendDevice() as device:
            recipe = bz.TASKS.build({"name": "digits", "device": str(DEVICE)} | table)
            task = recipe.build(Cohort.of(20, 3), 0)
            device.counts = Counts()
            bz.simulate(task, rule="nnm >> rfa", f=3, attack="alie", lr=0.1, rounds=last, eval_every=10**9)
        counts.append(device.counts.syncs)
    assert counts[1] == counts[0] + 2


def test_an_optimizer_sees_in_one_look_whether_a_script_has_changed_its_parameters():
    with PretendDevice() as device:
        own = [nn.Parameter(device.put(torch.full((3,), float(i)))) for i in range(5)]
        flat = FlatParameters([{"params": own}])
        vec = flat.read()
        assert flat.holds(vec)
        assert not flat.holds(vec + 1)
    assert len(device.counts.waits) == 2


@pytest.mark.parametrize("method", ["robust_gd", "byz_nsgdm"])
def test_a_run_that_diverges_on_a_device_says_so_when_it_is_next_measured(method):
    """Also where its rows have long ceased to be finite, which is no fault of workers."""
    _, result = waits(400, method=method, rule="median", attack="none", lr=1e30, eval_every=100)
    assert result.status.value in ("diverged", "nonfinite"), result.outcome


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_the_benchmark_of_devices_runs_to_its_end_without_one_and_says_so(tmp_path):
    parts = ["kernels", "decisions", "ways", "rounds", "reductions"]
    command = [sys.executable, "benchmarks/device.py", "--only", *parts, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "There is no cuda here: small sizes on the CPU, which say nothing about a GPU." in done.stdout
    found = json.loads((tmp_path / "device-cpu.json").read_text(encoding="utf-8"))
    assert found.keys() >= {"device", "machine", "floor", *parts}
    assert all(line["ms"] > 0 for line in found["kernels"])
    assert all(line["difference"] < 1e-5 for line in found["decisions"])
