"""Our rules beside those of ByzFL, ByzPy and Flower: time of a call, on the same inputs, in one run.

    python benchmarks/rules.py [--env DIR] [--parts n,d,f ... growth] [--rules RULE ...] [--seconds S]

Peers live in an environment of their own (`_peers_env.py`) and answer from a process of their own
(`_rules_peers.py`). For each case all answers are compared first, then all are timed in turns; figures are
medians. Everybody gets a copy of the rows that was made just before, so that it is as near in the caches.
Ours is timed with kernels and with torch alone. The floor is what no program can avoid: one pass over the
rows (coordinate rules), or one Gram product and one weighted sum (geometric rules), each as our kernels do
it; torch's floor is the same by its own operations, `rows.mean(0)`, or `rows @ rows.T` and `weights @ rows`.
Writes docs/results/rules.md and .json; with `--parts` or `--rules` these alone are measured again, and the
rest stays as it is stored.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from byzopt.waiting import WAITING

os.environ.update(WAITING)  # idle threads of one process must not slow the other

import numpy as np
import torch

from _peers_env import DEFAULT, PEERS, RESULTS, described, machine, peers_python, table, write
from byzopt import aggregators as ag
from byzopt import kernels, linalg
from byzopt.aggregators import Aggregator

SIZES = ((20, 110_000, 4), (20, 1_000_000, 4), (50, 1_000_000, 10), (100, 100_000, 20))
GROWTH = ((20, 10_000), (20, 100_000), (20, 1_000_000), (20, 10_000_000), (10, 100_000), (50, 100_000))
GROWTH += ((100, 100_000), (200, 100_000))
AGREES = 1e-3  # relative difference above which two answers are not those of one algorithm
MEMORY = 6e9  # bytes: ByzFL's NNM holds n (n - f) d numbers


def gm8() -> Aggregator:
    """The smoothed Weiszfeld iteration in the form that peers run."""
    return ag.RFA(iterations=8, nu_absolute=0.1, start="zero")


# Ours, in the setting under which it is the peers' algorithm.
RULES: dict[str, Callable[[int], Aggregator]] = {
    "mean": lambda f: ag.Mean(),
    "median": lambda f: ag.Median(),
    "trimmed_mean": lambda f: ag.TrimmedMean(f=f),
    "meamed": lambda f: ag.MeaMed(f=f),
    "krum": lambda f: ag.Krum(f=f, extra=1),
    "multi_krum": lambda f: ag.MultiKrum(f=f, extra=1),
    "rfa": lambda f: gm8(),
    "geometric_median": lambda f: ag.GeometricMedian(),
    "centered_clipping": lambda f: ag.CenteredClipping(tau=100.0, iterations=3, start="zero"),
    "mda": lambda f: ag.MDA(f=f),
    "nnm >> krum": lambda f: ag.NNM(f=f) >> ag.Krum(f=f, extra=1),
    "nnm >> rfa": lambda f: ag.NNM(f=f) >> gm8(),
    "nnm >> geometric_median": lambda f: ag.NNM(f=f) >> ag.GeometricMedian(),
    "nnm >> median": lambda f: ag.NNM(f=f) >> ag.Median(),
    "nnm >> trimmed_mean": lambda f: ag.NNM(f=f) >> ag.TrimmedMean(f=f),
}
COORDINATE = ("mean", "median", "trimmed_mean", "meamed")
GEOMETRIC = tuple(name for name in RULES if name not in COORDINATE and not name.endswith(("median", "mean")))
GEOMETRIC += ("geometric_median", "nnm >> geometric_median")
NOTES = {
    ("ByzPy", "median"): "takes the lower of the two middle values",
    ("ByzPy", "meamed"): "takes the lower of the two middle values",
    ("ByzPy", "nnm >> median"): "takes the lower of the two middle values",
    ("Flower", "krum"): "n - f - 2 neighbours",
    ("Flower", "multi_krum"): "n - f - 2 neighbours",
}


class Peers:
    """The peers' process."""

    def __init__(self, python: Path) -> None:
        runner = Path(__file__).with_name("_rules_peers.py")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([str(python), str(runner)], stdin=pipe, stdout=pipe, text=True)
        self.rules: dict[str, list[str]] = self._read()["rules"]

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the peers' process ended with status {self.process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found


def timed(call: Callable[[torch.Tensor], Any], rows: torch.Tensor) -> float:
    """Milliseconds of a call on a fresh copy of the rows, as peers have one."""
    given = rows.clone()
    began = time.perf_counter()
    call(given)
    return (time.perf_counter() - began) * 1e3


