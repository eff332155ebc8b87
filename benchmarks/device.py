"""Rules, rounds of training and robust reductions on one GPU; or what a GPU would have to do, counted.

    python benchmarks/device.py [--device cuda] [--only rules ...] [--small] [--out DIR]
    python benchmarks/device.py --count [--columns 50000]

The first form takes less than 8 minutes on one GPU, from a bare start: every registered rule is compared with
float64 on the CPU, timed beside the same rule as usually written in torch (`_device_peers.py`) and beside the
floor, the rows read once at the measured bandwidth of a copy; then rounds of simulated training, and steps of
`harden` and of robust all-reduce. It writes docs/results/device-NAME.md and .json, NAME being the device's.
On a machine without the device it does the same on the CPU with small sizes, says what it skips, and writes
only where `--out` says. The second form counts launches, waits and bytes on the pretend device of the tests,
with rows of that many columns, and writes docs/results/device_counts.md and .json.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from _device_counts import CHAINS, F, built, counts
from _device_peers import PLAIN, WAYS
from _peers_env import RESULTS, described, machine, table
from byzopt import harden, rule_from
from byzopt.aggregators import RULES
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

SIZES = [(20, 1_000_000), (20, 10_000_000), (100, 1_000_000)]
SMALL = [(20, 20_000)]
PARTS = ("floor", "rules", "ways", "rounds", "reductions")
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


def floor(bench: Bench) -> Found:
    """What the device does at best: gigabytes a second of a copy, an empty launch, a look at a number."""
    source = torch.zeros((1 << 22) if bench.small else (1 << 28), device=bench.device)
    copy, one = torch.empty_like(source), torch.zeros((), device=bench.device)
    gigabytes = 2 * source.numel() * 4 / 1e9
    return [
        {"what": "copy, GB/s", "value": 1e3 * gigabytes / bench.ms(lambda: copy.copy_(source))},
        {"what": "launch, µs", "value": 1e3 * bench.ms(lambda: [one.add_(1) for _ in range(1000)]) / 1000},
        {"what": "look at a number, µs", "value": 1e3 * bench.ms(lambda: one.add_(1).item())},
    ]


def rules(bench: Bench, bandwidth: float) -> Found:
    lines: Found = []
    for n, d in SMALL if bench.small else SIZES:
        rows = bench.rows(n, d)
        exact = rows.cpu().double() if n * d <= 2 * 10**7 else None
        for name in (*RULES, *CHAINS) if n == 20 else PLAIN:
            rule, plain = built(name, n), PLAIN.get(name)
            if rule is None or (name not in PLAIN and d > 10**6):
                continue
            ours = bench.ms(partial(rule, rows))
            theirs = peer(bench, plain, rows)
            least = 4e-6 * (n + 1) * d / bandwidth
            line = {"rule": name, "n": n, "d": d, "ms": ours, "in plain torch": theirs, "floor": least}
            line |= {"plain / ours": theirs and theirs / ours, "ours / floor": ours / least}
            lines.append(line | {"off": off(rule, rows, exact)})
    return lines


def peer(bench: Bench, plain: Any, rows: Tensor) -> float | None:
    """The time of the rule as it is usually written; None where there is none, or its copies find no room."""
    try:
        return None if plain is None else bench.ms(lambda: plain(rows, F))
    except torch.OutOfMemoryError:
        return None


def off(rule: Any, rows: Tensor, exact: Tensor | None) -> float | None:
    """The largest difference from the answer in float64 on the CPU, over the largest number in that."""
    if exact is None:
        return None
    expected = rule(exact)
    return float((rule(rows).cpu().double() - expected).abs().max() / expected.abs().max())


def ways(bench: Bench) -> Found:
    rows = bench.rows(*(SMALL if bench.small else SIZES)[0])
    return [{"way": name, "ms": bench.ms(lambda way=way: way(rows))} for name, way in WAYS.items()]


def tasks(bench: Bench) -> Iterator[tuple[str, Callable[[], Task]]]:
    """Simulated training of 20 workers, by what is trained."""
    share, device = 50 if bench.small else 1000, bench.device

    def dealt(module: nn.Module, inputs: Tensor, labels: Tensor, loss: Any, batch: int) -> Task:
        pool = Pool.dealt(inputs, labels, torch.arange(len(inputs)).split(len(inputs) // 20))
        return ModuleTask(module, loss, pool, batch=batch, seed=0, byzantine=F, device=device)

    def images(module: nn.Module, shape: tuple[int, ...], batch: int) -> Task:
        inputs, labels = torch.randn(20 * share, *shape), torch.randint(10, (20 * share,))
        return dealt(module, inputs, labels, functional.cross_entropy, batch)

    def cnn() -> nn.Module:
        parts = nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU()
        return nn.Sequential(
            *parts, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10)
        )

    def gpt() -> Task:
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
        yield "released MNIST CNN, batch 64", lambda: task.build(Cohort.of(20, F), 0)


def rounds(bench: Bench) -> Found:
    """A round of Byz-NSGDM under ALIE with nnm >> rfa, and how often the host waited for the device in it."""
    lines: Found = []
    for name, build in tasks(bench):
        try:
            task = build()
        except MissingData:
            lines.append({"round": name, "ms": None, "skipped": "its data are not on this machine"})
            continue
        method, settings = (
            ByzNSGDM().build(rule_from("nnm >> rfa", f=F), 0.1),
            RunSettings(ATTACKS.build("alie"), F, 0, 10**9, 10**9),
        )
        run: Any = prepare(task, method, settings)
        snapshots = played(run.method, run.engine, run.first.state, 10**9)
        lines.append(
            {"round": name, "ms": bench.ms(lambda snapshots=snapshots: next(snapshots)), "skipped": ""}
        )
    return lines


def reductions(bench: Bench) -> Found:
    """Steps over process groups: `harden` on one rank, and robust all-reduce of four ranks' vectors."""
    nccl = bench.device.type == "cuda" and dist.is_nccl_available()
    lines: Found = [] if nccl else [{"step": "harden, one rank, NCCL", "ms": None, "skipped": "no NCCL here"}]
    d = 20_000 if bench.small else 10_000_000
    cases = [("harden, one rank, NCCL", 1, "nccl")] if nccl else [("harden, one rank, gloo", 1, "gloo")]
    cases.append((f"robust all-reduce, 4 ranks on this device, gloo, d = {d:,}", 4, "gloo"))
    for name, ranks, backend in cases:
        with tempfile.TemporaryDirectory() as folder:
            words = (ranks, backend, folder, bench.device.type, d, bench.small)
            mp.spawn(rank_main, words, nprocs=ranks)
            told = json.loads((Path(folder) / "ms").read_text(encoding="utf-8"))
        lines.append({"step": name, "ms": told, "skipped": ""})
    return lines


