"""Where the time of a round of the released MNIST CNN goes, beside the same convolutions in plain torch.

    python benchmarks/released_cnn.py [--seconds S]

`mnist_released` of 20 workers, Byz-NSGDM with nnm >> rfa under ALIE: a whole round, its gradients alone, and
what torch itself takes for the forward and backward passes of the same 20 x 64 images: all in one pass whose
gradient is one sum (which no training of single workers can use), and in 20 passes one after the
other; with images and filters in either layout, by one thread and by two. Writes docs/results/released_cnn.md
and .json. It needs MNIST (`BYZOPT_DATA_DIR`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from _peers_env import described, machine, table, write
from byzopt import rule_from
from byzopt.attacks import ATTACKS
from byzopt.cohort import Cohort
from byzopt.engines import rounds as played
from byzopt.experiments.trials.prepared import RunSettings, prepare
from byzopt.methods import ByzNSGDM
from byzopt.tasks import ReleasedMnist

N, F = 20, 3


def in_turn(steps: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """The median time of each step in milliseconds, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    end = time.perf_counter() + seconds * len(steps)
    while time.perf_counter() < end or min(map(len, times.values())) < 3:
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: median(taken) for name, taken in times.items()}


def passes(task: Any, layout: torch.memory_format, groups: int) -> Callable[[], Tensor]:
    """Forward and backward passes of all workers' images in `groups` passes: the last gradient `[d]`."""
    module = task._gradients.pure.module.train().to(memory_format=layout)
    inputs, labels = (part.flatten(0, 1) for part in task._sample(1))
    parts = [
        (some.contiguous(memory_format=layout), true)
        for some, true in zip(inputs.chunk(groups), labels.chunk(groups), strict=True)
    ]
    parameters = list(module.parameters())

    def step() -> Tensor:
        for some, true in parts:
            found = torch.autograd.grad(task.loss(module(some), true), parameters)
        return torch.cat([part.flatten() for part in found])

    return step


def measured(threads: int, seconds: float) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    task = ReleasedMnist(eval_samples=16).build(Cohort.of(N, F), 0)
    method = ByzNSGDM().build(rule_from("nnm >> rfa", f=F), 0.1)
    run: Any = prepare(task, method, RunSettings(ATTACKS.build("alie"), F, 0, 10**9, 10**9))
    snapshots = played(run.method, run.engine, run.first.state, 10**9)
    batch, start = task.draw(1), task.start()
    layouts = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
    steps: dict[str, Callable[[], object]] = {
        "a round": lambda: next(snapshots),
        "its gradients": lambda: task.grads(start, batch),
    }
    for word, layout in layouts.items():
        again = ReleasedMnist(eval_samples=16).build(Cohort.of(N, F), 0)
        steps[f"torch, one pass of all, {word}"] = passes(again, layout, 1)
        more = ReleasedMnist(eval_samples=16).build(Cohort.of(N, F), 0)
        steps[f"torch, a pass of each worker, {word}"] = passes(more, layout, N)
    return [{"step": name, "threads": threads, "ms": ms} for name, ms in in_turn(steps, seconds).items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each step")
    words = parser.parse_args()
    lines = [line for threads in (1, 2) for line in measured(threads, words.seconds)]
    for line in lines:
        same = [other for other in lines if other["threads"] == line["threads"]]
        floor = min(other["ms"] for other in same if other["step"].startswith("torch"))
        line["over the best of torch"] = line["ms"] / floor
    text = "# A round of the released MNIST CNN\n\nWritten by `python benchmarks/released_cnn.py` on "
    text += f"{described(machine())}.\n"
    text += f"{N} workers, batches of 64; medians, taken in turns; see the benchmark's first lines.\n\n"
    text += table(list(lines[0]), [list(line.values()) for line in lines])
    write("released_cnn", text, {"machine": machine(), "lines": lines})
    print(text)


if __name__ == "__main__":
    main()
