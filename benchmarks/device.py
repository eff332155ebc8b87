"""Rules, rounds of training and robust reductions on one GPU; or what a GPU would have to do, counted.

    python benchmarks/device.py [--device cuda] [--only rules ...] [--small] [--out DIR]
    python benchmarks/device.py --count [--columns 50000]

The first form takes about two and a half minutes on one H200, from a bare start: every registered rule is
compared with float64 on the CPU, timed beside the same rule as usually written in torch
(`_device_peers.py`) and beside the floor, the rows read once at the measured bandwidth of a copy; then
rounds of simulated training, and steps of `harden` and of robust all-reduce. After each part it writes
docs/results/device-NAME.md and .json, NAME being the device's. On a machine without the device it does the
same on the CPU with small sizes, says what it skips, and writes only where `--out` says. The second form
counts launches, waits and bytes on the pretend device of the tests, with rows of that many columns, and
writes docs/results/device_counts.md and .json.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from _device_counts import CHAINS, SHORT, F, built, counts, many
from _device_kernels import decisions, kernel_times
from _device_peers import PLAIN, WAYS
from _device_steps import Bench, Found, reductions, rounds
from _peers_env import RESULTS, described, machine, table
from byzopt.aggregators import RULES

SIZES = [(20, 1_000_000), (20, 10_000_000), (100, 1_000_000), (1000, 100_000)]
SMALL = [(20, 20_000)]
PARTS = ("floor", "rules", "kernels", "decisions", "ways", "rounds", "reductions")


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


def measured(bench: Bench, only: Sequence[str]) -> Iterator[dict[str, Found]]:
    """What is found so far, after each part."""
    found = {"floor": floor(bench)}
    bandwidth = found["floor"][0]["value"]
    todo = {"kernels": lambda: kernel_times(bench, bandwidth), "decisions": lambda: decisions(bench)}
    todo |= {"rounds": lambda: rounds(bench), "reductions": lambda: reductions(bench)}
    todo |= {"ways": lambda: ways(bench), "rules": lambda: rules(bench, bandwidth)}
    yield found
    for part, work in todo.items():
        if part in only:
            began = time.perf_counter()
            found[part] = work()
            print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
            yield found


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
        found = {"counts": counts(words.columns), "many workers": many()}
        about = (
            f"Rows 20 x {words.columns:,}, float32, and of many workers n x {SHORT}; the words are those of\n"
            "[Rows on a GPU](../devices.md)."
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
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    for found in measured(Bench(device, words.small), words.only):
        text = page(f"On {name}", "", about, found)
        if words.out or not skipped:
            save(words.out or RESULTS, f"device-{slug}", text, {"device": name, "machine": machine()} | found)
    print(text)


if __name__ == "__main__":
    main()
