"""Coordinate rules without kernels: what they cost beside the operations that they are made of.

    python benchmarks/plain_columns.py [--seconds S]

Without kernels a selection network is NumPy's minimum and maximum of pieces of two rows, and from 64 rows on
a sort. Beside each rule, in turns: as many `numpy.minimum` over rows of a block as it takes operations, by as
many threads, or `numpy.sort` of columns that lie as rows already; one pass over the rows, `rows.mean(0)`; and
the rule again by pieces that fit the second-level cache, and by one thread. Medians in milliseconds. Writes
docs/results/plain_columns.md and .json.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from byzopt.waiting import WAITING

os.environ.update(WAITING)  # idle threads must not slow others

import numpy as np
import torch

from _peers_env import described, machine, table, write
from byzopt import aggregators as ag
from byzopt import kernels
from byzopt.aggregators import RankRule
from byzopt.aggregators.numerics import selection
from growth import in_turns

SIZES = ((20, 1_000_000, 4), (20, 110_000, 4), (50, 1_000_000, 10), (100, 100_000, 20))
RULES: dict[str, Callable[[int], RankRule]] = {
    "median": lambda f: ag.Median(f=f),
    "trimmed_mean": lambda f: ag.TrimmedMean(f=f),
    "meamed": lambda f: ag.MeaMed(f=f),
}
SHORT = 1 << 14  # bytes of a row's piece: a block of 20 of them fits the second-level cache
TALL = 64  # rows from which columns are sorted
ABOUT = """{on}; kernels are switched off.
Medians in milliseconds, float32; `python benchmarks/plain_columns.py` makes this page.

*Operations*: those of the network and of the means after it, each over whole rows. *Of them alone*: as many
`numpy.minimum` of rows in the same blocks, by the same threads; from 64 rows on, where columns are sorted,
`numpy.sort` of them alone, lying as rows. *Short pieces*: the same rule by pieces of 4,096 columns, which fit
the second-level cache, but whose calls are so short that threads wait for one another at Python's lock.
"""


def operations(plan: kernels.RankWindow, n: int) -> int:
    """How many operations on whole rows the plan takes."""
    first, last, around = plan
    ranks = (first, last) if around is None else (0, n)
    network = sum(low + high for *_, low, high in kernels.network(n, *ranks))
    means = last - first + 1
    return network + means if around is None else network + means + 5 * (n - around) + n + 1


def alone(rows: torch.Tensor, plan: kernels.RankWindow) -> Callable[[], None]:
    """The operations of a plan and nothing else, on blocks and threads as rules have them."""
    (n, d), tall = rows.shape, len(rows) >= TALL
    pieces = torch.get_num_threads() if tall else max(1, min(torch.get_num_threads(), d // selection._APART))
    share = -(-d // pieces)
    width = min(share, selection._CALL // 4, selection._BLOCK // (4 * n))
    blocks = {start: np.ones((n + 2, width), dtype=np.float32) for start in range(0, d, share)}
    count, columns = operations(plan, n), np.ascontiguousarray(rows.numpy().T)

    def network(start: int, stop: int) -> None:
        for at in range(start, stop, width):
            some = blocks[start][:, : min(width, stop - at)]
            for k in range(count):
                np.minimum(some[k % n], some[(k + 1) % n], out=some[(k + 2) % (n + 2)])

    def sort(start: int, stop: int) -> None:
        columns[start:stop].copy().sort(axis=1)

    work = rows.numel() if pieces > 1 else 0
    return partial(kernels.parallel_for, d, work, share, sort if tall else network)


@contextmanager
def set_to(holder: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    yield
    setattr(holder, name, before)


def case(n: int, d: int, f: int, seconds: float) -> list[dict[str, Any]]:
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(n + d))
    found = []
    for name, build in RULES.items():
        rule = build(f)

        def plain(rule: RankRule = rule) -> None:
            with kernels.disabled():
                rule(rows)

        def short(plain: Callable[[], None] = plain) -> None:
            with set_to(selection, "_CALL", SHORT):
                plain()

        def single(plain: Callable[[], None] = plain) -> None:
            with set_to(torch, "get_num_threads", lambda: 1):
                plain()

        plan = rule.plan(n)
        calls = {"rule": plain, "short": short, "single": single, "alone": alone(rows, plan)}
        times = in_turns(calls | {"pass": partial(rows.mean, 0)}, seconds)
        times["rule ms"] = times.pop("rule")
        found.append({"rule": name, "n": n, "d": d, "operations": operations(plan, n), **times})
        print(found[-1], flush=True)
    return found


def page(lines: list[dict[str, Any]], on: dict[str, Any]) -> str:
    head = ["rule", "n x d", "operations", "rule", "of them alone", "rule / alone", "`rows.mean(0)`"]
    rows = [
        [
            f"`{line['rule']}`",
            f"{line['n']} x {line['d']:,}",
            "a sort" if line["n"] >= TALL else str(line["operations"]),
            line["rule ms"],
            line["alone"],
            f"{line['rule ms'] / line['alone']:.2f}x",
            line["pass"],
            line["short"],
            line["single"],
        ]
        for line in lines
    ]
    table_ = table([*head, "short pieces", "one thread"], rows)
    return f"# Coordinate rules without kernels\n\n{ABOUT.format(on=described(on))}\n{table_}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each rule and size")
    given = parser.parse_args()
    lines = [line for size in SIZES for line in case(*size, given.seconds)]
    on = machine()
    write("plain_columns", page(lines, on), {"machine": on, "lines": lines})


if __name__ == "__main__":
    main()
