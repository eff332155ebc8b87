"""Rounds of simulated training: ours beside ByzFL's, and beside the time of their matrix products alone.

    python benchmarks/simulation.py [--env DIR] [--rounds N] [--only W3 ...]

The first time it installs the peers into DIR. n = 20 workers, 3 of them ALIE, worker momentum, NNM then 8
smoothed Weiszfeld steps; random data of the usual shapes. Ours is Byz-NSGDM, one run or 27 (three attacks,
three rates, three seeds) together; ByzFL is its own training loop with SGD, whose 17 honest clients alone
have gradients (ours takes all 20). Evaluation is left out of both. Figures of one column come from processes
with that many threads. Writes docs/results/simulation.md and the JSON file beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from _peers_env import DEFAULT, described, machine, peers_python, table, write
from byzopt.aggregators import rule_from
from byzopt.attacks import ATTACKS
from byzopt.cohort import Cohort
from byzopt.engines import rounds as played
from byzopt.engines.batched import BatchedRuns
from byzopt.engines.batched_round import Lane
from byzopt.experiments.trials.prepared import PreparedRun, RunSettings, prepare
from byzopt.methods import ByzNSGDM
from byzopt.tasks import ModuleTask, Quartic, Task
from byzopt.tasks.logistic import LogisticTask
from byzopt.tasks.models import mlp
from byzopt.tasks.pool import Pool
from byzopt.waiting import WAITING

COHORT = Cohort.of(20, 3)
WHAT = {
    "W1": "MLP 784-128-64-10, batch 64",
    "W3": "quartic, d = 10",
    "W4": "logistic regression, d = 123, batch 32",
    "W4f": "the same, all 32,560 samples",
    "W5": "CNN 28 x 28 (ByzFL's, d = 431,080), batch 32",
}
TOGETHER = ("W3", "W4", "W4f")  # small enough to be stacked; larger ones go to a process for each core
SLOW = {"W4f": 4, "W5": 8}
HEAD = """# Rounds of simulated training

Written by `python benchmarks/simulation.py` on {machine}. Milliseconds a round, medians; see the benchmark's
first lines for what a round is. "27 runs": each run's share of a round of 27 runs, stacked in one process
of one thread, or (W1, W5) one after another in a process of one thread for each of {cores} cores. "Products"
are the matrix products of the round alone, one thread. W3 and W4 are float64 here and float32 in ByzFL.

"""


def cnn() -> nn.Module:
    """ByzFL's `cnn_mnist`, its scores without the softmax."""
    return nn.Sequential(
        *(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10)),
    )


def task(name: str, seed: int) -> Task:
    torch.manual_seed(0)  # the data are the same for all seeds
    shards = torch.arange(20_000).split(1000)
    if name == "W3":
        return Quartic().build(COHORT, seed)
    if name in ("W1", "W5"):
        inputs = torch.randn(20_000, *((784,) if name == "W1" else (1, 28, 28)))
        pool = Pool.dealt(inputs, torch.randint(10, (20_000,)), shards)
        module = mlp((784, 128, 64, 10), seed) if name == "W1" else cnn()
        return ModuleTask(
            module, functional.cross_entropy, pool, batch=64 if name == "W1" else 32, seed=seed, byzantine=3
        )
    dealt = torch.arange(32_560).split(1628)
    return LogisticTask(COHORT, *_samples(), dealt, 0.0, 32 if name == "W4" else 0, seed)


def _samples(kept: list[Any] = []) -> Any:  # noqa: B006 - one store for all runs, as real data have
    if not kept:
        kept.extend((torch.rand(32_560, 123).double(), torch.randint(2, (32_560,))))
    return kept


def runs(name: str, many: bool) -> list[PreparedRun]:
    seeds, rates = ((0, 1, 2), (0.05, 0.1, 0.2)) if many else ((0,), (0.1,))
    attacks = [ATTACKS.build(attack) for attack in (("alie", "bit_flip", "ipm") if many else ("alie",))]
    rule = rule_from("nnm >> rfa", f=3)
    tasks = {seed: task(name, seed) for seed in seeds}
    return [
        prepare(tasks[seed], ByzNSGDM().build(rule, lr), RunSettings(attack, 3, seed, 10**9, 10**9))
        for seed in seeds
        for lr in rates
        for attack in attacks
    ]


