"""Where work is put on this machine's cores: many processes of one thread, or one process of many threads.

Which is faster depends on the machine (shared cores, hyper-threads, caches, containers with a quota), so it
is measured once, for a few seconds, and kept in the user's cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from byzopt.experiments.store.reading import parse_json
from byzopt.files import read
from byzopt.tasks.data import store
from byzopt.waiting import WAITING

SECONDS = 0.6  # each process works so long
NAME = "placement.json"
# Rounds of one run: gradients of a multilayer perceptron for 20 workers, about what MNIST costs.
WORK = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
x, w = torch.randn(1280, 784), torch.randn(784, 128)
g, out = torch.randn(20, 128, 64), torch.empty(20, 128, 784)
def step():
    h = (x @ w).relu_()
    torch.bmm(g, x.view(20, 64, 784), out=out)
    return out.mul_(0.9).add_(out, alpha=0.1), h
for _ in range(3): step()
print("ready", flush=True)
sys.stdin.readline()
done, end = 0, time.perf_counter() + float(sys.argv[2])
while time.perf_counter() < end:
    step()
    done += 1
print(done, flush=True)
"""


class ProcessLayout(NamedTuple):
    """So many processes at a time, each with so many threads."""

    processes: int
    threads: int


class LayoutRates(NamedTuple):
    """The layout that did most of the same work, and rounds per second of each that was tried."""

    best: ProcessLayout
    rates: dict[str, float]


class _Kept(msgspec.Struct):
    """What the cache holds."""

    cores: int
    best: tuple[int, int]
    rates: dict[str, float]


def best_layout() -> ProcessLayout:
    """The measured layout for independent runs; measures when this machine has none in the cache."""
    return layout_rates().best


def layout_rates(fresh: bool = False) -> LayoutRates:
    """The measurement, from the cache unless `fresh` or the machine's cores have changed."""
    path, cores = cache_directory() / NAME, available_cores()
    if not fresh:
        with suppress(OSError, ValueError):
            kept = parse_json(read(path, 1 << 16), _Kept)
            if kept.cores == cores and all(1 <= count <= cores for count in kept.best):
                return LayoutRates(ProcessLayout(*kept.best), kept.rates)
    measured = measure_layouts(cores)
    with suppress(OSError):  # a cache that cannot be written only costs the measurement next time
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"cores": cores} | measured._asdict()))
    return measured


def measure_layouts(cores: int, seconds: float = SECONDS) -> LayoutRates:
    """Try one process on all cores, a process for each core, and for pairs of cores where there are several.

    A tie, up to a tenth, goes to fewer processes, which need less memory.
    """
    tried = dict.fromkeys(ProcessLayout(p, max(1, cores // p)) for p in (1, max(1, cores // 2), cores))
    rates = {layout: rounds_per_second(layout, seconds) for layout in tried}
    best = ProcessLayout(1, 1)
    for layout, speed in rates.items():
        if best not in rates or speed > 1.1 * rates[best]:
            best = layout
    return LayoutRates(best, {f"{p} x {t}": round(speed, 1) for (p, t), speed in rates.items()})


def rounds_per_second(layout: ProcessLayout, seconds: float) -> float:
    """Rounds per second that all processes of a layout finish together."""
    command = [sys.executable, "-c", WORK, str(layout.threads), str(seconds)]
    environment = os.environ | {"OMP_NUM_THREADS": str(layout.threads)} | WAITING
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, env=environment, **pipes) for _ in range(layout.processes)]
    try:
        for worker in workers:
            worker.stdout.readline()  # type: ignore[union-attr]
        began = time.perf_counter()
        for worker in workers:
            worker.stdin.write("\n")  # type: ignore[union-attr]
            worker.stdin.flush()  # type: ignore[union-attr]
        done = [int(worker.stdout.readline() or 0) for worker in workers]  # type: ignore[union-attr]
        return sum(done) / (time.perf_counter() - began)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_directory() -> Path:
    """The user's cache directory of byzopt, where downloaded data are kept too."""
    return store.roots()[-1]
