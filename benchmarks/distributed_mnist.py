"""Eight gloo ranks learn MNIST while one or two send something else: a robust rule beside a plain sum.

    BYZOPT_DATA_DIR=DIR python benchmarks/distributed_mnist.py [--steps T]

A network 784-64-10, batches of 32 a rank, each rank with an eighth of the training images. Plain: gradients
averaged by all_reduce, then torch.optim.SGD. Robust: RobustSGD with the same lr and momentum. Writes
docs/results/distributed_mnist.md and the JSON file beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from byzopt.distributed import RobustSGD
from byzopt.tasks.data.loaders import mnist

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results" / "distributed_mnist"
RANKS, MOST, BATCH, LR, MOMENTUM, RULE = 8, 2, 32, 0.1, 0.9, "nnm >> rfa"
FAULTS = {
    "bits": "one random bit of every number of the gradient flipped",
    "negated": "minus the gradient",
    "ALIE": "mean - 1.5 standard deviations of the honest gradients, coordinate by coordinate",
    "NaN": "NaN in every coordinate",
    "1e30": "1e30 in every coordinate",
    "stale": "the gradient of 20 steps ago",
}
Case = tuple[str, str, int]  # way, fault, faulty ranks
ABOUT = """# MNIST over eight ranks

Written by `python benchmarks/distributed_mnist.py`. {ranks} gloo ranks, a network 784-64-10, {steps} steps,
batches of {batch} a rank, lr {lr}, momentum {momentum}, torch {torch}. Accuracy on the 10,000 test images in
percent, in brackets the difference to the run of the same kind without faults. `RobustSGD` with `{rule}` and
f = {most}, topology sharded; plain is `torch.optim.SGD` on gradients averaged by an all-reduce.

{table}

Faults, in every step of the last ranks:

{faults}

{reading}
"""


def forged(fault: str, own: Tensor, past: list[Tensor], faulty: int, dice: torch.Generator) -> Tensor:
    """What a faulty rank has in the place of its gradient `own` `[d]`; all ranks call it."""
    if fault == "ALIE":
        everyone = [torch.empty_like(own) for _ in range(RANKS)]
        dist.all_gather(everyone, own)
        honest = torch.stack(everyone[: RANKS - faulty])
        return honest.mean(dim=0) - 1.5 * honest.std(dim=0)
    if fault == "bits":
        places = torch.randint(32, own.shape, generator=dice, dtype=torch.int32)
        return (own.view(torch.int32) ^ (1 << places)).view(torch.float32)
    value = {"NaN": torch.nan, "1e30": 1e30}.get(fault)
    if value is not None:
        return torch.full_like(own, value)
    return {"none": own, "negated": -own, "stale": past[max(0, len(past) - 21)]}[fault]


def trained(rank: int, case: Case, steps: int, train: Any, test: Any) -> float:
    """Test accuracy in percent on this rank."""
    way, fault, faulty = case
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    parameters = list(model.parameters())
    optimizer: torch.optim.Optimizer
    if way == "plain":
        optimizer = torch.optim.SGD(parameters, LR, MOMENTUM)
    else:
        optimizer = RobustSGD(parameters, LR, MOMENTUM, rule=RULE, f=MOST)
    images, labels = train
    own = torch.arange(rank, len(labels), RANKS)
    dice = torch.Generator().manual_seed(1 + rank)
    past: list[Tensor] = []
    for _ in range(steps):
        batch = own[torch.randint(len(own), (BATCH,), generator=dice)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pixels(images[batch])), labels[batch]).backward()
        past = [*past[-20:], torch.cat([p.grad.reshape(-1) for p in parameters])]
        gradient = forged(fault, past[-1], past, faulty, dice)
        gradient = gradient if rank >= RANKS - faulty else past[-1]
        if way == "plain":
            gradient = gradient.clone()
            dist.all_reduce(gradient)
            gradient /= RANKS
        for p, part in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)
        optimizer.step()
    with torch.no_grad():
        right = (model(pixels(test[0])).argmax(dim=1) == test[1]).float().mean()
    return 100 * float(right)


def pixels(images: Tensor) -> Tensor:
    """Images as rows in [0, 1]."""
    return images.flatten(1).float() / 255


def one_rank(rank: int, place: str, cases: list[Case], steps: int) -> None:
    """All cases in this rank; rank 0 writes down its accuracies."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/store", rank=rank, world_size=RANKS)
    train, test = mnist()
    found = []
    for case in cases:
        start = perf_counter()
        found.append(trained(rank, case, steps, train, test))
        if rank == 0:
            print(*case, f"{found[-1]:.2f} in {perf_counter() - start:.0f} s", flush=True)
    if rank == 0:
        Path(place, "result.json").write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


def table(found: dict[Case, float]) -> str:
    """Faults down, ways across."""
    ways = [("robust", k) for k in range(1, MOST + 1)] + [("plain", k) for k in range(1, MOST + 1)]
    lines = ["| fault | " + " | ".join(f"{way}, {k} faulty" for way, k in ways) + " |"]
    lines.append("| --- |" + " ---: |" * len(ways))
    lines.append("| none | " + " | ".join(f"{found[way, 'none', 0]:.2f}" for way, _ in ways) + " |")
    for fault in FAULTS:
        cells = [
            f"{found[way, fault, k]:.2f} ({found[way, fault, k] - found[way, 'none', 0]:+.2f})"
            for way, k in ways
        ]
        lines.append(f"| {fault} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def reading(found: dict[Case, float]) -> str:
    """Which cases come within a point of the run without faults."""
    lost = {
        way: [
            f"{fault} ({k})"
            for (w, fault, k), accuracy in found.items()
            if w == way and fault != "none" and not accuracy > found[way, "none", 0] - 1
        ]
        for way in ("robust", "plain")
    }
    said = [f"{way}: {', '.join(cases) or 'nowhere'}" for way, cases in lost.items()]
    return "More than a point is lost, by fault (faulty ranks), " + "; ".join(said) + "."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    cases: list[Case] = []
    for way in ("robust", "plain"):
        cases += [(way, "none", 0)] + [(way, fault, k) for fault in FAULTS for k in range(1, MOST + 1)]
    with tempfile.TemporaryDirectory() as place:
        mp.start_processes(one_rank, (place, cases, options.steps), nprocs=RANKS, start_method="spawn")
        values = json.loads(Path(place, "result.json").read_text(encoding="utf-8"))
    found = dict(zip(cases, values, strict=True))
    settings = {"ranks": RANKS, "steps": options.steps, "batch": BATCH, "lr": LR, "momentum": MOMENTUM}
    settings |= {"rule": RULE, "most": MOST, "torch": torch.__version__}
    faults = "\n".join(f"- {name}: {about}" for name, about in FAULTS.items())
    text = ABOUT.format(table=table(found), faults=faults, reading=reading(found), **settings)
    RESULTS.with_suffix(".md").write_text(text)
    runs = [{"way": w, "fault": f, "faulty": k, "accuracy": a} for (w, f, k), a in found.items()]
    RESULTS.with_suffix(".json").write_text(json.dumps({**settings, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
