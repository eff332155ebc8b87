"""What `harden` costs: step times and memory of multilayer perceptrons, plain and hardened in turn."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist

from _harden_ranks import played
from _harden_ways import ALONE, RULES, WAYS, Run, alone, step

BATCH = 32
ROUNDS = {10**6: 25, 10**7: 9, 10**8: 2}
CASES = [  # eight replicas of 10⁸ parameters take 16 GB, and eight shards minutes a round
    (wrapper, n, d) for wrapper in WAYS for d in ROUNDS for n in (2, 4, 8) if (n, d) != (8, 10**8)
]
MEMORY = (4, 10**7)  # the ranks and parameters whose memory is looked at
_BIG = 10**8  # parameters from which only one replica is held at a time

ABOUT = """# What hardened steps cost

Written by `python benchmarks/harden.py --only time`. {cpus} cores shared by all ranks, one thread each, torch
{torch}, gloo. What hardened scripts bear: [harden.md](harden.md).

Milliseconds of a forward and backward pass of d parameters on {batch} samples: the median over rounds of the
slowest rank. In every round all ways take their turn; in brackets the median over rounds of the ratio to
plain. `geometric` is `{geometric}`, `coordinate` is `{coordinate}`. The floor moves the same bytes as a
hardened step, all-to-all out and back, and does nothing with them. More ranks than cores compete for them, so
that all times hold waiting, too, and an exchange can hardly hide. Eight ranks with 10⁸ parameters are left
out: they take 16 GB as replicas, and minutes a round as shards. What else has no row was not measured. Other
jobs ran on the machine (load {least:.0f} to {most:.0f}){priority}.

## DistributedDataParallel
"Hidden" is the share of an exchange by itself that a step does not take longer for: 1 - (step - step without
an exchange) / (all-reduce, or robust all-reduce, of the same vector by itself).

{replicated}

## FSDP2
Every layer and the root under `fully_shard`; `whole model` is the geometric chain with `scope="model"`. The
floor of its reduce-scatter is an all-to-all; parameters are gathered as before in all columns. gloo's own
reduce-scatter, which plain steps take, is slower than that with four ranks and more.

{sharded}

## Memory
The most that a process held in three steps, above plain, in units of d numbers of four bytes, with
{memory_n} ranks and d = {memory_d}: the largest of all ranks.

{memory}
"""


def measured(quick: bool, chosen: str = "", before: dict[str, Any] | None = None) -> dict[str, Any]:
    """The cases whose name contains `chosen`, and their load; the others as they were `before`."""
    found: dict[str, Any] = before or {"times": {}, "memory": {}}
    for wrapper, n, d in CASES:
        name = f"{wrapper}, {n}, {power(d)}"
        if chosen not in name or (quick and (d > 10**6 or n > 4)):
            continue
        case = played(n, times, wrapper, d, 3 if quick else ROUNDS[d])[0]
        found["times"][name] = case | {"load": os.getloadavg()[0], "nice": os.nice(0)}
        print(name, {way: f"{median(spent):.0f}" for way, spent in case.items()}, flush=True)
    for wrapper, ways in WAYS.items():
        if chosen in f"{wrapper}, memory":
            n, d = (2, 10**6) if quick else MEMORY
            peaks = {way: max(played(n, peak, wrapper, way, d)) for way in ("plain", *RULES) if way in ways}
            found["memory"][wrapper] = {w: (peak - peaks["plain"]) / 4 / d for w, peak in peaks.items()}
            print(wrapper, found["memory"][wrapper], flush=True)
    return found


def times(rank: int, wrapper: str, d: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of the slowest rank, by way and round."""
    made: dict[str, Run] = {}
    ways = [*WAYS[wrapper], *(ALONE if wrapper == "DDP" else ())]
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            run = made.get(way) or ready(wrapper, way, d)
            spent[way].append(1000 * slowest(run))
            if wrapper != "DDP" or d < _BIG:
                made[way] = run
            else:
                del run
                gc.collect()
    return spent


def ready(wrapper: str, way: str, d: int) -> Run:
    """A way that has had the two steps in which buckets, buffers and kernels are made."""
    run = alone(way, d) if way in ALONE else step(wrapper, way, d, BATCH)
    run()
    run()
    return run


def slowest(run: Run) -> float:
    dist.barrier()
    start = perf_counter()
    run()
    told = torch.tensor([perf_counter() - start], dtype=torch.float64)
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return float(told)


def peak(rank: int, wrapper: str, way: str, d: int) -> int:
    """Bytes of this process at most, in three steps."""
    give_back_at_once()
    for each in WAYS[wrapper]:  # brings in what does not depend on d: libraries, compiled kernels
        step(wrapper, each, 10**5, 8)()
    run = step(wrapper, way, d, 8)
    for _ in range(3):
        run()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def give_back_at_once() -> None:
    """What is freed goes back to the system, so that the peak is what is held (glibc)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    loads = [case["load"] for case in found["times"].values()]
    above = all(case["nice"] < 0 for case in found["times"].values())
    return ABOUT.format(
        cpus=os.cpu_count(),
        torch=torch.__version__,
        batch=BATCH,
        geometric=RULES["geometric"],
        coordinate=RULES["coordinate"],
        least=min(loads),
        most=max(loads),
        priority=", at a lower priority" if above else "",
        replicated=timetable(found["times"], "DDP"),
        sharded=timetable(found["times"], "FSDP2"),
        memory_n=MEMORY[0],
        memory_d=power(MEMORY[1]),
        memory=memory_table(found["memory"]),
    )


def timetable(cases: dict[str, Any], wrapper: str) -> str:
    ways = [way for way in WAYS[wrapper] if way != "no exchange"]
    hides = [way for way in ways if f"{way} alone" in ALONE]
    heads = [
        part for way in ways for part in ([way, "hidden"] if wrapper == "DDP" and way in hides else [way])
    ]
    lines = ["| ranks, d | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for _, n, d in (each for each in CASES if each[0] == wrapper):
        case = cases.get(f"{wrapper}, {n}, {power(d)}")
        if case is None:
            continue
        cells = []
        for way in ways:
            ratios = [one / plain for one, plain in zip(case[way], case["plain"], strict=True)]
            cells.append(f"{median(case[way]):.0f}" + (f" ({median(ratios):.2f})" if way != "plain" else ""))
            if wrapper == "DDP" and way in hides:
                cells.append(f"{100 * hidden(case, way):.0f}%")
        lines.append(f"| {n}, {power(d)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def hidden(case: dict[str, Any], way: str) -> float:
    """The share of an exchange that is not seen in a step, between 0 and 1."""
    seen = median(case[way]) - median(case["no exchange"])
    return min(1.0, max(0.0, 1 - seen / median(case[f"{way} alone"])))


def memory_table(found: dict[str, Any]) -> str:
    heads = list(RULES)
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for wrapper, peaks in found.items():
        cells = [f"{round(peaks[way], 1) + 0.0} d" if way in peaks else "-" for way in heads]
        lines.append(f"| {wrapper} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def power(d: int) -> str:
    return f"{d:.0e}".replace("e+0", "e")
