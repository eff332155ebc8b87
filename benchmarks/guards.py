"""What guards that expel workers cost a round, beside the mean and one Gram product of the same rows.

    python benchmarks/guards.py [--seconds S] [--device cuda]

Each case is one call of a filter on n x d rows in float32 (noise of equal lengths about a common gradient),
its sums well under way: ByzantineSGD's three tests and SafeguardSGD with two windows, with both finders of
vector medians, and with B as a secret sketch. Beside them what remembering alone costs, sums read and written
once, which SafeguardSGD does for each of two windows. All are timed in turns; figures are medians in
milliseconds.
Writes docs/results/guards.md and .json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from _peers_env import described, machine, table, write
from byzopt import linalg
from byzopt.aggregators import Mean
from byzopt.aggregators.core.filters import Filter, RoundContext
from byzopt.aggregators.guards.guard import HistoryGuard
from byzopt.aggregators.guards.safeguard import Safeguard
from byzopt.rng import stream
from byzopt.theory.byzantine_epochs import Epoch

SIZES = [(n, d) for n in (10, 50) for d in (10_000, 1_000_000)]
SKETCH = 512
PRODUCT = "a Gram product"
SUMS = "rows added to sums"
WARM = 3  # rounds before the first that is timed
MOST = 900  # that are: thresholds are those of 1000
REMEMBERING = f"""A guard reads and writes a sum for each worker and coordinate, of which it takes products.
"{SUMS}" is the memory's part, `torch.add(sums, rows, out=others)`. SafeguardSGD does this for each of its two
windows. Short rows show the hundred operations on n numbers that tests are made of, of microseconds each: at
10 x 10,000 the pass over rows and sums is about a seventh of a round.
"""
PLAN = (Epoch(1000, 10.0, 0.1),)
FILTERS: dict[str, Filter] = {
    "mean": Mean().as_filter(),
    "ByzantineSGD, medoid": HistoryGuard(PLAN, 1.0, finder="medoid"),
    "ByzantineSGD, random": HistoryGuard(PLAN, 1.0, finder="random"),
    f"ByzantineSGD, medoid, sketch of {SKETCH}": HistoryGuard(PLAN, 1.0, finder="medoid", sketch=SKETCH),
    f"ByzantineSGD, random, sketch of {SKETCH}": HistoryGuard(PLAN, 1.0, finder="random", sketch=SKETCH),
    "SafeguardSGD, medoid": Safeguard((100, 600), 1000, noise=1.0),
    "SafeguardSGD, random": Safeguard((100, 600), 1000, noise=1.0, finder="random"),
    f"SafeguardSGD, medoid, sketch of {SKETCH}": Safeguard((100, 600), 1000, noise=1.0, sketch=SKETCH),
}


class Running:
    """A filter and its state, on rounds of rows whose noise changes its sign: no honest sum strays."""

    def __init__(self, filter: Filter, pair: tuple[Tensor, Tensor]) -> None:
        self.filter, self.pair, self.t = filter, pair, 0
        self.x = torch.ones_like(pair[0][0])
        self.state: Any = filter.init(torch.zeros_like(self.x), len(pair[0]))

    def round(self) -> None:
        self.t += 1
        _, self.state = self.filter.step(
            self.state, self.pair[self.t % 2], RoundContext(self.t, self.x / self.t)
        )

    def kept(self) -> bool:
        """Whether nobody was expelled: honest rows are what is timed."""
        return not self.filter.expelled(self.state)


def timed(call: Callable[[], None], device: str) -> float:
    began = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - began)


def rows_of(n: int, d: int, device: str) -> tuple[Tensor, Tensor]:
    noise = torch.randn(n, d, generator=stream(0, "guards", n, d))
    noise = (0.5 * noise / noise.norm(dim=1, keepdim=True)).to(device)
    return 1.0 + noise, 1.0 - noise


def measured(n: int, d: int, seconds: float, device: str) -> dict[str, float]:
    """Median milliseconds of each filter."""
    rows = rows_of(n, d, device)
    cases = {name: Running(filter, rows) for name, filter in FILTERS.items()}
    for case in cases.values():
        for _ in range(WARM):
            case.round()
    times: dict[str, list[float]] = {name: [] for name in [PRODUCT, SUMS, *cases]}
    sums = torch.zeros_like(rows[0]), torch.zeros_like(rows[0])
    ends = time.perf_counter() + seconds
    while len(times["mean"]) < 5 or (time.perf_counter() < ends and len(times["mean"]) < MOST):
        times[PRODUCT].append(timed(partial(linalg.gram, rows[0], rows[0][0]), device))
        times[SUMS].append(timed(partial(torch.add, sums[0], rows[0], out=sums[1]), device))
        for name, case in cases.items():
            times[name].append(timed(case.round, device))
    lost = [name for name, case in cases.items() if not case.kept()]
    assert not lost, f"Honest workers should stay. Expelled by: {lost}"
    return {name: median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each size")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    found = {}
    for n, d in SIZES:
        found[f"{n} x {d}"] = measured(n, d, given.seconds, given.device)
        print(n, d, {name: round(ms, 3) for name, ms in found[f"{n} x {d}"].items()}, flush=True)
    head = ["filter", *(f"{size} (ms)" for size in found)]
    rows: list[list[Any]] = [
        [name, *(of[name] for of in found.values())] for name in [PRODUCT, SUMS, *FILTERS]
    ]
    for base in ("mean", PRODUCT):
        head += [f"{size} / {base}" for size in found]
        for row in rows:
            row += [of[str(row[0])] / of[base] for of in found.values()]
    on = machine()
    where = described(on) if given.device == "cpu" else torch.cuda.get_device_name()
    command = "python benchmarks/guards.py" + ("" if given.device == "cpu" else f" --device {given.device}")
    text = f"{where}. Median milliseconds of a round; `{command}` makes this page.\n\n{REMEMBERING}"
    parts = ["# What guards cost\n", text, table(head, rows)]
    write("guards", "\n".join(parts), {"machine": on, "device": given.device, "milliseconds": found})


if __name__ == "__main__":
    main()
