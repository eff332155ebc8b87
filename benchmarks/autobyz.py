"""The searched attack beside the figures that it was to reach: digits with very unlike data, ten rules.

    python benchmarks/autobyz.py [--store DIR] [--minutes M] [--write]
    python benchmarks/autobyz.py --cost          # answers a round, and CPU seconds beside optimal_ipm

Byz-NSGDM on scikit-learn's digits, an MLP 64-32-10, 20 workers of whom 3 lie, Dirichlet 0.1, all samples
with the honest workers, 300 rounds of the preset `byz-nsgdm/digits` (lr 0.3, eta 0.1). Accuracy is the mean
over the last tenth of the rounds. The searches are the cheap ones, as in the benchmark. `WANTED` is the table
of the prototype that this attack was written after: the worst of its two objectives, and what it left without
attack.

All runs are stored as they end, and the same command goes on where it was stopped. One thread. `--write`
writes docs/results/autobyz.md and .json from what is stored and from the last `--cost`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _peers_env import described, machine, table
from _stressed import CELLS, Measurement, measured, prose
from byzopt.attacks.adaptive.trials import Trials
from byzopt.experiments import load, run

OUT = Path(__file__).parent.parent / "docs" / "results"
CELL = "Dirichlet 0.1, f = 3"
WANTED = {  # by rule: without attack, the worst of the searched (%)
    "nnm >> trimmed_mean": (95.5, 48.2),
    "krum": (92.7, 9.6),
    "rfa": (95.8, 85.9),
    "nnm >> rfa": (95.5, 42.5),
    "multi_krum": (96.1, 67.0),
    "nnm >> krum": (96.1, 43.7),
    "median": (63.4, 19.4),
    "trimmed_mean": (87.0, 51.8),
    "nnm >> median": (95.5, 43.9),
    "centered_clipping": (95.8, 76.6),
}
OBJECTIVES = ("shrink", "workers", "cos", "drift")
SEARCHED = tuple(f'autobyz(objective="{name}", budget="cheap")' for name in OBJECTIVES)
BOUNDING = ("norm_clipping", "normalise >> mean", "arc >> rfa")  # not in the prototype's table
REPEATED, SEEDS = ("rfa", "nnm >> rfa"), 3
LESS_UNLIKE = "Dirichlet 1, f = 3"  # a cell in which rules are compared too
ELSEWHERE = ("rfa", "nnm >> rfa")
DEAR = "centered_clipping"  # asked on whole rows: one objective
COSTED = ("rfa", "krum", "nnm >> rfa")  # geometric rules; with the full budget
ROUNDS, TURNS = 30, 3  # of a run whose cost is taken, and how often


def trials(store: Path, end: float) -> list[dict[str, Any]]:
    """All that is stored, or can be measured before `end`: seed 0, then the seeds 0 to 2 of some."""
    plans = [("table", CELL, rule, SEARCHED, 1) for rule in WANTED if rule != DEAR]
    plans += [("bounding", CELL, rule, SEARCHED[:2], 1) for rule in BOUNDING]
    plans += [("seeds", CELL, rule, SEARCHED[:2], SEEDS) for rule in REPEATED]
    plans += [("table", CELL, DEAR, SEARCHED[:1], 1)]
    plans += [("less unlike", LESS_UNLIKE, rule, SEARCHED[:3], 1) for rule in ELSEWHERE]
    found: list[dict[str, Any]] = []
    for stage, cell, rule, attacks, seeds in plans:
        settings = (f"rule={rule}", "task.hidden=[32]")
        one = Measurement(stage, cell, rule, settings, attacks, 0, seeds)
        told = measured(one, store, lambda: time.monotonic() >= end)
        found += told
        values = {t["attack"][:30]: [round(100 * value, 1) for value in t["values"]] for t in told}
        print(stage, cell, rule, values, flush=True)
    return found


def cost(kept: Path) -> None:
    """Answers a round, and CPU seconds under the search over those under `optimal_ipm`, into a file."""
    asked = 0
    answers = Trials.answers

    def counted(self: Trials, *args: Any) -> Any:
        nonlocal asked
        before = self.count
        out = answers(self, *args)
        asked += self.count - before
        return out

    Trials.answers = counted  # type: ignore[method-assign]
    out = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for rule in COSTED:
        if rule in out:
            continue
        usual = [
            *CELLS[CELL],
            "task.byzantine_data=all",
            f"rule={rule}",
            f"eval_every={ROUNDS}",
        ]
        seconds: dict[str, list[float]] = {"autobyz": [], "optimal_ipm": [], "none": []}
        for turn in range(TURNS + 1):  # the first compiles, and is not counted
            for attack, known in seconds.items():
                spec = load(
                    "byz-nsgdm/digits",
                    [*usual, f"rounds={ROUNDS}", f"attack={attack}"],
                    compare=False,
                )
                asked, begun = 0, time.process_time()
                run(spec)
                known += [time.process_time() - begun] if turn else []
                if attack == "autobyz":
                    answered = asked / ROUNDS
        least = {attack: min(known) for attack, known in seconds.items()}
        out[rule] = {
            "answers": answered,
            "over_optimal_ipm": least["autobyz"] / least["optimal_ipm"],
            "over_no_attack": least["autobyz"] / least["none"],
        }
        kept.write_text(json.dumps(out), encoding="utf-8")
        print(rule, out[rule], flush=True)


def compared(found: list[dict[str, Any]]) -> list[str]:
    """The table beside the prototype's: seed 0, each objective and the worst of those measured."""
    by = {(t["candidate"], t["attack"]): 100 * fmean(t["values"]) for t in found if t["stage"] == "table"}
    lines, measured_on, fell = [], 0, 0
    for rule, (calm, wanted) in WANTED.items():
        mine = {attack: by[rule, attack] for attack in SEARCHED if (rule, attack) in by}
        worst = min(mine.values(), default=None)
        measured_on += worst is not None
        fell += worst is not None and worst <= wanted + 5
        told = [by.get((rule, "no attack")), *(mine.get(attack) for attack in SEARCHED), worst]
        shown = ["-" if value is None else f"{value:.1f}" for value in (*told, wanted, calm)]
        lines.append([f"`{rule}`", *shown])
    head = ["rule", "no attack", *OBJECTIVES, "worst", "prototype: worst", "prototype: no attack"]
    return [
        table(head, lines),
        prose(
            f"Measured on {measured_on} of {len(WANTED)} rules; a dash is what was not measured, and the",
            f"worst is that of the others. On {fell} of the rules the worst is at most five points above the",
            "prototype's, or below it; which model the prototype trained is not known. One seed is one draw:",
            "trainings driven to the brink differ by many points from seed to seed.",
        ),
    ]