def floors(rows: torch.Tensor) -> dict[str, Callable[[torch.Tensor], Any]]:
    """One pass over the rows; one Gram product; one weighted sum: as kernels do it, and as torch does."""
    out, even = torch.empty_like(rows[0]), torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
    plan, weights = kernels.RankWindow(0, len(rows)), even.to(rows.dtype)
    return {
        "pass": lambda given: kernels.reduce_columns(given, plan, None, out),
        "products": lambda given: linalg.gram(given, given[0]),
        "weighted sum": lambda given: linalg.blend(even, given),
        "rows.mean(0)": lambda given: given.mean(0),
        "rows @ rows.T": lambda given: given @ given.T,
        "weights @ rows": lambda given: weights @ given,
    }


def gap(ours: torch.Tensor, theirs: np.ndarray[Any, Any]) -> float:
    """Largest difference, relative to the largest number of ours."""
    other = torch.from_numpy(np.asarray(theirs, dtype=np.float64)).reshape(-1)
    return float((ours.double() - other).abs().max() / ours.double().abs().max())


def case(
    peers: Peers, n: int, d: int, f: int, names: list[str], seconds: float, folder: Path
) -> list[dict[str, Any]]:
    """The rules of these names on one size."""
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(n + d))
    np.save(folder / "rows.npy", rows.numpy())
    peers.ask(rows=str(folder / "rows.npy"), f=f)
    lines = []
    for name in names:
        if name == "mda" and n > 20:
            continue
        rule = RULES[name](f)
        answer = rule(rows)
        wanted = [p for p in peers.rules if name in peers.rules[p] and not too_large(p, name, n, d, f)]
        line: dict[str, Any] = {"n": n, "d": d, "f": f, "rule": name, "peers": {}, "gaps": {}}
        for peer in wanted:
            found = peers.ask(peer=peer, rule=name, save=str(folder / "answer.npy"))
            line["gaps"][peer] = found.get("error") or gap(answer, np.load(folder / "answer.npy"))
        line |= measured(peers, rule, rows, name, wanted, line["gaps"], seconds)
        lines.append(line)
        print(f"n={n} d={d} {name}: {summary(line)}", flush=True)
    return lines


def too_large(peer: str, name: str, n: int, d: int, f: int) -> bool:
    return peer == "ByzFL" and name.startswith("nnm") and 4.0 * n * (n - f) * d > MEMORY


