"""What `harden` keeps of plain scripts, what it bears, and what it costs beside them.

    python benchmarks/harden.py [--quick] [--only faults|time|momentum]

Every case runs in gloo processes on this machine, one thread each. Faults: a small network on scikit-learn's
digits, AdamW, four ranks, one of them faulty, plain and hardened. Time: multilayer perceptrons of d
parameters, plain and hardened, a step of each in turn. Writes docs/results/harden.md and the JSON file
beside it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import torch
import torch._dynamo  # what optimizers load: once, and not in every rank
import torch.distributed as dist
import torch.multiprocessing as mp
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.distributed import robust_all_reduce
from byzopt.distributed.harden.bucket_hook import BucketHook

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results" / "harden"
RANKS, FAULTY, STEPS, BATCH = 4, 1, 150, 32
RULE = "nnm >> rfa"
RULES = {"geometric": "nnm >> rfa", "coordinate": "trimmed_mean"}
SIZES = ((2, 10**6), (4, 10**6), (8, 10**6), (2, 10**7), (4, 10**7), (8, 10**7))


# ---- what is wrapped ----


class Wrapper(NamedTuple):
    """How a script wraps its model, makes its optimizer, and accumulates without an exchange."""

    wrap: Callable[[nn.Module], Any]
    optimizer: Callable[[Any], Any]
    quiet: Callable[[Any], AbstractContextManager[Any]]


def adamw(model: Any) -> Any:
    """Two groups, as most scripts have them."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others}], lr=3e-3)


def zero(model: Any) -> Any:
    return ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=3e-3)


def replicated(module: nn.Module) -> Any:
    return DistributedDataParallel(module, bucket_cap_mb=0.01)  # several buckets, small as the model is


WRAPPERS = {
    "DDP": Wrapper(replicated, adamw, lambda model: model.no_sync()),
    "DDP + ZeRO": Wrapper(replicated, zero, lambda model: model.no_sync()),
}


# ---- what goes wrong ----


def stale() -> Callable[[Tensor, int], Tensor]:
    held: dict[tuple[int, ...], Tensor] = {}
    return lambda g, t: held.setdefault(tuple(g.shape), 30 * g.clone())


def flipped(g: Tensor, t: int) -> Tensor:
    """The highest bit of the exponent of every hundredth number, others in each step."""
    out = g.clone()
    bits = out.view(-1).view(torch.int32)
    bits[t % 100 :: 100] ^= 1 << 30
    return out


FAULTS: dict[str, Callable[[], Callable[[Tensor, int], Tensor]]] = {
    "-10x": lambda: lambda g, t: -10 * g,
    "NaN once": lambda: lambda g, t: torch.full_like(g, torch.nan) if t == 20 else g,
    "NaN always": lambda: lambda g, t: torch.full_like(g, torch.nan),
    "1e30": lambda: lambda g, t: torch.full_like(g, 1e30),
    "flipped bits": lambda: flipped,
    "stale, 30x": stale,
}
SCRIPTS: dict[str, dict[str, Any]] = {
    "GradScaler": {"fault": "NaN once", "scale": 2.0**120},
    "accumulation": {"fault": "-10x", "accumulate": 4},
    "clipping": {"fault": "-10x", "clip": 1.0},
    "bad data on rank 0, BatchNorm": {"norm": True},
}


# ---- the script ----


