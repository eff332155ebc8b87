"""How rules grow with workers and coordinates: beside torch's own operations, and from a file in the end.

    python benchmarks/growth.py [--part many | decisions | short | lengths | long | file ...] [--seconds S]
                                [--more]

- many: from 100 to 3,000 workers. Geometric rules beside one product `rows @ rows.T`, coordinate rules beside
  `torch.median` (the lower of two middle values) and `torch.sort`, in turns.
- decisions: rows of 500 coordinates, so that what is seen is the work on n x n numbers, with liars whom
  distances show; beside the same product, one of n x n numbers in float64, and Krum written out in torch.
- short: more workers than coordinates, beside the fastest way found in torch to the same answer.
- lengths: rules that go by figures of single rows, such as lengths, beside torch's way for the same.
- long: from 10,000 to 100,000,000 coordinates, in memory.
- file: 100,000,000 coordinates in a mapped file, with the most memory of its own that a call had.

Figures are the least of turns in which everything runs once: what else runs on a machine adds to all others.
Each part is stored by itself, and all that are stored are on the page, docs/results/growth.md.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from byzopt.waiting import WAITING

os.environ.update(WAITING)  # idle threads must not slow others

import torch

import _row_figures
from _peers_env import RESULTS, described, machine, table, write
from _plain import PLAIN, plain_krum
from byzopt import aggregators as ag
from byzopt.aggregators import Aggregator

MANY = (
    (100, 100_000),
    (300, 100_000),
    (1000, 3_000),
    (1000, 30_000),
    (1000, 100_000),
    (2000, 30_000),
    (3000, 3_000),
    (3000, 10_000),
)
DECIDED = (20, 100, 300, 500, 1000, 3000)  # rows of SHORT coordinates
SHORT, SEARCHED = 500, 100  # searches over subsets are for so many rows at most
MORE = ((300, 1), (300, 7), (300, 100), (1000, 1), (1000, 7), (1000, 100), (3000, 3), (3000, 100))  # workers
LONG = ((10, 10_000), (10, 1_000_000), (10, 10_000_000), (10, 100_000_000))
WORKERS = 8  # of the mapped file: 3.2 GB
Calls = dict[str, Callable[[], Any]]
Sizes = tuple[tuple[int, int], ...]
Ways = dict[str, tuple[Callable[[int], Aggregator], Callable[[torch.Tensor, int], torch.Tensor]]]

RULES: dict[str, Callable[[int], Aggregator]] = {
    "median": lambda f: ag.Median(f=f),
    "trimmed_mean": lambda f: ag.TrimmedMean(f=f),
    "krum": lambda f: ag.Krum(f=f),
    "geometric_median": lambda f: ag.GeometricMedian(f=f),
    "nnm >> rfa": lambda f: ag.NNM(f=f) >> ag.RFA(f=f),
    "nnm >> median": lambda f: ag.NNM(f=f) >> ag.Median(f=f),
}


SEARCHES: dict[str, Callable[[int], Aggregator]] = {
    "mda": lambda f: ag.MDA(f=f),
    "smea": lambda f: ag.SMEA(f=f),
}
TITLES = {
    "many": "Many workers",
    "decisions": "Decisions on n x n numbers",
    "short": "Short rows",
    "lengths": "Lengths of rows",
    "long": "Long rows",
    "file": "A mapped file",
}
OVER = """Over torch's: geometric rules over `rows @ rows.T`, coordinate rules over `torch.median`, and
`nnm >> median` over two products, of which one is the mixing, and `torch.median`. Rules also select among
and sort n x n numbers, and a stage before a rule sums them over where rows are mixed differently, twice at
most f n² numbers for each of n columns: where d is a few n, that is what is left to see, and with d = n or
3 n `nnm >> rfa` takes two to three products.
"""
BESIDE = """Ours / torch's, and their ratio. `torch.median` takes the lower of two middle values. Torch's
geometric median ends where its sum of distances stands still, and proves nothing. No way of torch's looks
whether rows are finite.
"""
MEMORY = "Megabytes: the most memory of its own that a call had, beside its answer; below 1: none.\n"


def ours(rows: torch.Tensor) -> Calls:
    f = len(rows) // 5
    return {name: partial(build(f), rows) for name, build in RULES.items()}


def in_turns(calls: Calls, seconds: float) -> dict[str, float]:
    """The least milliseconds of each call; the first turn warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    ends, turns = time.perf_counter() + seconds, 0
    while turns < 3 or time.perf_counter() < ends:
        turns += 1
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: min(found[1:]) for name, found in times.items()}


