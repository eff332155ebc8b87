"""What `harden` costs: step times and memory of multilayer perceptrons, plain and hardened in turn."""

from __future__ import annotations

import os
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from _harden_ranks import played
from byzopt import harden
from byzopt.distributed import robust_all_reduce
from byzopt.distributed.harden.bucket_hook import BucketHook

RULES = {"geometric": "nnm >> rfa", "coordinate": "trimmed_mean"}
SIZES = ((2, 10**6), (4, 10**6), (8, 10**6), (2, 10**7), (4, 10**7), (8, 10**7))
BATCH = 32

ABOUT = """# What hardened steps cost

Written by `python benchmarks/harden.py --only time`. {cpus} cores shared by all ranks, one thread each, torch
{torch}, gloo. What hardened scripts bear: [harden.md](harden.md).

Milliseconds of a forward and backward pass of d parameters on {batch} samples: the median over steps of the
slowest rank, all ways in turn in every step. In brackets: over plain `DistributedDataParallel`. "Hidden" is
the share of the exchange behind backward: 1 - (time after the last bucket was full) / (a robust all-reduce of
the same vector by itself). Memory: the largest of a process above a plain one's, in units of d numbers. More
ranks than cores compete for them, so that all times hold waiting, too; other jobs ran beside these (load
{load:.0f}).

{times}
"""


def measured(quick: bool) -> dict[str, Any]:
    """All cases, and how busy the machine was."""
    found: dict[str, Any] = {"load": os.getloadavg()[0], "times": {}}
    for n, d in SIZES[:2] if quick else SIZES:
        case = played(n, times, d, 5 if d > 10**6 else 15, BATCH)[0]
        if (n, d) == (4, 10**7):
            peaks = {kind: max(played(n, peak, d, kind)) for kind in ("plain", *RULES)}
            case["memory"] = {kind: (peaks[kind] - peaks["plain"]) / 4 / d for kind in RULES}
        print(n, d, case, flush=True)
        found["times"][f"{n}, {d:.0e}".replace("e+0", "e")] = case
    return found


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    return ABOUT.format(
        cpus=os.cpu_count(),
        torch=torch.__version__,
        batch=BATCH,
        load=found["load"],
        times=timetable(found["times"]),
    )


def perceptron(d: int) -> nn.Module:
    """About d parameters in ten square layers; four for 10⁶ and less."""
    depth = 10 if d > 10**6 else 4
    width = int((d / depth) ** 0.5)
    torch.manual_seed(0)
    return nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(width, width), nn.ReLU())])


def times(rank: int, d: int, steps: int, batch: int) -> dict[str, Any]:
    """Milliseconds of forward and backward, all ways in turn; how much of the exchange is not hidden."""
    n = dist.get_world_size()
    models: dict[str, Any] = {"plain": DistributedDataParallel(perceptron(d))}
    for kind, rule in RULES.items():
        models[kind] = DistributedDataParallel(perceptron(d))
        harden(models[kind], rule, f=(n - 1) // 3 if n > 2 else 0)
    width = models["plain"].module[0].in_features
    inputs = torch.randn(batch, width, generator=torch.Generator().manual_seed(rank))
    exposed: dict[int, float] = {}
    end = BucketHook._end

    def watched(hook: BucketHook) -> None:
        start = perf_counter()
        end(hook)
        exposed[id(hook)] = perf_counter() - start

    BucketHook._end = watched  # type: ignore[method-assign]
    spent: dict[str, list[float]] = {name: [] for name in models}
    for step in range(-2, steps):
        for name, model in models.items():
            model.zero_grad()
            dist.barrier()
            start = perf_counter()
            model(inputs).square().mean().backward()
            slowest(spent, name, perf_counter() - start, step >= 0)
            if name != "plain":
                slowest(spent, f"{name} exposed", exposed[id(model._comm_hooks[0][1])], step >= 0)
        vec = torch.cat([p.grad.reshape(-1) for p in models["plain"].parameters()])
        for kind, rule in RULES.items():
            dist.barrier()
            start = perf_counter()
            robust_all_reduce(vec, rule, f=(n - 1) // 3 if n > 2 else 0)
            slowest(spent, f"{kind} alone", perf_counter() - start, step >= 0)
    BucketHook._end = end  # type: ignore[method-assign]
    return {name: 1000 * median(each) for name, each in spent.items()}


def slowest(spent: dict[str, list[float]], name: str, seconds: float, counts: bool) -> None:
    told = torch.tensor([seconds], dtype=torch.float64)
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    if counts:
        spent.setdefault(name, []).append(float(told))


def peak(rank: int, d: int, kind: str) -> int:
    """Bytes of this process at most, in three steps."""
    import resource

    for size in (10**6, d):  # the first brings in what does not depend on d: libraries, compiled kernels
        model = DistributedDataParallel(perceptron(size))
        if kind != "plain" or size < d:
            harden(model, RULES.get(kind, RULES["geometric"]), f=1)
        inputs = torch.randn(8, model.module[0].in_features)
        for _ in range(3):
            model.zero_grad()
            model(inputs).square().mean().backward()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def timetable(cases: dict[str, Any]) -> str:
    head = ["ranks, d", "plain"]
    for kind in RULES:
        head += [kind, "hidden", "memory"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for label, case in cases.items():
        cells = [label, f"{case['plain']:.0f}"]
        for kind in RULES:
            hidden = max(0.0, 1 - case[f"{kind} exposed"] / case[f"{kind} alone"])
            room = case.get("memory", {}).get(kind)
            cells += [f"{case[kind]:.0f} ({case[kind] / case['plain']:.2f})", f"{100 * hidden:.0f}%"]
            cells.append("-" if room is None else f"{room:.1f} d")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