def digits(rank: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """This rank's images and labels, and those of the test."""
    data = load_digits()
    images, labels = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    test, own = order[:397], order[397:][rank::n]
    return images[own], labels[own], images[test], labels[test]


def network(norm: bool) -> nn.Sequential:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(64)] if norm else []
    return nn.Sequential(
        nn.Linear(64, 64), *middle, nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def train(
    wrapper: Wrapper,
    rule: str | None,
    *,
    fault: str | None = None,
    norm: bool = False,
    scale: float = 0.0,
    accumulate: int = 1,
    clip: float = 0.0,
    steps: int = STEPS,
    saved: bool = False,
    optimizer: Callable[[Any], Any] | None = None,
    **settings: Any,
) -> tuple[float, Tensor, list[float]]:
    """Accuracy of rank 0's model, its parameters, and the test loss every tenth step."""
    rank, n = dist.get_rank(), dist.get_world_size()
    images, labels, test, truth = digits(rank, n)
    step_of, forge = [0], FAULTS[fault]() if fault else None

    def built() -> tuple[nn.Module, Any, Any, Any]:
        module = network(norm)
        if forge and rank == FAULTY:
            for parameter in module.parameters():
                parameter.register_hook(lambda g: forge(g, step_of[0]))
        model = wrapper.wrap(module)
        guard = harden(model, rule, f=0 if rule == "mean" else 1, **settings) if rule else None
        return module, model, (optimizer or wrapper.optimizer)(model), guard

    module, model, opt, guard = built()
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 0)
    curve = []
    for t in range(steps):
        step_of[0] = t
        if saved and t == steps // 2:
            module, model, opt, guard = resumed(built, module, opt, guard)
        generator = torch.Generator().manual_seed(1_000_003 * rank + t)
        opt.zero_grad()
        for k in range(accumulate):
            batch = torch.randint(len(images), (BATCH,), generator=generator)
            inputs = images[batch] * (torch.nan if norm and rank == 0 and t == 20 else 1.0)
            with nullcontext() if k == accumulate - 1 else wrapper.quiet(model):
                loss = nn.functional.cross_entropy(model(inputs), labels[batch]) / accumulate
                scaler.scale(loss).backward()
        scaler.unscale_(opt)
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(opt)
        scaler.update()
        if t % 10 == 9:
            curve.append(evaluated(module, test, truth)[1])
    accuracy, _ = evaluated(module, test, truth)
    return accuracy, torch.cat([p.detach().reshape(-1) for p in module.parameters()]), curve


def resumed(built: Any, module: nn.Module, opt: Any, guard: Any) -> Any:
    """As a script does that is started again: rank 0's checkpoint for all, each rank's own guard state."""
    if hasattr(opt, "consolidate_state_dict"):
        opt.consolidate_state_dict(0)
    file = io.BytesIO()
    if dist.get_rank() == 0:
        torch.save((module.state_dict(), opt.state_dict()), file)
    told = [file.getvalue()]
    dist.broadcast_object_list(told)
    model_state, opt_state = torch.load(io.BytesIO(told[0]), weights_only=True)
    own = guard.state_dict() if guard else None
    module, model, opt, guard = built()
    module.load_state_dict(model_state)
    opt.load_state_dict(opt_state)
    if guard:
        guard.load_state_dict(own)
    return module, model, opt, guard


def evaluated(module: nn.Module, test: Tensor, truth: Tensor) -> tuple[float, float]:
    module.eval()
    with torch.no_grad():
        out = module(test)
    module.train()
    loss = float(nn.functional.cross_entropy(out, truth))
    return 100 * float((out.argmax(dim=1) == truth).float().mean()), loss


def faults(rank: int, wrapper: str) -> dict[str, Any]:
    """A row of the table: a number for the first and the last column, pairs plain and hardened else."""
    chosen = WRAPPERS[wrapper]
    clean, plain, _ = train(chosen, None)
    _, ours, _ = train(chosen, "mean")
    row: dict[str, Any] = {"clean": clean, "mean": float((plain - ours).abs().max())}
    cases = {name: {"fault": name} for name in FAULTS} | SCRIPTS
    for name, case in cases.items():
        row[name] = [train(chosen, rule, **case)[0] for rule in (None, RULE)]
    ends = [train(chosen, RULE, fault="-10x", momentum=0.9, saved=saved)[1] for saved in (False, True)]
    row["resume"] = float((ends[0] - ends[1]).abs().max())
    return row


def momentum(rank: int) -> dict[str, list[float]]:
    """Test losses of AdamW on averages: nobody lies."""
    betas = {"0.9": (0.9, 0.999), "0": (0.0, 0.999)}
    out = {"plain AdamW": train(WRAPPERS["DDP"], None)[2]}
    for name, pair in betas.items():
        out[f"momentum=0.9, β₁ = {name}"] = train(
            WRAPPERS["DDP"],
            RULE,
            momentum=0.9,
            optimizer=lambda model, pair=pair: torch.optim.AdamW(model.parameters(), lr=3e-3, betas=pair),
        )[2]
    return out


# ---- time ----


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
            harden(model, RULES.get(kind, RULE), f=1)
        inputs = torch.randn(8, model.module[0].in_features)
        for _ in range(3):
            model.zero_grad()
            model(inputs).square().mean().backward()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# ---- running and writing ----