def many(seconds: float) -> dict[str, Any]:
    found = {}
    for n, d in MANY:
        rows = torch.randn(n, d)
        torchs: Calls = {"rows @ rows.T": partial(torch.mm, rows, rows.T)}
        torchs["torch.median"] = partial(torch.median, rows, dim=0)
        if n * d <= 10_000_000:
            torchs["torch.sort"] = partial(torch.sort, rows, dim=0)
        found[f"{n} x {d:,}"] = in_turns(torchs | ours(rows), seconds)
        print(n, d, found[f"{n} x {d:,}"], flush=True)
    return found


def least(found: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The lesser of both figures for each size and call."""
    return {
        size: {name: min(ms, before.get(size, {}).get(name, ms)) for name, ms in of.items()}
        for size, of in found.items()
    }


def decisions(seconds: float) -> dict[str, Any]:
    found = {}
    for n in DECIDED:
        rows, f = torch.randn(n, SHORT), n // 5
        rows[:f] += 1
        square = (rows @ rows.T).double()
        calls: Calls = {
            "rows @ rows.T": partial(torch.mm, rows, rows.T),
            "n x n, float64": partial(torch.mm, square, square),
            "product and topk": partial(plain_krum, rows, f),
        }
        for name in ("krum", "geometric_median", "nnm >> rfa"):
            calls[name] = partial(RULES[name](f), rows)
        for name, build in SEARCHES.items() if n <= SEARCHED else ():
            calls[name] = partial(build(f), rows)
        found[f"{n} x {SHORT}"] = in_turns(calls, seconds)
        print(n, found[f"{n} x {SHORT}"], flush=True)
    return found


def pairs(sizes: Sizes, ways: Ways, seconds: float) -> dict[str, Any]:
    """Rules and torch's `ways` to the same."""
    found = {}
    for n, d in sizes:
        rows, f = torch.randn(n, d), n // 5
        calls: Calls = {}
        for name, (build, plain) in ways.items():
            calls[f"{name} in torch"], calls[name] = partial(plain, rows, f), partial(build(f), rows)
        found[f"{n} x {d}"] = in_turns(calls, seconds)
        print(n, d, found[f"{n} x {d}"], flush=True)
    return found


def long(seconds: float) -> dict[str, Any]:
    found = {}
    for n, d in LONG:
        rows = torch.randn(n, d)
        found[f"{n} x {d:,}"] = in_turns(
            {"rows.mean(0)": lambda rows=rows: rows.mean(0)} | ours(rows), seconds
        )
        print(n, d, found[f"{n} x {d:,}"], flush=True)
    return found


def file(seconds: float) -> dict[str, Any]:
    d = LONG[-1][1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        with path.open("wb") as out:
            for _ in range(WORKERS):
                for _ in range(10):
                    out.write(torch.randn(d // 10).numpy().tobytes())
        rows = torch.from_file(str(path), size=WORKERS * d, dtype=torch.float32).view(WORKERS, d)
        calls, memory = ours(rows), {}
        for name, call in calls.items():
            with own_memory() as most:
                answer = call()
            memory[name] = most[0] - answer.numel() * answer.element_size() / 1e6
        times = in_turns({"rows.mean(0)": partial(rows.mean, 0)} | calls, seconds)
    return {"size": f"{WORKERS} x {d:,}", "milliseconds": times, "megabytes": memory}


@contextmanager
def own_memory() -> Iterator[list[float]]:
    """The most memory, in megabytes, that this process holds and that is no file's, watched by a thread."""
    before, most, ended = _anonymous(), [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.001):
            most[0] = max(most[0], _anonymous() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield most
    ended.set()
    watcher.join()


def _anonymous() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(float(line.split()[1]) / 1e3 for line in status.splitlines() if line.startswith("RssAnon"))


PARTS: dict[str, Callable[[float], dict[str, Any]]] = {
    "many": many,
    "decisions": decisions,
    "short": partial(pairs, MORE, PLAIN),
    "lengths": partial(pairs, _row_figures.SIZES, _row_figures.PLAIN),
    "long": long,
    "file": file,
}


def page(stored: dict[str, Any]) -> str:
    about = "Milliseconds, the least of all turns, float32, f = n // 5; `python benchmarks/growth.py`.\n"
    text = ["# How rules grow\n", about]
    for name, title in TITLES.items():
        if name in stored:
            text.append(f"## {title}\n\n{described(stored[name]['machine'])}.\n")
            text += SHOWN[name](stored[name]["found"])
    return "\n".join(text)


def sizes(found: dict[str, dict[str, float]]) -> list[str]:
    names = sorted(
        {name for of in found.values() for name in of}, key=lambda name: (name in RULES | SEARCHES, name)
    )
    return [table(["n x d", *ticked(names)], [[s, *map(of.get, names)] for s, of in found.items()])]


def beside(found: dict[str, dict[str, float]]) -> list[str]:
    rows = [[size, *(ratio(of, name) for name in RULES)] for size, of in found.items()]
    return [*sizes(found), OVER, table(["n x d", *ticked(RULES)], rows)]


def paired(ways: Ways, about: str, found: dict[str, dict[str, float]]) -> list[str]:
    def both(of: dict[str, float], name: str) -> str:
        ours, plain = of[name], of[f"{name} in torch"]
        return f"{ours:.3g} / {plain:.3g} ({ours / plain:.2f}x)"

    rows = [[size, *(both(of, name) for name in ways)] for size, of in found.items()]
    return [about, table(["n x d", *ticked(ways)], rows)]


def mapped(found: dict[str, Any]) -> list[str]:
    held = found["megabytes"]
    rows = [[f"`{name}`", ms, held.get(name)] for name, ms in found["milliseconds"].items()]
    return [f"{found['size']}. {MEMORY}", table(["call", "ms", "megabytes"], rows)]


def ticked(names: Iterable[str]) -> list[str]:
    return [f"`{name}`" for name in names]


SHOWN: dict[str, Callable[[Any], list[str]]] = {
    "many": beside,
    "decisions": sizes,
    "short": partial(paired, PLAIN, BESIDE),
    "lengths": partial(paired, _row_figures.PLAIN, _row_figures.BESIDE),
    "long": sizes,
    "file": mapped,
}


def ratio(of: dict[str, float], name: str) -> str:
    product, middle = of["rows @ rows.T"], of["torch.median"]
    floor = {"median": middle, "trimmed_mean": middle, "nnm >> median": 2 * product + middle}.get(
        name, product
    )
    return f"{of[name] / floor:.2f}x"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=5.0, help="for each size, at least two turns")
    parser.add_argument("--more", action="store_true", help="more turns, beside those that are stored")
    given = parser.parse_args()
    path = RESULTS / "growth.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in given.part:
        found = PARTS[name](given.seconds)
        if given.more and name != "file":
            found = least(found, stored.get(name, {}).get("found", {}))
        stored[name] = {"machine": machine(), "found": found}
        write("growth", page(stored), stored)


if __name__ == "__main__":
    main()
