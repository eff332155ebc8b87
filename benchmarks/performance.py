"""Writes docs/performance.md from the stored results of the other benchmarks.

    python benchmarks/performance.py

Run benchmarks/rules.py, simulation.py, allreduce.py and startup.py first; nothing is measured here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from _peers_env import RESULTS, ROOT, described, table

HEAD = """# Performance

Written by `python benchmarks/performance.py` from the results that the other benchmarks stored; nothing is
typed in. Every figure comes with its command, and every ratio was taken side by side in one run, answers
compared first. Times move with the machine; ratios are what counts.

| what | command | all figures |
| --- | --- | --- |
| rules and chains | `python benchmarks/rules.py` | [rules](results/rules.md) |
| rounds of training | `python benchmarks/simulation.py` | [simulation](results/simulation.md) |
| robust all-reduce | `python benchmarks/allreduce.py` | [allreduce](results/allreduce.md) |
| hardened steps | `python benchmarks/harden.py --only time` | [harden_time](results/harden_time.md) |
| imports and the command line | `python benchmarks/startup.py` | [startup](results/startup.md) |
| growth, to 3,000 workers | `python benchmarks/growth.py` | [growth](results/growth.md) |
| rules without kernels | `python benchmarks/plain_columns.py` | [plain columns](results/plain_columns.md) |
| few workers and short rows, over the arithmetic | `python benchmarks/few.py` | [few](results/few.md) |
| guards beside the mean and a Gram product | `python benchmarks/guards.py` | [guards](results/guards.md) |
| all nodes of a graph in one call | `python benchmarks/gossip.py` | [gossip](results/gossip.md) |
| runs of one graph as a batch | `python benchmarks/graph_sweeps.py` | [sweeps](results/graph_sweeps.md) |