def timed(step: Callable[[], Any], rounds: int) -> float:
    """The median time of a step in milliseconds."""
    times = []
    for _ in range(rounds + 3):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return 1e3 * median(times[3:])


def single(name: str, rounds: int) -> float:
    (run,) = runs(name, many=False)
    snapshots = played(run.method, run.engine, run.first.state, 10**9)  # type: ignore[union-attr]
    return timed(lambda: next(snapshots), rounds)


def stacked(name: str, rounds: int) -> float:
    """A run's share of a round of 27."""
    lanes = [Lane(run.method, run.engine, run.first.state) for run in runs(name, many=True)]  # type: ignore
    many = [BatchedRuns(lanes)]
    return timed(lambda: many.append(many.pop().round()), rounds) / len(lanes)


def products() -> dict[str, float]:
    """The matrix products of W1's gradients: forward, back to each layer's input, one a worker and layer."""
    sizes, torch_threads = (784, 128, 64, 10), torch.get_num_threads()
    torch.set_num_threads(1)
    seen = [torch.randn(1280, size) for size in sizes]
    weights = [torch.randn(b, a) for a, b in pairwise(sizes)]
    out = [torch.empty(20, *weight.shape) for weight in weights]

    def step() -> None:
        for k, weight in enumerate(weights):
            seen[k] @ weight.T
            torch.bmm(seen[k + 1].view(20, 64, -1).mT, seen[k].view(20, 64, -1), out=out[k])
            if k:
                seen[k + 1] @ weight

    found = timed(step, 50)
    torch.set_num_threads(torch_threads)
    return {"W1": found}


def sides(threads: int, count: int, words: Sequence[str]) -> list[float]:
    """What `count` processes of this file with `words`, at the same time, print."""
    command = [sys.executable, __file__, "--side", str(threads), *words]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)} | WAITING  # as our command line sets it
    begun = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    return [float(process.communicate()[0]) for process in begun]


def measure(python: Path, rounds: int, names: Sequence[str]) -> list[dict[str, Any]]:
    cores, theirs = os.cpu_count() or 1, {}
    side = Path(__file__).with_name("_simulation_peers.py")
    for threads in (1, 2):
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        command = [str(python), str(side), str(threads), str(rounds), *names]
        told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        theirs[threads] = json.loads(told)
    floor, lines = products(), []
    for name in names:
        few = str(max(3, rounds // SLOW.get(name, 1)))
        ours = {threads: sides(threads, 1, ("single", name, few))[0] for threads in (1, 2)}
        if name in TOGETHER:
            share = sides(1, 1, ("stacked", name, few))[0]
        else:
            share = 1 / sum(1 / found for found in sides(1, cores, ("single", name, few)))
        best = min(theirs[threads][name] for threads in theirs)
        lines.append(
            {"workload": name, "what": WHAT[name]}
            | {f"ByzFL, {k} threads": found[name] for k, found in theirs.items()}
            | {f"ours, {k} threads": found for k, found in ours.items()}
            | {"products": floor.get(name), "27 runs": share}
            | {"ByzFL over ours": best / min(ours.values()), "ByzFL over 27 runs": best / share}
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", type=Path, default=DEFAULT, help="where the peers are installed")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--only", nargs="+", choices=list(WHAT), default=list(WHAT))
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.side:
        threads, what, name, rounds = words.side
        torch.set_num_threads(int(threads))
        print({"single": single, "stacked": stacked}[what](name, int(rounds)))
        return
    about, lines = machine(), measure(peers_python(words.env), words.rounds, words.only)
    page = HEAD.format(machine=described(about), cores=os.cpu_count()) + table(
        list(lines[0]), [list(line.values()) for line in lines]
    )
    write("simulation", page, {"machine": about, "rounds": lines})
    print(page)


if __name__ == "__main__":
    main()