def measured(
    peers: Peers,
    rule: Aggregator,
    rows: torch.Tensor,
    name: str,
    wanted: list[str],
    gaps: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Medians over turns in which everybody runs once."""
    working = [peer for peer in wanted if not isinstance(gaps[peer], str)]
    times: dict[str, list[float]] = {}
    began = time.perf_counter()
    while len(times.get("compiled", [])) < 3 or (
        time.perf_counter() - began < seconds and len(times["compiled"]) < 30
    ):
        turn = {"compiled": timed(rule, rows)}
        with kernels.disabled():
            turn["torch"] = timed(rule, rows)
        turn |= {part: timed(call, rows) for part, call in floors(rows).items()}
        for peer in working:
            turn[peer] = peers.ask(peer=peer, rule=name, save=None)["ms"]
        for key, value in turn.items():
            times.setdefault(key, []).append(value)
    middle = {key: median(values[1:]) for key, values in times.items()}  # the first turn warms up
    floor, plain = middle["pass"], middle["rows.mean(0)"]
    if name not in COORDINATE:
        floor = middle["products"] + middle["weighted sum"]
        plain = middle["rows @ rows.T"] + middle["weights @ rows"]
    known = name in COORDINATE or name in GEOMETRIC
    return {
        "compiled": middle["compiled"],
        "torch": middle["torch"],
        "floor": floor if known else None,
        "torch floor": plain if known else None,
        "rows.mean(0)": middle["rows.mean(0)"],
        "peers": {peer: middle[peer] for peer in working},
        "turns": len(times["compiled"]),
    }


def best(line: dict[str, Any]) -> float | None:
    """The fastest peer's time."""
    return min(line["peers"].values(), default=None)


def over(line: dict[str, Any], ours: str, floor: str) -> str | None:
    """How many times as long as the floor a rule takes; lines of earlier runs may not know all floors."""
    least = line.get(floor)
    return None if least is None else f"{line[ours] / least:.2f}x"


def summary(line: dict[str, Any]) -> str:
    top = best(line)
    over = (
        ""
        if top is None
        else f", best peer over ours {top / line['torch']:.3g}x, {top / line['compiled']:.3g}x"
    )
    return f"torch {line['torch']:.3g} ms, compiled {line['compiled']:.3g} ms{over}"


def growth() -> list[dict[str, Any]]:
    """Ours alone, over sizes."""
    found = []
    for n, d in GROWTH:
        rows = torch.randn(n, d)
        for name in ("median", "krum", "geometric_median", "nnm >> rfa", "nnm >> trimmed_mean"):
            rule = RULES[name](n // 5)
            times = [timed(rule, rows) for _ in range(6)]
            found.append({"n": n, "d": d, "rule": name, "compiled": median(times[1:])})
    return found


def page(lines: list[dict[str, Any]], grown: list[dict[str, Any]], on: dict[str, Any]) -> str:
    text = [
        "# Rules: ours beside the peers'\n",
        f"{described(on)}; peers {', '.join(PEERS)}, Flower's helpers.",
    ]
    text.append("Medians in milliseconds, float32; `python benchmarks/rules.py` makes this page.\n")
    for n, d, f in dict.fromkeys((line["n"], line["d"], line["f"]) for line in lines):
        text.append(f"\n## n = {n}, d = {d:,}, f = {f}\n")
        rows = []
        for line in (each for each in lines if (each["n"], each["d"]) == (n, d)):
            top = best(line)
            rows.append(
                [
                    f"`{line['rule']}`",
                    line["torch"],
                    line["compiled"],
                    line["floor"],
                    *(line["peers"].get(peer) for peer in ("ByzFL", "ByzPy", "Flower")),
                    None if top is None else f"{top / line['torch']:.3g}x / {top / line['compiled']:.3g}x",
                    *(
                        over(line, ours, floor)
                        for ours, floor in (("torch", "torch floor"), ("compiled", "floor"))
                    ),
                ]
            )
        head = ["rule", "torch alone", "compiled", "floor", "ByzFL", "ByzPy", "Flower", "best peer over ours"]
        text.append(table([*head, "torch over its floor", "compiled over floor"], rows))
    text.append("\n## Growth, compiled\n")
    names = list(dict.fromkeys(line["rule"] for line in grown))
    sizes = list(dict.fromkeys((line["n"], line["d"]) for line in grown))
    at = {(line["n"], line["d"], line["rule"]): line["compiled"] for line in grown}
    rows = [[f"n = {n}, d = {d:,}", *(at[n, d, name] for name in names)] for n, d in sizes]
    text.append(table(["size", *(f"`{name}`" for name in names)], rows))
    text.append("\n## Answers that differ\n")
    differing = [
        [peer, f"`{line['rule']}`", f"n = {line['n']}", gap, NOTES.get((peer, line["rule"]), "")]
        for line in lines
        for peer, gap in line["gaps"].items()
        if isinstance(gap, str) or gap > AGREES
    ]
    text.append(table(["peer", "rule", "size", "difference", "why"], differing) if differing else "None.\n")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", type=Path, default=DEFAULT, help="where the peers are installed")
    parser.add_argument("--parts", nargs="+", help="n,d,f ..., growth: all by default")
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES), help="default: all")
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long for a rule and size")
    given = parser.parse_args()
    parts = given.parts or [*(",".join(map(str, size)) for size in SIZES), "growth"]
    asked = [size for size in SIZES if ",".join(map(str, size)) in parts]
    some = given.parts or len(given.rules) < len(RULES)
    stored = json.loads((RESULTS / "rules.json").read_text(encoding="utf-8")) if some else {}
    lines = [
        line
        for line in stored.get("lines", [])
        if (line["n"], line["d"], line["f"]) not in asked or line["rule"] not in given.rules
    ]
    if asked:
        peers = Peers(peers_python(given.env))
        with tempfile.TemporaryDirectory() as folder:
            for n, d, f in asked:
                lines += case(peers, n, d, f, given.rules, given.seconds, Path(folder))
    lines.sort(
        key=lambda line: (SIZES.index((line["n"], line["d"], line["f"])), [*RULES].index(line["rule"]))
    )
    grown, on = growth() if "growth" in parts else stored["growth"], machine()
    write("rules", page(lines, grown, on), {"machine": on, "lines": lines, "growth": grown})


if __name__ == "__main__":
    main()
