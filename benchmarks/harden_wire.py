"""What `harden(..., wire=)` saves in bytes and costs in time and accuracy, beside plain DDP.

    python benchmarks/harden_wire.py

Writes docs/results/harden_wire.json and docs/results/harden_wire.md.
"""

from __future__ import annotations

import warnings
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from _harden_ranks import played
from _peers_env import described, machine, table, write
from byzopt import harden
from byzopt.tasks.data import digits

N, RULE = 4, "nnm >> rfa"
WIDTH, DEPTH, ROUNDS = 1024, 8, 7  # 8.4 million parameters
STEPS, SEEDS = 120, 5
WAYS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "as they are": {},
    'wire="bf16"': {"wire": "bf16"},
    'wire="int8"': {"wire": "int8"},
}

ABOUT = """# What compressed columns save

Written by `python benchmarks/harden_wire.py`: {n} ranks over gloo on one machine, one thread each, the rule
`{rule}` with f = 1, float32. What the ways mean: [harden.md](../harden.md#fewer-bytes).
{machine}.

Bytes are what a rank sends in a step of {d} parameters, in units of those of a plain all-reduce,
2 d (n-1)/n numbers. Times are medians over {rounds} rounds, in each of which all ways take their turn, of the
slowest rank's forward and backward pass, over that of plain DDP. Between processes of one machine bytes are
cheap, and what is left is the work of coding; over a network bytes are what a step waits for.

{costs}

Accuracy in percent on the digits that nobody trains on, after {steps} steps of AdamW, with a rank that sends
-10 times its gradient: the median over {seeds} seeds, and the least and the most.

{learning}
"""


def costs(rank: int) -> dict[str, Any]:
    """Seconds of each way's rounds, and the bytes that a step sends."""
    models, guards, times = {}, {}, {way: [] for way in WAYS}
    x = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(rank))
    for way, settings in WAYS.items():
        torch.manual_seed(0)
        models[way] = DistributedDataParallel(nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))))
        guards[way] = None if settings is None else harden(models[way], RULE, f=1, **settings)
    sent = {}
    for t in range(ROUNDS + 2):  # in the first two buckets are built and memory is taken
        for way, model in models.items():
            guard, before = guards[way], 0
            before = guard.comm.sent if guard is not None else 0
            model.zero_grad()
            dist.barrier()
            start = perf_counter()
            model(x).square().mean().backward()
            if t >= 2:
                times[way].append(perf_counter() - start)
            sent[way] = guard.comm.sent - before if guard is not None else 0
    return {"times": times, "sent": sent, "d": sum(p.numel() for p in model.parameters())}


def learning(rank: int, settings: dict[str, Any] | None, seed: int, lie: bool) -> float:
    """Accuracy after training."""
    (x, y), (new_x, new_y) = ((images.flatten(1), labels) for images, labels in digits())
    torch.manual_seed(seed)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)))
    if settings is not None:
        harden(model, RULE, f=1, **settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    own_x, own_y = x[rank::N], y[rank::N]
    draw = torch.Generator().manual_seed(1000 * seed + rank)
    for _ in range(STEPS):
        some = torch.randint(len(own_x), (32,), generator=draw)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(own_x[some]), own_y[some])
        (loss * (-10.0 if lie and rank == 1 else 1.0)).backward()
        optimizer.step()
    with torch.no_grad():
        return 100 * float((model.module(new_x).argmax(dim=1) == new_y).double().mean())


def everything(rank: int) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    out: dict[str, Any] = costs(rank)
    out["accuracy"] = {
        f"{way}, {'one' if lie else 'nobody'}": [learning(rank, settings, seed, lie) for seed in range(SEEDS)]
        for way, settings in WAYS.items()
        for lie in (False, True)
    }
    return out


def page(results: list[dict[str, Any]], here: dict[str, Any]) -> str:
    d = results[0]["d"]
    slowest = {
        way: [max(each) for each in zip(*(r["times"][way] for r in results), strict=True)] for way in WAYS
    }
    whole = 2 * d * (N - 1) / N * 4
    lines = []
    for way in WAYS:
        share = 1.0 if way == "plain" else max(r["sent"][way] for r in results) / whole
        ratio = median(a / b for a, b in zip(slowest[way], slowest["plain"], strict=True))
        lines.append([way, f"{share:.3f}", f"{ratio:.2f}"])
    learnt = []
    for way in WAYS:
        cells = [way]
        for who in ("nobody", "one"):
            found = results[0]["accuracy"][f"{way}, {who}"]
            cells.append(f"{median(found):.1f} ({min(found):.1f} to {max(found):.1f})")
        learnt.append(cells)
    return ABOUT.format(
        machine=described(here),
        n=N,
        rule=RULE,
        d=f"{d:,}",
        rounds=ROUNDS,
        steps=STEPS,
        seeds=SEEDS,
        costs=table(["columns", "bytes", "time / plain"], lines),
        learning=table(["columns", "nobody faulty", "one rank faulty"], learnt),
    )


if __name__ == "__main__":
    found = played(N, everything)
    here = machine()
    write("harden_wire", page(found, here), {"machine": here, "ranks": found})
