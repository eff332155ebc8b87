"""What `harden` keeps of plain scripts and what it bears: a small network on scikit-learn's digits."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from _harden_ranks import played
from byzopt import harden

RANKS, FAULTY, STEPS, BATCH = 4, 1, 150, 32
RULE = "nnm >> rfa"

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


# ---- the page ----


def measured(quick: bool) -> dict[str, Any]:
    """All rows of the table, one wrapper if `quick`, and the curves of momentum."""
    found: dict[str, Any] = {"faults": {}}
    for wrapper in list(WRAPPERS)[: 1 if quick else None]:
        found["faults"][wrapper] = played(RANKS, faults, wrapper)[0]
        print(wrapper, found["faults"][wrapper], flush=True)
    found["momentum"] = played(RANKS, momentum)[0]
    return found


ABOUT = """# Hardened scripts beside plain ones

Written by `python benchmarks/harden.py --only faults`. {cpus} cores shared by all ranks, one thread each,
torch {torch}, gloo. What a step costs: [harden_time.md](harden_time.md).

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
"""


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
    )


def shown(cell: Any) -> str:
    if cell is None:
        return "-"
    return f"{cell[0]:.1f} → **{cell[1]:.1f}**" if isinstance(cell, list) else f"{cell:.0e}"