def played(n: int, play: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`play(rank, *arguments)` in n processes of one group; the results by rank."""
    with tempfile.TemporaryDirectory() as place:
        mp.start_processes(_one, (n, place, play, arguments), nprocs=n, start_method="fork")
        return [torch.load(Path(place, f"{rank}.pt"), weights_only=False) for rank in range(n)]


def _one(rank: int, n: int, place: str, play: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{place}/store", n)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=n, timeout=timedelta(minutes=10))
    torch.save(play(rank, *arguments), Path(place, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()


ABOUT = """# Hardened scripts beside plain ones

Written by `python benchmarks/harden.py`. {cpus} cores shared by all ranks, one thread each, torch {torch},
gloo.

## What goes wrong
A network of 9,000 parameters on scikit-learn's digits, {steps} steps of AdamW, {ranks} ranks, of which rank 1
is faulty (rank 0 where it says so); `harden(model, "{rule}", f=1)`. Test accuracy in percent, plain →
hardened; without faults a plain run has {clean}.
"mean = plain" and "resume" are the largest differences of a parameter: of a run hardened with "mean" from a
plain one, and of a run with momentum that was saved half-way and started again from one that was not.

{faults}

Under a `GradScaler` a plain run bears NaN once: it skips that step. The hardened one does not skip it.

## Worker momentum before AdamW
Test loss, nobody lies: the optimizer sees averages of ten gradients.

{momentum}

## Time and memory
Milliseconds of a forward and backward pass of d parameters on {batch} samples: the median over steps of the
slowest rank, all ways in turn in every step. In brackets: over plain `DistributedDataParallel`. "Hidden" is
the share of the exchange behind backward: 1 - (time after the last bucket was full) / (a robust all-reduce of
the same vector by itself). Memory: the largest of a process above a plain one's, in units of d numbers. More
ranks than cores compete for them, so that all times hold waiting, too; {load}

{times}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, nothing written")
    parser.add_argument("--only", choices=["faults", "time", "momentum"])
    options = parser.parse_args()
    path = RESULTS.with_suffix(".json")
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if options.only in (None, "faults"):
        for wrapper in WRAPPERS:
            row = played(RANKS, faults, wrapper)[0]
            print(wrapper, json.dumps(row), flush=True)
            found.setdefault("faults", {})[wrapper] = row
    if options.only in (None, "momentum"):
        found["momentum"] = played(RANKS, momentum)[0]
    if options.only in (None, "time"):
        found["load"] = os.getloadavg()[0]
        for n, d in SIZES[:2] if options.quick else SIZES:
            case = played(n, times, d, 5 if d > 10**6 else 15, 32)[0]
            if (n, d) == (4, 10**7):
                peaks = {kind: max(played(n, peak, d, kind)) for kind in ("plain", *RULES)}
                case["memory"] = {kind: (peaks[kind] - peaks["plain"]) / 4 / d for kind in RULES}
            print(n, d, json.dumps(case), flush=True)
            found.setdefault("times", {})[f"{n}, {d:.0e}".replace("e+0", "e")] = case
    if options.quick:
        return
    path.write_text(json.dumps(found, indent=1) + "\n")
    if {"faults", "momentum", "times"} <= set(found):
        RESULTS.with_suffix(".md").write_text(page(found))


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = found["faults"]
    names = [name for name in next(iter(rows.values())) if name != "clean"]
    lines = [
        "| | " + " | ".join(names).replace("mean", "mean = plain") + " |",
        "| --- |" + " ---: |" * len(names),
    ]
    for wrapper, row in rows.items():
        cells = [row.get(name) for name in names]
        lines.append(f"| {wrapper} | " + " | ".join(map(shown, cells)) + " |")
    curves = found["momentum"]
    marks = (1, 3, 7, 14)
    heads = " | ".join(f"step {10 * k + 10}" for k in marks)
    losses = [f"| | {heads} |", "| --- |" + " ---: |" * len(marks)]
    losses += [
        f"| {name} | " + " | ".join(f"{curve[k]:.3f}" for k in marks) + " |" for name, curve in curves.items()
    ]
    clean = ", ".join(f"{row['clean']:.1f} ({wrapper})" for wrapper, row in rows.items())
    return ABOUT.format(
        cpus=os.cpu_count(),
        torch=torch.__version__,
        steps=STEPS,
        ranks=RANKS,
        rule=RULE,
        clean=clean,
        faults="\n".join(lines),
        momentum="\n".join(losses),
        batch=32,
        load=f"other jobs ran beside these (load {found['load']:.0f}).",
        times=timetable(found["times"]),
    )


def shown(cell: Any) -> str:
    if cell is None:
        return "-"
    return f"{cell[0]:.1f} → **{cell[1]:.1f}**" if isinstance(cell, list) else f"{cell:.0e}"


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


if __name__ == "__main__":
    main()
