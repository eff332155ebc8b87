"""Time and bytes of a step: robust all-reduce in three topologies beside a plain one and a peer at rank 0.

    python benchmarks/allreduce.py [--quick] [--env DIR]

Every case runs in gloo processes on this machine, one thread each; a time is the median over steps of the
slowest rank's, and every step times all ways in turn. The peer, ByzFL, is what one does without this
library: gather all rows at rank 0, apply its rule there, broadcast. It needs `--env`, an environment with
byzfl in it (`peers_agree.py --env DIR` makes one); without, the column is left out. Writes
docs/results/allreduce.md and the JSON file beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch._dynamo  # what the first collective loads: once, and not in every rank
import torch.distributed as dist
import torch.multiprocessing as mp

from byzopt import rule_from
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.header import Header
from byzopt.distributed.reduce import robust_all_reduce

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results" / "allreduce"
RULES = {"geometric": "nnm >> rfa", "coordinate": "trimmed_mean"}
CASES = [(2, 10**6), (4, 10**6), (8, 10**5), (8, 10**6), (8, 10**7), (16, 10**6)]
QUICK = [(4, 10**5), (8, 10**6)]
TOPOLOGIES = ("sharded", "replicated", "server")
HEADER = 8 * len(Header._fields)  # bytes
MOST = 1 << 31  # bytes of rows on all ranks together beyond which `replicated` is left out
ABOUT = """# Robust all-reduce

Written by `python benchmarks/allreduce.py`. Milliseconds of one reduction of float32 vectors over
gloo, {n_cpu} cores shared by all ranks, one thread each, torch {torch}: the median over steps of the slowest
rank's time, all ways timed in turn in every step. In brackets: over the plain all-reduce of the same case.
Geometric: {geometric}; coordinate:
{coordinate}; f = (n-1)//4. More ranks than cores compete for them, so that all columns hold waiting, too.

{table}

Bytes a rank sends in a step, counted and by the model (s = 4 bytes a number):

{bytes}

## Model
A step costs latency, traffic and arithmetic: T = a L + b/B + c. With n ranks, d numbers of s bytes, link
bandwidth B and latency L of one message:

| way | bytes sent by the busiest rank | rounds of messages | arithmetic of a rank |
| --- | --- | --- | --- |
| plain (ring) | 2 s d (n-1)/n | 2 (n-1) | d |
| sharded, geometric | 2 s d (n-1)/n + 8 n (n+1) (n-1) + {header} (n-1) | 4 | n d + 2 d |
| sharded, coordinate | 2 s d (n-1)/n + {header} (n-1) | 3 | about d log² n |
| replicated | s d (n-1) + {header} (n-1) | 2 | n² d |
| server | s d (n-1) down, s d log n up at rank 0 | 2 log n | n² d at rank 0 |

With the n x n products go n numbers that say in which order rows are looked at. Over gloo every rank writes
to every other at once, which makes one round; a ring makes n - 1. From n = 51 on the products are summed by
an all-reduce, 16 n² (n-1)/n bytes. NCCL has its own ways for all of it.

On paper for d = 10⁸ float32, B = 25 GB/s a rank, L = 10 µs, 10¹³ operations a second (assumed, not measured;
rings for all collectives, memory bandwidth 10¹² bytes/s for what is read once):

{paper}

The n x n work (weights, scores) is the same on every rank and not in the table: from n = 256 on it depends on
the rule (RFA: 8 n² a step, negligible; Krum: n² log n; MDA and SMEA are exponential in f).
"""


def plain(vec: torch.Tensor) -> torch.Tensor:
    """What all others are measured against."""
    dist.all_reduce(vec)
    return vec


def peer(
    vec: torch.Tensor, aggregate: Callable[[torch.Tensor], torch.Tensor], comm: Communicator
) -> torch.Tensor:
    """Gather to one, apply the peer's rule there, broadcast."""
    rows = comm.gather(vec)
    return comm.broadcast(vec if rows is None else aggregate(rows))