def differing(found: list[dict[str, Any]]) -> list[str]:
    """How different honest rows were in the trainings of the table."""
    by = {(t["candidate"], t["attack"]): t["h"] for t in found if t["stage"] == "table"}
    columns, body = ("no attack", *SEARCHED), []
    for rule in WANTED:
        told = [by.get((rule, attack)) for attack in columns]
        body.append([f"`{rule}`", *("-" if value is None else f"{value:.1f}" for value in told)])
    text = prose(
        "h = variance/‖m‖² of the honest rows, m their mean, in the median round of the same trainings.",
        "The larger it is, the further [a rule is turned](turns.md). Answers that are turned from m alone",
        "(`cos`, `drift`) lead to where losses are large and h is small, and there chains behind `nnm`",
        "bring the model back. `shrink` leads to where h is larger.",
    )
    return [
        "",
        "## How different the rows were",
        "",
        text,
        "",
        table(["rule", "no attack", *OBJECTIVES], body),
    ]


def others(found: list[dict[str, Any]]) -> list[str]:
    """Rules that are not in the prototype's table, more seeds, and data that differ less."""
    text = [*part(found, "bounding", "Rules that bound every row, seed 0", BOUNDING, 2)]
    text += part(found, "seeds", f"Seeds 0 to {SEEDS - 1}", REPEATED, 2)
    return [*text, *part(found, "less unlike", f"{LESS_UNLIKE}, seed 0", ELSEWHERE, 3)]


def part(found: list[dict[str, Any]], stage: str, title: str, rules: Sequence[str], shown: int) -> list[str]:
    """A section with the figures of a stage, seed by seed; none where nothing was measured."""
    by = {(t["candidate"], t["attack"]): t["values"] for t in found if t["stage"] == stage}
    columns, body = ("no attack", *SEARCHED[:shown]), []
    for rule in rules:
        told = [[f"{100 * value:.1f}" for value in by.get((rule, attack), ())] for attack in columns]
        body.append([f"`{rule}`", *(", ".join(each) or "-" for each in told)])
    head = ["rule", "no attack", *OBJECTIVES[:shown]]
    return ["", f"## {title}", "", table(head, body)] if by else []


def costly(costs: dict[str, Any]) -> list[str]:
    """What a round costs."""
    head = ["rule", "answers a round", "over a run under `optimal_ipm`", "over one without attack"]
    body = [
        [
            f"`{rule}`",
            f"{one['answers']:.0f}",
            f"{one['over_optimal_ipm']:.1f}x",
            f"{one['over_no_attack']:.1f}x",
        ]
        for rule, one in costs.items()
    ]
    told = prose(
        f"Least CPU seconds of {TURNS} runs of {ROUNDS} rounds each, in turn in one process, with",
        "the full budget. The prototype took about 150 answers a round.",
    )
    return ["", "## Cost", "", told, "", table(head, body), described(machine())]


def page(found: list[dict[str, Any]], costs: dict[str, Any]) -> str:
    """The tables in words."""
    told = prose(
        "Written by `python benchmarks/autobyz.py --write` from stored runs: digits, Dirichlet 0.1,",
        "an MLP 64-32-10, 20 workers of whom 3 lie, Byz-NSGDM, 300 rounds, seed 0. Accuracy in %, the",
        "mean over the last tenth of the rounds. The columns are objectives of",
        "[autobyz](../reference/attacks/autobyz.md), with its cheap budget: 150 to 180 answers a round. What",
        "the full budget, an evolution strategy more, takes from these trainings was not measured.",
    )
    text = ["# The searched attack beside its prototype", "", told, "", *compared(found)]
    text += [*others(found), *differing(found), *(costly(costs) if costs else [])]
    return "\n".join(text).rstrip() + "\n"


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--store", type=Path, default=Path("byzopt-survive"))
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    costs = options.store / "cost.json"
    if options.cost:
        options.store.mkdir(parents=True, exist_ok=True)
        cost(costs)
        return
    found = trials(options.store, time.monotonic() + (0 if options.write else 60 * options.minutes))
    if options.write:
        known = json.loads(costs.read_text(encoding="utf-8")) if costs.exists() else {}
        data = {"trials": found, "cost": known}
        (OUT / "autobyz.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        (OUT / "autobyz.md").write_text(page(found, known), encoding="utf-8")


if __name__ == "__main__":
    main()
