"""Byz-DM21 and single momentum on a9a, in the setting of arXiv:2603.15144's released code.

    python benchmarks/byz_dm21_a9a.py               # three tables; about 20 minutes on one core
    python benchmarks/byz_dm21_a9a.py --tables 1    # the first alone

n = 20 workers of which 8 lie, logistic regression on a9a with rows of unit length, λ = 0.00056, batch 1,
samples strided over the 12 honest workers and used again by the Byzantine ones, Top-1 (Rand-1 where an
unbiased compressor is needed), NNM + coordinate-wise median, the adversary free (`placement`). Figures are
training losses, averaged over the last three of 15 checkpoints; f* = 0.36568. Runs of one method advance
together as one batch. Tables go to docs/results/byz_dm21_a9a.md, every figure to the JSON file beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from byzopt.experiments import Spec
from byzopt.experiments.ready import Plan, Ready, prepare
from byzopt.experiments.together import Together, groups
from byzopt.experiments.trial import Outcome

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "byz_dm21_a9a"
TASK = {
    "name": "logistic_regression",
    "data": "a9a",
    "l2": 0.00056,
    "unit_norm": True,
    "batch": 1,
    "partition": "strided",
    "byzantine_data": "honest",
}
TOP, RAND = {"name": "top_k", "k": 1}, {"name": "rand_k", "k": 1}
METHODS: dict[str, dict[str, Any]] = {
    "Byz-EF21-SGDM": {"name": "byz_ef21_sgdm", "compressor": TOP},
    "Byz-DM21": {"name": "byz_dm21", "compressor": TOP},
    "Byz-VR-DM21": {"name": "byz_vr_dm21", "compressor": TOP},
    "BR-CSGD": {"name": "br_csgd", "compressor": RAND},
}
LIES: dict[str, dict[str, Any]] = {
    "ALIE": {"attack": {"name": "alie", "z": "quantile", "sign": -1}},
    "IPM": {"attack": {"name": "ipm", "scale": 0.1}},
    "SF": {"attack": {"name": "sign_flip", "of": "drawn"}},
    "LF": {"attack": {"name": "label_flip", "mode": "mirrored"}},
    "NA": {"n": 12, "f": 0, "attackers": 0},
}


def spec(method: str, lie: str, seed: int, rounds: int, lr: float = 0.5, eta: float = 0.1) -> Spec:
    """One run."""
    recipe = METHODS[method] | ({} if method == "BR-CSGD" else {"eta": eta})
    data = {"n": 20, "f": 8, "rule": "nnm >> median", "rounds": rounds, "lr": lr, "seed": seed}
    data |= {"task": TASK, "method": recipe, "eval_every": max(1, rounds // 15)}
    return Spec.of(data | LIES[lie])


def played(specs: Sequence[Spec]) -> list[Outcome]:
    """What becomes of these specs, alike ones together as one batch."""
    found: dict[int, Outcome] = {}
    for members in groups(specs):
        runs = [_ready(specs[i]) for i in members]
        outcomes = Together(runs, None, lambda i, record: None).run(lambda t: False)
        found |= dict(zip(members, outcomes, strict=True))
        print(f"{len(found)} of {len(specs)} runs", flush=True)
    return [found[i] for i in range(len(specs))]


def loss(outcome: Outcome) -> float:
    """Training loss over the last three checkpoints; infinite for a run that failed."""
    failed = outcome.status.failed
    return float("inf") if failed else statistics.mean(r["loss"] for r in outcome.records[-3:])


def _ready(one: Spec) -> Ready:
    task = one.task.build(one.cohort, one.seed)
    method = one.method.build(one.rule, one.lr, one.rounds)
    plan = Plan(one.rounds, one.interval, {})
    return prepare(task, method, one.attack, one.f, one.seed, plan, one.placement, one.base)


def _table(title: str, rows: dict[str, list[list[float]]], columns: Sequence[str]) -> str:
    lines = [f"## {title}", "", f"| | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
    for name, cells in rows.items():
        shown = (" ".join("failed" if v == float("inf") else f"{v:.4f}" for v in cell) for cell in cells)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tables", type=int, nargs="*", default=[1, 2, 3])
    args = parser.parse_args()
    seeds, three = range(args.seeds), list(METHODS)[:3]
    plans: dict[int, tuple[str, list[str], list[str], list[dict[str, Any]]]] = {
        1: ("1. γ = 0.5, η = 0.1", list(LIES), three, [{}]),
        2: ("2. BR-CSGD with Rand-1, γ = 0.5", ["ALIE", "IPM", "SF"], ["BR-CSGD"], [{}]),
        3: (
            "3. η = 0.01, no attack: γ = 0.5, then 0.1",
            ["NA"],
            three,
            [{"eta": 0.01}, {"eta": 0.01, "lr": 0.1}],
        ),
    }
    tables: list[str] = []
    kept: list[dict[str, Any]] = []
    for number in args.tables:
        title, lies, methods, settings = plans[number]
        keys = [(lie, m, s, i) for lie in lies for m in methods for i in range(len(settings)) for s in seeds]
        found = played([spec(m, lie, s, args.rounds, **settings[i]) for lie, m, s, i in keys])
        by_key = dict(zip(keys, found, strict=True))
        rows = {
            lie if len(settings) == 1 else f"{lie} {settings[i]}": [
                [loss(by_key[lie, m, s, i]) for s in seeds] for m in methods
            ]
            for lie in lies
            for i in range(len(settings))
        }
        tables.append(_table(title, rows, methods))
        for (lie, m, seed, i), o in by_key.items():
            kept.append({"attack": lie, "method": m, "seed": seed, "loss": loss(o), "status": str(o.status)})
            kept[-1] |= settings[i] | {"final": o.metrics}
    head = f"""# Byz-DM21 on a9a

Written by `python benchmarks/byz_dm21_a9a.py`. Training loss, one figure a
seed: {args.rounds} rounds, seeds 0 to {args.seeds - 1}. f* = 0.36568.
"""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.with_suffix(".md").write_text("\n".join([head, *tables]))
    RESULTS.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n")
    print("\n".join(tables))


if __name__ == "__main__":
    main()