How it is done: [architecture](architecture.md#two-kinds-of-rule).
"""
# (rule, n, d, best peer over torch alone, best peer over compiled, compiled over floor): what we aim at.
AIMS: tuple[tuple[str, int, int, float, float, float], ...] = (
    ("median", 20, 1_000_000, 12, 100, 2),
    ("trimmed_mean", 20, 1_000_000, 12, 100, 2),
    ("meamed", 20, 1_000_000, 12, 100, 2),
    ("median", 100, 100_000, 4, 20, 0),
    ("trimmed_mean", 100, 100_000, 4, 20, 0),
    ("krum", 20, 1_000_000, 5, 12, 2),
    ("multi_krum", 20, 1_000_000, 5, 12, 2),
    ("geometric_median", 20, 1_000_000, 40, 100, 2),
    ("centered_clipping", 20, 1_000_000, 1.8, 4, 2),
    ("mda", 20, 1_000_000, 15, 40, 2),
    ("nnm >> krum", 20, 1_000_000, 12, 25, 2),
    ("nnm >> rfa", 20, 1_000_000, 40, 80, 2),
    ("nnm >> median", 20, 1_000_000, 5, 15, 0),
    ("nnm >> trimmed_mean", 20, 1_000_000, 5, 15, 0),
)


PASS = 0.8  # ms, on the machine for which the aims were set


def stored(name: str) -> Any:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def rules(found: Any) -> Iterator[str]:
    lines = {(line["rule"], line["n"], line["d"]): line for line in found["lines"]}
    yield f"## Rules\n\n{described(found['machine'])}. Aims are in brackets.\n"
    rows = []
    for rule, n, d, torch, compiled, over in AIMS:
        line = lines.get((rule, n, d))
        if line is None or not line["peers"]:
            continue
        peer, best = min(line["peers"].items(), key=lambda pair: pair[1])
        rows.append(
            [
                f"`{rule}`",
                f"{n} x {d:,}",
                f"{best:.3g} ms ({peer})",
                f"{line['torch']:.3g} ms",
                f"{line['compiled']:.3g} ms",
                f"{best / line['torch']:.3g}x [{torch:g}x]",
                f"{best / line['compiled']:.3g}x [{compiled:g}x]",
                f"{line['compiled'] / line['floor']:.2f}x [{over:g}x]" if line["floor"] and over else None,
            ]
        )
    head = ["rule", "n x d", "best peer", "torch alone", "compiled", "peer / torch", "peer / compiled"]
    yield table([*head, "compiled / floor"], rows)
    at = next(line for line in found["lines"] if (line["rule"], line["d"]) == ("median", 1_000_000))
    once = min(at["floor"], at["compiled"])  # either may have met a busier machine
    most = min(at["peers"].values()) / once
    yield (
        f"The aims are those of a machine that passes over 20 x 1e6 numbers in {PASS} ms. Here a pass takes\n"
        f"{once:.2g} ms, so that no median could be {most + 1:.0f} times as fast as the best peer's.\n"
        "What is left to gain is what a compiled rule costs over its floor.\n"
    )
    yield from without_kernels(stored("plain_columns"))
    mean = [line for line in found["lines"] if line["rule"] == "mean"]
    rows = [[f"{m['n']} x {m['d']:,}", m["rows.mean(0)"], m["torch"], m["compiled"]] for m in mean]
    yield "The mean beside `rows.mean(0)`, in ms:\n"
    yield table(["n x d", "`rows.mean(0)`", "torch alone", "compiled"], rows)
    yield "How cost grows, compiled, in ms:\n"
    names = list(dict.fromkeys(line["rule"] for line in found["growth"]))
    at = {(line["n"], line["d"], line["rule"]): line["compiled"] for line in found["growth"]}
    sizes = list(dict.fromkeys((line["n"], line["d"]) for line in found["growth"]))
    grown = [[f"n = {n}, d = {d:,}", *(at[n, d, name] for name in names)] for n, d in sizes]
    yield table(["size", *(f"`{name}`" for name in names)], grown)
    yield (
        "Coordinate rules are linear in d and grow with n as a selection network, about n log² n; geometric\n"
        "rules cost n² d multiply-adds, once. Memory beside the rows is O(n² + block); where some rows hold\n"
        "NaN or Inf the others are copied. For hundreds of workers see [growth](results/growth.md), beside\n"
        "torch.\n"
    )


def without_kernels(found: Any) -> Iterator[str]:
    for line in found["lines"] if found else ():
        if (line["rule"], line["n"], line["d"]) != ("median", 20, 1_000_000):
            continue
        count, one = line["operations"], line["pass"]
        bytes_, alone, rule = count * 3 / 20, line["alone"] / one, line["rule ms"] / one
        yield (
            f"With torch and NumPy alone a median of 20 rows is {count} operations on whole rows, each of\n"
            f"which reads two and writes one in the cache: {bytes_:.0f} times the bytes of a pass. So many\n"
            f"`numpy.minimum` and nothing else take {alone:.1f} times as long as `rows.mean(0)`, and the\n"
            f"rule {rule:.1f} times: it is at the bandwidth of the cache. Compiled code is faster since it\n"
            "keeps columns in registers. See [plain columns](results/plain_columns.md).\n"
        )


def simulation(found: Any) -> Iterator[str]:
    yield f"## Rounds of simulated training\n\n{described(found['machine'])}. Milliseconds a round.\n"
    lines = found["rounds"]
    yield table(list(lines[0]), [list(line.values()) for line in lines])


def startup(found: Any) -> Iterator[str]:
    seconds = found["seconds"]
    base = seconds["import torch"]
    rows = [
        [f"`{name}`", value, value - base if name.startswith("import torch, ") else None]
        for name, value in seconds.items()
    ]
    yield f"## Starting\n\n{described(found['machine'])}. Seconds [0.3 beyond torch; 0.5 for help].\n"
    yield table(["what", "seconds", "beyond torch"], rows)


PARTS: dict[str, Callable[[Any], Iterator[str]]] = {
    "rules": rules,
    "simulation": simulation,
    "startup": startup,
}


def main() -> None:
    text = [HEAD]
    for name, part in PARTS.items():
        found = stored(name)
        text += [f"## {name}\n\nNot measured yet.\n"] if found is None else part(found)
    (ROOT / "docs" / "performance.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
