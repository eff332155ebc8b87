"""Which defences survive searched attacks: candidates by the benchmark's protocol, on seeds held out.

    python benchmarks/survive.py [--store DIR] [--minutes M] [--write]

Every candidate is tuned in a cell as an entry of the benchmark is (three rates, the worst of three attacks,
on the seed of tuning), and is then trained on seeds that neither the benchmark nor its tuning has. Those
that are best are attacked again by searches that the benchmark's set does not have.

All runs are stored as they end, and the same command goes on where it was stopped; after M minutes no further
run is begun. One thread. `--write` writes docs/results/survive.md and .json from what is stored, and runs
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _survive_page import page, worst
from byzopt.benchmark import Cell, Entry
from byzopt.benchmark.evaluating import play_here, tuned
from byzopt.benchmark.protocol import ATTACKS
from byzopt.errors import InvalidInput
from byzopt.experiments.sweeps import plan_sweep
from byzopt.experiments.sweeps.sweep import Sweep
from byzopt.stress.catalogue import ENSEMBLE
from byzopt.stress.verdict import tail_mean

OUT = Path(__file__).parent.parent / "docs" / "results"
BY_LOT = Path(__file__).parent / "_by_lot.py"
SEEDS = (10, 11, 12, 13)  # neither of the benchmark's figures nor of its tuning
CELLS = ("digits-dirichlet0.1-n20-f3", "digits-dirichlet1-n20-f6")
STRIKES = (  # of the benchmark's set
    "no attack",
    *(f"searched: {name}" for name in ("shrink", "workers", "cos")),
    "ipm x10",
    "alie",
)
AGAIN = (  # searches with the full budget
    *(f"searched: {name}" for name in ("shrink", "workers", "drift")),
    *("optimal ipm", "optimal alie", "trapsetter"),
)
BEST = 4  # that are attacked again
ASCENT = Path(__file__).parent / "_ascent.py"  # an attack written for chains that end in a mean
MOMENTUM = {"name": "byz_nsgdm", "eta": 0.1}
RATES = tuple({"lr": lr} for lr in (0.3, 1.0, 3.0))
GUARDED = tuple({"lr": lr} for lr in (0.1, 0.3, 1.0))
CANDIDATES: dict[str, tuple[Any, Mapping[str, Any], Sequence[Mapping[str, Any]]]] = {
    rule: (rule, MOMENTUM, RATES)
    for rule in (
        "rfa",
        "norm_clipping",
        "normalise >> mean",
        "arc >> rfa",
        "nnm >> trimmed_mean",
        "nnm >> rfa",
        "normalise >> trimmed_mean",
        "normalise >> rfa",
        "geometric_median",
        "normalise >> nnm >> mean",
        *(f"normalise >> capped_nnm(cap={cap}) >> mean" for cap in (0.25, 0.5, 1)),
        "capped_nnm(cap=0.5) >> rfa",
        "bucketing >> rfa",
    )
}
CANDIDATES |= {
    f"{rule}, eta {eta:g}": (rule, {**MOMENTUM, "eta": eta}, RATES)
    for rule, eta in (
        ("rfa", 0.03),
        ("rfa", 0.3),
        ("rfa", 1.0),
        ("normalise >> mean", 0.03),
        ("normalise >> mean", 0.3),
        ("arc >> rfa", 0.3),
        ("nnm >> trimmed_mean", 0.3),
        ("normalise >> nnm >> mean", 0.3),
    )
}
CANDIDATES |= {
    "rfa, SGD with momentum": ("rfa", {"name": "robust_sgdm", "eta": 0.1}, RATES),
    "centered_clipping, SGD with momentum": ("centered_clipping", {"name": "robust_sgdm", "eta": 0.1}, RATES),
    "rules by lot": ({"name": f"{BY_LOT}:ByLot"}, MOMENTUM, RATES),
    "safeguard, rfa": ("rfa", {"name": "safeguard", "differing": True}, GUARDED),
    "byzantine_sgd, rfa": ("rfa", {"name": "byzantine_sgd", "differing": True}, GUARDED),
}


def candidate(name: str) -> Entry:
    """A candidate as an entry of the benchmark."""
    rule, method, settings = CANDIDATES[name]
    called = "".join(letter if letter.isalnum() else "-" for letter in name.lower())[:40]
    return Entry(called, name, rule=rule, method=dict(method), settings=tuple(settings))


def fits(cell: Cell, name: str) -> bool:
    """Whether a candidate has a place in a cell: buckets of two leave ten rows, too few for six liars."""
    try:
        candidate(name).specs(cell)
    except InvalidInput:
        return False
    return True


def struck(
    spec: Mapping[str, Any], attack: Mapping[str, Any], store: Path, over: Callable[[], bool]
) -> list[float] | None:
    """Each seed's accuracy; None where `over` came before all runs had ended."""
    shared = {key: value for key, value in spec.items() if key not in ("attack", "seed")}
    plan = plan_sweep(Sweep("survive", spec={**shared, "attack": attack}, grid={"seed": list(SEEDS)}), store)
    if plan.to_play and not over():
        play_here(plan, over)
        plan = plan_sweep(plan.sweep, store)
    if plan.to_play:
        return None
    return [tail_mean(plan.store.read_outcome(run.id), "accuracy") for run in plan.expansion.runs]


def measured(cell: Cell, name: str, store: Path, over: Callable[[], bool]) -> dict[str, Any] | None:
    """A candidate in a cell: its rate, and each attack's figures; None where it was not measured whole."""
    found = tuned(cell, candidate(name), store, play_here, over)
    if found is None:
        return None
    spec = found[0]
    hits = {attack: struck(spec, ATTACKS[attack], store, over) for attack in STRIKES}
    if any(values is None for values in hits.values()):
        return None
    return {"cell": cell.name, "candidate": name, "lr": spec["lr"], "hits": hits, "again": {}}


def measurements(store: Path, over: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """All candidates in each cell, and then the best again."""
    for name in CELLS:
        cell = Cell.of(name)
        fit = [each for each in CANDIDATES if fits(cell, each)]
        here = [one for each in fit if (one := measured(cell, each, store, over)) is not None]
        best = sorted(here, key=worst, reverse=True)[: BEST if len(here) == len(fit) else 0]
        for one in here:
            late = over if one in best else lambda: True  # of the others what is stored
            spec, _ = tuned(cell, candidate(one["candidate"]), store, play_here, lambda: True) or ({}, [])
            attacks = {attack: ENSEMBLE[attack] for attack in AGAIN}
            if one["candidate"].startswith("normalise >> ") and one["candidate"].endswith(">> mean"):
                attacks |= ascents(one["candidate"])
            for attack, written in attacks.items():
                if (values := struck(spec, written, store, late)) is not None:
                    one["again"][f"{attack} (full)" if attack in one["hits"] else attack] = values
        yield from here


def ascents(chain: str) -> dict[str, dict[str, Any]]:
    """The attack that was written for a chain, by objective."""
    return {
        f"ascent: {objective}": {"name": f"{ASCENT}:Ascent", "objective": objective, "chain": chain}
        for objective in ("workers", "shrink")
    }


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--store", type=Path, default=Path("byzopt-survive"))
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    end = time.monotonic() + (0 if options.write else 60 * options.minutes)
    found: list[dict[str, Any]] = []
    for one in measurements(options.store, lambda: time.monotonic() >= end):
        found.append(one)
        print(f"{one['cell']}, {one['candidate']}: worst {100 * worst(one):.1f}", flush=True)
    if options.write:
        (OUT / "survive.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (OUT / "survive.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