def rank_main(rank: int, ranks: int, backend: str, folder: str, kind: str, d: int, small: bool) -> None:
    torch.set_num_threads(1)
    device = torch.device(kind)
    bench = Bench(device, small)
    dist.init_process_group(backend, init_method=f"file://{folder}/group", rank=rank, world_size=ranks)
    if ranks == 1:
        model = nn.Sequential(nn.Linear(784, 16 if small else 2048), nn.ReLU(), nn.LazyLinear(10)).to(device)
        batch = torch.randn(32, 784, device=device)
        model(batch)
        hardened: Any = DistributedDataParallel(model)
        harden(hardened, "nnm >> rfa", f=0)
        step: Callable[[], object] = lambda: hardened(batch).square().mean().backward()  # noqa: E731
    else:
        vector = torch.randn(d, device=device)
        step = lambda: robust_all_reduce(vector, "nnm >> rfa", f=1)  # noqa: E731
    for _ in range(2):
        step()
    times = []
    for _ in range(5):
        bench.wait()
        began = time.perf_counter()
        step()
        bench.wait()
        times.append(1e3 * (time.perf_counter() - began))
    if rank == 0:
        (Path(folder) / "ms").write_text(json.dumps(median(times)), encoding="utf-8")
    dist.destroy_process_group()


def page(title: str, command: str, about: str, found: dict[str, Found]) -> str:
    text = f"# {title}\n\nWritten by `python benchmarks/device.py{command}`. {about}\n"
    for part, lines in found.items():
        text += f"\n## {part.capitalize()}\n\n" + table(
            list(lines[0]), [list(line.values()) for line in lines]
        )
    return text


def save(folder: Path, name: str, text: str, found: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measured(bench: Bench, only: Sequence[str]) -> dict[str, Found]:
    found = {"floor": floor(bench)}
    bandwidth = found["floor"][0]["value"]
    todo = {"rules": lambda: rules(bench, bandwidth), "ways": lambda: ways(bench)}
    for part, work in (
        todo | {"rounds": lambda: rounds(bench), "reductions": lambda: reductions(bench)}
    ).items():
        if part in only:
            began = time.perf_counter()
            found[part] = work()
            print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--small", action="store_true", help="small sizes: a test of this script")
    parser.add_argument("--out", type=Path, help="folder of the page and the figures")
    parser.add_argument("--count", action="store_true", help="count on the pretend device, and time nothing")
    parser.add_argument("--columns", type=int, default=50_000)
    words = parser.parse_args()
    if words.count:
        found = {"counts": counts(words.columns)}
        about = (
            f"Rows 20 x {words.columns:,}, float32; the words are those of [Rows on a GPU](../devices.md)."
        )
        text = page("What rules ask of a GPU", " --count", about, found)
        save(words.out or RESULTS, "device_counts", text, found)
        print(text)
        return
    try:
        torch.zeros((), device=words.device).cpu()
        device, skipped = torch.device(words.device), ""
    except (RuntimeError, AssertionError):
        device, words.small = torch.device("cpu"), True
        skipped = f"There is no {words.device} here: small sizes on the CPU, which say nothing about a GPU. "
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    about = skipped + f"{name}; {described(machine())}. Times are medians in milliseconds."
    found = measured(Bench(device, words.small), words.only)
    text = page(f"On {name}", "", about, found)
    if words.out or not skipped:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        save(words.out or RESULTS, f"device-{slug}", text, {"device": name, "machine": machine()} | found)
    print(text)


if __name__ == "__main__":
    main()
