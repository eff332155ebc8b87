"""Few workers, short rows: what a call of a rule costs over the arithmetic that it cannot do without.

    python benchmarks/few.py [--beside SRC] [--seconds S]

The arithmetic is what the same torch operations on the data alone cost: for geometric rules one centred
Gram product and one weighted sum, `(rows - rows[0]) @ (rows - rows[0]).T` and `weights @ rows`; for
coordinate rules one `rows.sort(0)`. Beside it the rule as one would write it in plain torch operations,
without any check. All run in turns, on one thread; figures are the least of the medians of five rounds, for
on a machine with other work everything else measures that. `--beside` names another source tree
(`.../src`) that is timed in turn with this one, round by round. Writes docs/results/few.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from _peers_env import described, machine, table, write
from byzopt import aggregators as ag
from byzopt.aggregators import Aggregator

SIZES = tuple((n, d) for n in (4, 8, 16, 20, 100) for d in (10, 1000, 10_000))
RULES: dict[str, Callable[[int], Aggregator]] = {
    "trimmed_mean": lambda f: ag.TrimmedMean(f=f),
    "krum": lambda f: ag.Krum(f=f),
    "rfa": lambda f: ag.RFA(),
    "nnm >> trimmed_mean": lambda f: ag.NNM(f=f) >> ag.TrimmedMean(f=f),
    "nnm >> krum": lambda f: ag.NNM(f=f) >> ag.Krum(f=f),
    "nnm >> rfa": lambda f: ag.NNM(f=f) >> ag.RFA(),
    "geometric_median": lambda f: ag.GeometricMedian(),
    "centered_clipping": lambda f: ag.CenteredClipping(),
    "bulyan": lambda f: ag.Bulyan(f=f),
}
ROUNDS = 5


def tolerated(n: int) -> int:
    """An f that every rule here takes: n >= 4 f + 3."""
    return (n - 3) // 4


def mixed(rows: torch.Tensor, f: int) -> torch.Tensor:
    near = torch.cdist(rows, rows).argsort(dim=1)[:, : len(rows) - f]
    return rows[near].mean(dim=1)


def krum(rows: torch.Tensor, f: int) -> torch.Tensor:
    ranked = torch.cdist(rows, rows).square().sort(dim=1).values
    return rows[ranked[:, 1 : len(rows) - f - 1].sum(dim=1).argmin()]


def rfa(rows: torch.Tensor, f: int) -> torch.Tensor:
    point = rows.mean(dim=0)
    for _ in range(8):
        weights = 1 / (rows - point).norm(dim=1).clamp_min(1e-6)
        point = weights @ rows / weights.sum()
    return point


def trimmed_mean(rows: torch.Tensor, f: int) -> torch.Tensor:
    return rows.sort(dim=0).values[f : len(rows) - f].mean(dim=0)


def after_nnm(then: Callable[..., torch.Tensor], rows: torch.Tensor, f: int) -> torch.Tensor:
    return then(mixed(rows, f), f)


PLAIN: dict[str, Callable[..., torch.Tensor]] = {"trimmed_mean": trimmed_mean, "krum": krum, "rfa": rfa}
PLAIN |= {
    f"nnm >> {name}": (lambda rows, f, then=then: then(mixed(rows, f), f)) for name, then in PLAIN.items()
}


def arithmetic(name: str, rows: torch.Tensor) -> Callable[[], Any]:
    """The operations on the data that a rule cannot do without."""
    weights = torch.full((len(rows),), 1 / len(rows))

    def products() -> Any:
        about = rows - rows[0]
        return about @ about.T, weights @ rows

    def both() -> Any:
        about = rows - rows[0]
        return about @ about.T, rows.sort(dim=0)

    if name == "trimmed_mean":
        return lambda: rows.sort(dim=0)
    return both if name in ("nnm >> trimmed_mean", "bulyan") else products


def timed(call: Callable[[], Any], seconds: float) -> float:
    """The median time of a call, in microseconds."""
    for _ in range(3):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 400):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return median(times) * 1e6


def round_of(seconds: float) -> dict[str, dict[str, float]]:
    """Every rule on every size once: {"n d rule": {what: microseconds}}."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, float]] = {}
    for n, d in SIZES:
        rows, f = torch.randn(n, d, generator=torch.Generator().manual_seed(n + d)), tolerated(n)
        for name, build in RULES.items():
            rule = build(f)
            each = {"ours": timed(partial(rule, rows), seconds)}
            each["arithmetic"] = timed(arithmetic(name, rows), seconds)
            if name in PLAIN:
                each["plain torch"] = timed(partial(PLAIN[name], rows, f), seconds)
            found[f"{n} {d} {name}"] = each
    return found


def elsewhere(source: Path, seconds: float) -> dict[str, dict[str, float]]:
    """A round with the package of another source tree."""
    asked = [sys.executable, __file__, "--round", "--seconds", str(seconds)]
    env = os.environ | {"PYTHONPATH": str(source)}
    done = subprocess.run(asked, env=env, check=True, capture_output=True, text=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def least(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        key: {what: min(each[key][what] for each in rounds) for what in rounds[0][key]} for key in rounds[0]
    }


def micro(time: float | None) -> str:
    return "-" if time is None else f"{time:.0f}"


def page(found: dict[str, Any]) -> str:
    now, before = found["now"], found["before"]
    lines = []
    for key, each in now.items():
        n, d, name = key.split(" ", 2)
        over = each["ours"] - each["arithmetic"]
        old = before[key]["ours"] if before else None
        lines.append(
            [f"`{name}`", n, d, each["arithmetic"], each.get("plain torch"), old, each["ours"], over]
        )
    head = ["rule", "n", "d", "arithmetic", "plain torch", "before", "ours", "ours less arithmetic"]
    intro = __doc__.split("\n\n", 2)[2] if __doc__ else ""
    return (
        f"# Few workers, short rows\n\nWritten by `python benchmarks/few.py`. {described(found)}\n\n{intro}\n"
        f"Microseconds; f = (n - 3) // 4.\n\n{table(head, lines)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--beside", type=Path, help="another source tree")
    parser.add_argument("--seconds", type=float, default=0.01, help="for each figure of a round")
    parser.add_argument("--round", action="store_true", help="print one round as JSON, and nothing else")
    asked = parser.parse_args()
    if asked.round:
        print(json.dumps(round_of(asked.seconds)))
        return
    now, before = [], []
    for _ in range(ROUNDS):
        now.append(round_of(asked.seconds))
        if asked.beside:
            before.append(elsewhere(asked.beside, asked.seconds))
    found = machine() | {"now": least(now), "before": least(before) if before else None}
    write("few", page(found), found)


if __name__ == "__main__":
    main()
