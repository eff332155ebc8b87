"""How ByzantineSGD's rounds and gaps depend on T, δ, θ and n, over three octaves or two decades; straddling.

    python benchmarks/byzantine_slopes.py            # about a quarter of an hour on one core
    python benchmarks/byzantine_slopes.py --quick    # two minutes: one octave less, fewer runs

The problems are those of `tests/arena.py`: f = θ x_1 on the unit ball, and ‖x - b‖²/2 in three dimensions,
with noise of length V = 1, behind the guard with its default thresholds; the last f workers hug. Slopes are
log-log by least squares, expected ones from Table 1 of arXiv:1803.08917. The straddle table is the method on
‖x - b‖²/2 in five dimensions, n = 10, f = 4. Writes docs/results/byzantine_slopes.md and .json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests.arena

from tests.arena import Milestone, bowl, decided, steepness
from tests.bounded import Setup

from _peers_env import table, write
from byzopt.attacks import Straddle
from byzopt.methods import ByzantineSGD
from byzopt.theory.byzantine_limits import hug_rounds
from byzopt.theory.byzantine_sgd import GuardSetting

Line = dict[str, Any]


def bare(n: int, rounds: float) -> float:
    """Rounds over the logarithm Λ in all thresholds."""
    return rounds / GuardSetting(n, 0, round(rounds), 1.0, 1.0).log


def deciding(n: int, pairs: Sequence[tuple[int, float]], runs: int) -> list[float]:
    """Rounds at which hug leaves the answer in the middle, for each (f, θ)."""
    near = [hug_rounds(f / n, 1.0, theta, 14.0) / 2.5 for f, theta in pairs]
    return [decided(n, f, theta, at, runs) for (f, theta), at in zip(pairs, near, strict=True)]


def slopes(quick: bool) -> list[Line]:
    """Rounds to decide, and epochs."""
    runs, found = (4 if quick else 8), []

    def add(what: str, expected: float, sizes: Sequence[float], values: Sequence[float]) -> None:
        slope = steepness(sizes, values)
        found.append(
            {"what": what, "sizes": list(sizes), "values": list(values), "expected": expected, "slope": slope}
        )
        print(f"{what}: {slope:.3f}, expected {expected:g}", flush=True)

    thetas = [0.2, 0.1, 0.05] if quick else [0.2, 0.1, 0.05, 0.025]
    rounds = deciding(20, [(8, theta) for theta in thetas], 3)
    add("rounds to decide against θ (n = 20, δ = 0.4)", -2, thetas, rounds)
    add("the same over Λ", -2, thetas, [bare(20, t) for t in rounds])
    liars, theta = ([4, 8, 16], 0.05) if quick else ([2, 4, 8, 16], 0.03)
    rounds = deciding(40, [(f, theta) for f in liars], 3)
    fractions = [f / 40 for f in liars]
    add(f"rounds to decide against δ (n = 40, θ = {theta})", 2, fractions, rounds)
    add("the same over Λ", 2, fractions, [bare(40, t) for t in rounds])
    epochs = 4 if quick else 5
    ends = bowl(20, 0, epochs, away=0.0, runs=3 * runs)
    add("epochs, gap against T (n = 20, δ = 0, from the optimum)", -1, *_columns(ends))
    last = [bowl(n, 0, 4, away=0.0, runs=6 * runs)[-1] for n in (10, 20, 40, 80)]
    add("epochs, T · gap against n (δ = 0, from the optimum)", -1, (10, 20, 40, 80), _products(last))
    for f in (1, 2, 4):
        ends = bowl(10, f, epochs - 1, start=1.0, runs=runs)
        add(f"epochs under hug, gap against T (n = 10, δ = {f / 10})", -1, *_columns(ends))
    last = [bowl(20, f, epochs - 2, start=1.0, runs=runs)[-1] for f in (2, 4, 8)]
    add("epochs under hug, T · gap against δ (n = 20)", 2, (0.1, 0.2, 0.4), _products(last))
    return found


def _columns(ends: Sequence[Milestone]) -> tuple[list[float], list[float]]:
    return [float(end.rounds) for end in ends], [end.gap for end in ends]


def _products(ends: Sequence[Milestone]) -> list[float]:
    return [end.rounds * end.gap for end in ends]


def constants(lines: Sequence[Line]) -> list[list[Any]]:
    """T · gap/(1/n + δ²) along the epochs under hug."""
    found = []
    for line in lines:
        if line["what"].startswith("epochs under hug, gap"):
            delta = float(line["what"].rpartition("δ = ")[2].rstrip(")"))
            scaled = [t * g / (1 / 10 + delta**2) for t, g in zip(line["sizes"], line["values"], strict=True)]
            found.append([delta, *scaled, max(scaled) / min(scaled)])
    return found


def straddled(quick: bool) -> list[list[Any]]:
    """Honest workers lost of 6, and liars left of 4, in each of 5 runs."""
    recipe, rounds = ByzantineSGD(noise=1.0, diameter=1.0), 500 if quick else 2000
    rules = {
        "printed": {"thresholds": "printed"},
        "default": {},
        "proved": {"thresholds": "proved"},
        "printed, medoid": {"thresholds": "printed", "vmed": "medoid"},
        "default, random": {"vmed": "random"},
    }
    found = []
    for name, changes in rules.items():
        lost, left = [], []
        for seed in range(5):
            *_, end = Setup(last=rounds, lr=1e-3).play(replace(recipe, **changes), Straddle(), seed)
            gone = {one.worker for one in end.expelled}
            lost.append(sum(worker < 6 for worker in gone))
            left.append(4 - sum(worker >= 6 for worker in gone))
        found.append([name, " ".join(map(str, lost)), " ".join(map(str, left))])
        print(*found[-1], sep=": ", flush=True)
    return found


def page(found: dict[str, Any], took: float) -> str:
    lines, scaled = found["slopes"], found["scaled"]
    rows = [
        [
            line["what"],
            " ".join(f"{size:.3g}" for size in line["sizes"]),
            " ".join(f"{value:.3g}" for value in line["values"]),
            line["expected"],
            line["slope"],
        ]
        for line in lines
    ]
    width = max(map(len, scaled)) - 2
    command = f"python benchmarks/byzantine_slopes.py{' --quick' if found['quick'] else ''}"
    parts = [
        "# Slopes of ByzantineSGD\n",
        f"`{command}` makes this page ({took / 60:.0f} minutes), and says what is measured.\n",
        table(["what", "at", "found", "expected slope", "slope"], rows),
        "Hug cannot use its threshold up in fewer than about 16Λ rounds, where its own speed of 0.9 V holds "
        "it: slopes are those of longer runs. Λ grows with T, which steepens rounds to decide; and liars "
        "stand in the place of honest workers, so that these go as (δ/(1 - δ))². Without liars epochs begin "
        "at the optimum: what an epoch leaves of its start's distance falls faster than what noise leaves.\n",
        "## T · gap/(1/n + δ²) at the ends of epochs under hug, n = 10\n",
        table(["δ", *(f"epoch {k + 1}" for k in range(width)), "largest/smallest"], scaled),
        "## Straddling: honest workers expelled of 6, and liars left of 4, in five runs\n",
        table(["thresholds", "honest expelled", "liars left"], found["straddle"]),
    ]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    began = perf_counter()
    lines, lies = slopes(quick), straddled(quick)
    scaled = constants(lines)
    found = {"quick": quick, "slopes": lines, "scaled": scaled, "straddle": lies}
    write("byzantine_slopes", page(found, perf_counter() - began), found)


if __name__ == "__main__":
    main()
