"""How far a searched attack turns one answer of each rule, by how different the honest rows are.

    python benchmarks/turns.py [--store DIR] [--write]

Honest rows are those of a training without attack: Byz-NSGDM on scikit-learn's digits as the preset
`byz-nsgdm/digits` has it (20 workers, worker momentum, eta = 0.1), Dirichlet 0.1, all samples with the
honest workers, seed 0, rounds 100, 200 and 300. To each set of rows a multiple of its mean m is added, the
same to every row, so that h = variance/‖m‖² is what it should be while the deviations stay. The attack is
`autobyz` with its objective `cos`, on each set of rows by itself. Beside it the reversed mean, 10 times and
half as long.

Beyond 90 degrees a step goes the wrong way. Results are stored as they come (`turns.json` in --store), and
the same command goes on where it was stopped. One process, one thread. `--write` writes docs/results/turns.md
and .json from what is stored.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import fields
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from _peers_env import table
from _stressed import CELLS, prose
from byzopt import AutoByz, rule_from
from byzopt.attacks import ATTACKS
from byzopt.engines import rounds
from byzopt.errors import InvalidInput
from byzopt.experiments import load
from byzopt.experiments.trials.memory import build_task
from byzopt.experiments.trials.prepared import RunSettings, prepare

OUT = Path(__file__).parent.parent / "docs" / "results"
RULES = (
    *("rfa", "geometric_median", "norm_clipping", "normalise >> mean", "normalise >> rfa", "arc >> rfa"),
    *("normalise >> trimmed_mean", "centered_clipping", "sign_majority", "trimmed_mean", "median"),
    *("nnm >> rfa", "nnm >> trimmed_mean", "nnm >> krum", "nnm >> median", "multi_krum", "krum"),
    *("capped_nnm(cap=0.5) >> rfa", "normalise >> nnm >> mean", "normalise >> capped_nnm(cap=0.5) >> mean"),
    *("bucketing(s=2) >> rfa", "faba", "caf", "mean"),
)
CRUDE = ({"name": "ipm", "scale": 10.0}, {"name": "ipm", "scale": 0.5})
EVERY = 100
RATIOS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # h


def snapshots(cell: str) -> list[Tensor]:
    """Honest rows `[n, d]` of rounds of a training without attack."""
    settings = [*CELLS[cell], "rounds=300", "task.byzantine_data=all", "rule=mean", "attack=none", "f=0"]
    liars = int(cell.rpartition(" ")[2])
    spec = load("byz-nsgdm/digits", [*settings, f"attackers={liars}"], compare=False)
    task, kept = build_task(spec), []
    ready = prepare(task, spec.built(), RunSettings(spec.attack, spec.f, spec.seed, spec.rounds, spec.rounds))
    exchange = type(ready.engine).exchange

    class Seen(type(ready.engine)):  # type: ignore[misc]
        def exchange(self, *args: Any, **named: Any) -> Any:
            sent, after = exchange(self, *args, **named)
            if args[2] % EVERY == 0:
                kept.append(sent.rows.clone())
            return sent, after

    engine = ready.engine
    watched = Seen(**{each.name: getattr(engine, each.name) for each in fields(engine)})
    for _ in rounds(ready.method, watched, ready.start, spec.rounds):
        pass
    return [torch.cat([rows[list(spec.cohort.honest)], rows[list(spec.cohort.byzantine)]]) for rows in kept]


def differing(rows: Tensor, liars: int, h: float) -> Tensor:
    """The rows with a multiple of the honest mean m added, so that variance/‖m‖² of the honest is h."""
    honest = rows[:-liars].double()
    mean = honest.mean(dim=0)
    variance = (honest - mean).square().sum(dim=1).mean()
    length = (variance / h).sqrt()
    return (rows.double() + (length / mean.norm() - 1) * mean).to(rows.dtype)


def degrees(rule: str, liars: int, attack: Any, sets: list[Tensor]) -> list[float]:
    """The angle between answer and honest mean, for each set."""
    out = []
    made = rule_from(rule, f=liars)
    for rows in sets:
        sent = attack(rows, byzantine=liars, rule=made)
        answer, mean = made(sent).double(), rows[:-liars].double().mean(dim=0)
        cosine = torch.nn.functional.cosine_similarity(answer, mean, dim=0)
        out.append(float(cosine.clamp(-1, 1).arccos().rad2deg()))
    return out


def measured(store: Path) -> dict[str, dict[str, Any]]:
    """Angles by cell, rule and h, from the store or now."""
    kept = store / "turns.json"
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for cell in list(CELLS)[:2]:
        liars, here = int(cell.rpartition(" ")[2]), found.setdefault(cell, {})
        sets = snapshots(cell) if len(here) < len(RULES) else []
        for rule in RULES:
            if rule not in here and _fits(rule, liars):
                here[rule] = {}
                for h in RATIOS:
                    moved = [differing(rows, liars, h) for rows in sets]
                    crude = [degrees(rule, liars, ATTACKS.build(attack), moved) for attack in CRUDE]
                    here[rule][str(h)] = {
                        "searched": degrees(rule, liars, AutoByz(), moved),
                        "prescribed": [max(pair) for pair in zip(*crude, strict=True)],
                    }
                kept.write_text(json.dumps(found), encoding="utf-8")
                told = [round(fmean(angles["searched"])) for angles in here[rule].values()]
                print(cell, rule, *told, flush=True)
    return found


def _fits(rule: str, liars: int) -> bool:
    """Whether a rule tolerates so many of 20 rows."""
    try:
        rule_from(rule, f=liars)(torch.eye(20))
    except InvalidInput:
        return False
    return True


def page(found: dict[str, dict[str, Any]]) -> str:
    """The tables in words."""
    text = [
        "# How far one answer is turned",
        "",
        prose(
            "Written by `python benchmarks/turns.py --write`. Degrees between a rule's answer and the",
            "mean m of the honest rows, means over three rounds of a training without attack (digits,",
            "Dirichlet 0.1, 20 workers, worker momentum, seed 0). To every row the same multiple of m was",
            "added, so that h = variance/‖m‖² is what the column says. The attack is `autobyz`, objective",
            "`cos`, searched against the rule; in brackets the worse of two prescribed ones, the reversed",
            "mean 10 times and half as long. Beyond 90 degrees a step goes the wrong way.",
        ),
        "",
        prose(
            "It is the angle of single answers and no accuracy of a training. But as a training nears an",
            "optimum of the honest losses m becomes short and h grows, so that the h at which a rule's",
            "answer turns away says where liars can stop it. The search is a heuristic: an angle is a",
            "lower bound on the worst.",
        ),
    ]
    for cell, here in found.items():
        liars = int(cell.rpartition(" ")[2])
        rows = sorted(here.items(), key=lambda pair: sum(fmean(a["searched"]) for a in pair[1].values()))
        body = [
            [
                f"`{rule}`",
                *(f"{fmean(a['searched']):.0f} ({fmean(a['prescribed']):.0f})" for a in by.values()),
            ]
            for rule, by in rows
        ]
        r = liars / (20 - 2 * liars)
        text += ["", f"## {cell} of 20", ""]
        text += [table(["rule", *(f"h = {h:g}" for h in RATIOS)], body)]
        text += [
            f"r = f/(n - 2 f) = {r:.3f}: from h = {1 / r:.2f} on no rule [can promise](../stress.md"
            "#how-different-is-too-different) to stay below 90.",
        ]
    return "\n".join(text).rstrip() + "\n"


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--store", type=Path, default=Path("byzopt-survive"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    options.store.mkdir(parents=True, exist_ok=True)
    found = measured(options.store)
    if options.write:
        (OUT / "turns.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (OUT / "turns.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