def peers_rule(kind: str, f: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """ByzFL's rule with the same name."""
    import _unused  # noqa: F401

    # isort: split
    import byzfl

    if kind == "coordinate":
        return byzfl.TrMean(f=f)
    mixed, inner = byzfl.NNM(f=f), byzfl.GeometricMedian(T=8)
    return lambda rows: inner(mixed(rows))


def ways(d: int, n: int, peers: bool) -> dict[str, Callable[[torch.Tensor], Any]]:
    """Everything that is timed, by name."""
    comm, f = Communicator(), (n - 1) // 4
    found: dict[str, Callable[[torch.Tensor], Any]] = {"plain": plain}
    for kind, spelling in RULES.items():
        rule = rule_from(spelling, f=f)
        for topology in TOPOLOGIES:
            if topology == "sharded" or n * n * d * 4 <= MOST:
                found[f"{kind} {topology}"] = lambda vec, r=rule, w=topology: robust_all_reduce(
                    vec, r, topology=w
                )
        if peers and n * d <= 10**7:
            theirs = peers_rule(kind, f)
            found[f"{kind} peer"] = lambda vec, a=theirs: peer(vec, a, comm)
    return found


def one_rank(rank: int, n: int, d: int, place: str, steps: int, peers: bool) -> None:
    """Times every way in this rank; rank 0 writes down the slowest rank's medians and the bytes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/store", rank=rank, world_size=n)
    generator = torch.Generator().manual_seed(rank)
    vec = torch.randn(d, generator=generator) + 1
    timed = ways(d, n, peers)
    times: dict[str, list[float]] = {name: [] for name in timed}
    for step in range(-1, steps):  # the first makes buffers, connections, compiled kernels
        for name, way in timed.items():
            own = vec.clone()
            dist.barrier()
            start = perf_counter()
            way(own)
            took = torch.tensor([perf_counter() - start], dtype=torch.float64)
            dist.all_reduce(took, op=dist.ReduceOp.MAX)
            if step >= 0:
                times[name].append(1000 * float(took))
    result: dict[str, Any] = {name: {"ms": median(all), "least": min(all)} for name, all in times.items()}
    for topology in TOPOLOGIES:
        result.setdefault(f"geometric {topology}", {})["bytes"] = sent(vec, n, topology)
    if rank == 0:
        Path(place, "result.json").write_text(json.dumps(result), encoding="utf-8")
    dist.destroy_process_group()


def sent(vec: torch.Tensor, n: int, topology: str) -> int:
    """Payload bytes that the busiest rank sends in one geometric step, as counted by the communicator."""
    from byzopt.aggregators.core.filters import RoundContext
    from byzopt.distributed.agreement import exchange_headers
    from byzopt.distributed.reduce import FixedRule, aggregate, header_of
    from byzopt.distributed.topologies import Exchange

    if topology != "sharded" and n * n * len(vec) * 4 > MOST:
        return 0
    comm = Communicator()
    exchange = Exchange(
        FixedRule(rule_from(RULES["geometric"], f=(n - 1) // 4)), (), RoundContext(0, vec), {}
    )
    summary, _ = exchange_headers(comm, lambda: header_of(comm, vec, topology, exchange, ""))
    aggregate(comm, vec, topology, exchange, summary)
    most = torch.tensor([comm.sent], dtype=torch.int64)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)


def measured(n: int, d: int, steps: int, peers: bool) -> dict[str, Any]:
    """One case."""
    with tempfile.TemporaryDirectory() as place:
        mp.start_processes(one_rank, (n, d, place, steps, peers), nprocs=n, start_method="fork")
        return dict(json.loads(Path(place, "result.json").read_text(encoding="utf-8")))


def paper(d: float = 1e8, s: float = 4, bandwidth: float = 25e9, latency: float = 1e-5) -> str:
    """The model's milliseconds for many ranks."""
    from math import log2

    lines = [
        "| ranks | plain | sharded, geometric | sharded, coordinate | replicated | server |",
        "| --- |" + " ---: |" * 5,
    ]
    flops, memory = 1e13, 1e12
    for n in (64, 128, 256, 512, 1024):
        ring = 2 * s * d * (n - 1) / n / bandwidth
        times = [
            2 * (n - 1) * latency + ring,
            (4 * (n - 1) + 2 * log2(n)) * latency
            + ring
            + (16 * n * n) / bandwidth
            + 2 * n * d / flops
            + 3 * s * d / memory,
            3 * (n - 1) * latency + ring + d * log2(n) ** 2 / flops + 2 * s * d / memory,
            2 * (n - 1) * latency + s * d * (n - 1) / bandwidth + 2 * n * n * d / flops,
            2 * log2(n) * latency + s * d * (n - 1 + log2(n)) / bandwidth + 2 * n * n * d / flops,
        ]
        lines.append(f"| {n} | " + " | ".join(f"{1000 * t:.0f}" for t in times) + " |")
    return "\n".join(lines)


def tables(cases: dict[str, Any]) -> tuple[str, str]:
    """The table of times, and that of bytes."""
    names = list(dict.fromkeys(k for case in cases.values() for k in case["ways"] if "ms" in case["ways"][k]))
    head = "| ranks, d | " + " | ".join(names) + " |\n| --- |" + " ---: |" * len(names)
    times = [head]
    counted = [
        "| ranks, d | sharded | model | replicated | model | server (rank 0) | model |\n| --- |"
        + " ---: |" * 6
    ]
    for label, case in cases.items():
        base, cells = case["ways"]["plain"]["ms"], []
        for name in names:
            ms = case["ways"].get(name, {}).get("ms")
            cells.append(
                "-" if ms is None else f"{ms:.3g}" + ("" if name == "plain" else f" ({ms / base:.2f})")
            )
        times.append(f"| {label} | " + " | ".join(cells) + " |")
        n, d = case["n"], case["d"]
        model = (
            8 * d * (n - 1) / n + (8 * n * (n + 1) + HEADER) * (n - 1),
            (4 * d + HEADER) * (n - 1),
            4 * d,
        )
        found = [case["ways"][f"geometric {t}"]["bytes"] for t in TOPOLOGIES]
        pairs = [f"{a or '-'} | {b:.0f}" for a, b in zip(found, model, strict=True)]
        counted.append(f"| {label} | " + " | ".join(pairs) + " |")
    return "\n".join(times), "\n".join(counted)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two cases, few steps, nothing written")
    parser.add_argument("--env", type=Path, help="an environment that holds byzfl")
    options = parser.parse_args()
    if options.env:
        sys.path += map(str, options.env.glob("lib/python*/site-packages"))
    cases = {}
    for n, d in QUICK if options.quick else CASES:
        steps = 5 if options.quick or d > 10**6 else 11
        found = measured(n, d, steps, bool(options.env))
        cases[f"{n}, {d:.0e}".replace("e+0", "e")] = {"n": n, "d": d, "steps": steps, "ways": found}
        print(n, d, json.dumps(found), flush=True)
    times, counted = tables(cases)
    if options.quick:
        print(times, counted, sep="\n\n")
        return
    import os

    text = ABOUT.format(
        n_cpu=os.cpu_count(),
        torch=torch.__version__,
        table=times,
        bytes=counted,
        paper=paper(),
        header=HEADER,
        **RULES,
    )
    RESULTS.with_suffix(".md").write_text(text, encoding="utf-8")
    RESULTS.with_suffix(".json").write_text(json.dumps(cases, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
