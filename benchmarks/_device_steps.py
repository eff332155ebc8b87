"""A clock for a device, and steps of training on it, for `device.py`: simulated rounds, and reductions."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from _device_counts import F
from byzopt import harden, rule_from
from byzopt.attacks import ATTACKS
from byzopt.cohort import Cohort
from byzopt.distributed import robust_all_reduce
from byzopt.engines import rounds as played
from byzopt.errors import MissingData
from byzopt.experiments.trials.prepared import RunSettings, prepare
from byzopt.methods import ByzNSGDM
from byzopt.tasks import ModuleTask, ReleasedMnist, Task, sequence_cross_entropy
from byzopt.tasks.models import GPT, mlp
from byzopt.tasks.pool import Pool

Found = list[dict[str, Any]]


class Bench:
    """The device, how long a figure may take, and how to time on it."""

    def __init__(self, device: torch.device, small: bool) -> None:
        self.device, self.small, self.seconds = device, small, 0.05 if small else 0.4

    def wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def ms(self, step: Callable[[], object]) -> float:
        """The median time of a step in milliseconds, from a start to the end of all that it began."""
        step()
        self.wait()
        times, end = [], time.perf_counter() + self.seconds
        while len(times) < 3 or (time.perf_counter() < end and len(times) < 200):
            began = time.perf_counter()
            step()
            self.wait()
            times.append(1e3 * (time.perf_counter() - began))
        return median(times)

    def rows(self, n: int, d: int) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(0)
        return torch.randn(n, d, generator=generator, device=self.device)


def tasks(bench: Bench) -> Iterator[tuple[str, Callable[[], tuple[Task, Callable[[], object] | None]]]]:
    """Simulated training of 20 workers, by what is trained; beside each its gradients in plain torch."""
    share, device = 50 if bench.small else 1000, bench.device

    def dealt(
        module: nn.Module, inputs: Tensor, labels: Tensor, loss: Any, batch: int
    ) -> tuple[Task, Callable[[], object]]:
        pool = Pool.dealt(inputs, labels, torch.arange(len(inputs)).split(len(inputs) // 20))
        task = ModuleTask(module, loss, pool, batch=batch, seed=0, byzantine=F, device=device)
        return task, looped(module.to(device), inputs.to(device), labels.to(device), loss, batch)

    def images(module: nn.Module, shape: tuple[int, ...], batch: int) -> Any:
        inputs, labels = torch.randn(20 * share, *shape), torch.randint(10, (20 * share,))
        return dealt(module, inputs, labels, functional.cross_entropy, batch)

    def cnn() -> nn.Module:
        parts = nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU()
        return nn.Sequential(
            *parts, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10)
        )

    def gpt() -> Any:
        context = 16 if bench.small else 128
        size = (
            {"layers": 1, "heads": 2, "width": 16} if bench.small else {"layers": 4, "heads": 4, "width": 128}
        )
        codes = torch.randint(65, (20 * (4 if bench.small else 64), context))
        module = GPT(65, context, size["layers"], size["heads"], size["width"], 0.0, 0)
        return dealt(module, codes, codes.roll(-1, 1), sequence_cross_entropy, 2 if bench.small else 16)

    yield (
        "MLP 784-128-64-10, batch 64",
        lambda: images(mlp((784, 128, 64, 10), 0), (784,), 16 if bench.small else 64),
    )
    yield "CNN 28 x 28, d = 431,080, batch 32", lambda: images(cnn(), (1, 28, 28), 4 if bench.small else 32)
    yield "GPT, characters", gpt
    if not bench.small:
        task = ReleasedMnist(device=str(device), eval_samples=16)
        yield "released MNIST CNN, batch 64", lambda: (task.build(Cohort.of(20, F), 0), None)


def looped(module: nn.Module, inputs: Tensor, labels: Tensor, loss: Any, batch: int) -> Callable[[], object]:
    """The gradients alone of 20 workers, one after the other, as a script takes them: `[20, d]`."""
    parameters = list(module.parameters())

    def step() -> Tensor:
        rows = []
        for worker in range(20):
            part = slice(worker * batch, (worker + 1) * batch)
            grads = torch.autograd.grad(loss(module(inputs[part]), labels[part]), parameters)
            rows.append(torch.cat([grad.flatten() for grad in grads]))
        return torch.stack(rows)

    return step


def rounds(bench: Bench) -> Found:
    """A round of Byz-NSGDM under ALIE with nnm >> rfa, beside its gradients alone in plain torch."""
    lines: Found = []
    for name, build in tasks(bench):
        line: dict[str, Any] = {"round": name, "ms": None, "gradients alone, a loop in torch": None}
        try:
            task, plain = build()
        except MissingData:
            lines.append(line | {"skipped": "its data are not on this machine"})
            continue
        method, settings = (
            ByzNSGDM().build(rule_from("nnm >> rfa", f=F), 0.1),
            RunSettings(ATTACKS.build("alie"), F, 0, 10**9, 10**9),
        )
        run: Any = prepare(task, method, settings)
        snapshots = played(run.method, run.engine, run.first.state, 10**9)
        line["ms"] = bench.ms(lambda snapshots=snapshots: next(snapshots))
        line["gradients alone, a loop in torch"] = plain and bench.ms(plain)
        lines.append(line | {"skipped": ""})
    return lines


def reductions(bench: Bench) -> Found:
    """Steps over process groups, beside torch's own: a training with `harden` and without, and sums of
    vectors by a rule and by torch."""
    nccl = bench.device.type == "cuda" and dist.is_nccl_available()
    backend, d = "nccl" if nccl else "gloo", 20_000 if bench.small else 10_000_000
    cases = [(f"harden, one rank, {backend}, a bucket of 1.6 million", 1, backend)]
    cases.append((f"robust all-reduce, one rank, {backend}, d = {d:,}", 1, backend))
    cases.append((f"robust all-reduce, 4 ranks on this device, gloo, d = {d:,}", 4, "gloo"))
    lines: Found = []
    for name, ranks, kind in cases:
        with tempfile.TemporaryDirectory() as folder:
            words = (name, ranks, kind, folder, bench.device.type, d, bench.small)
            mp.spawn(rank_main, words, nprocs=ranks)
            ours, plain = json.loads((Path(folder) / "ms").read_text(encoding="utf-8"))
        lines.append({"step": name, "ms": ours, "torch's own": plain, "ours / torch's": ours / plain})
    return lines


def rank_main(
    rank: int, name: str, ranks: int, backend: str, folder: str, kind: str, d: int, small: bool
) -> None:
    torch.set_num_threads(1)
    device = torch.device(kind)
    if backend == "nccl":
        torch.cuda.set_device(0)
    dist.init_process_group(backend, init_method=f"file://{folder}/group", rank=rank, world_size=ranks)
    if name.startswith("harden"):

        def step(hardened: bool) -> Callable[[], object]:
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(784, 16 if small else 2048), nn.ReLU(), nn.LazyLinear(10))
            batch = torch.randn(32, 784, device=device)
            model.to(device)(batch)
            wrapped: Any = DistributedDataParallel(model)
            if hardened:
                harden(wrapped, "nnm >> rfa", f=0)
            return lambda: wrapped(batch).square().mean().backward()

        steps = [step(True), step(False)]
    else:
        vector, f = torch.randn(d, device=device), min(1, (ranks - 1) // 2)
        steps = [lambda: robust_all_reduce(vector, "nnm >> rfa", f=f), lambda: dist.all_reduce(vector)]
    bench, times = Bench(device, small), []
    for one in steps:
        for _ in range(2):
            one()
        taken = []
        for _ in range(7):
            bench.wait()
            began = time.perf_counter()
            one()
            bench.wait()
            taken.append(1e3 * (time.perf_counter() - began))
        times.append(median(taken))
    if rank == 0:
        (Path(folder) / "ms").write_text(json.dumps(times), encoding="utf-8")
    dist.destroy_process_group()
