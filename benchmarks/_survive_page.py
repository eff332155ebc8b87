"""The page of `benchmarks/survive.py`: what held, what fell, and what is not known."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from _peers_env import table
from _stressed import prose

Trials = Sequence[dict[str, Any]]
NOT = "-"


def page(found: Trials) -> str:
    """Tables of both stages, with every seed, and how different honest rows were."""
    text = [
        "# Which defences survive a searched attack",
        "",
        prose(
            "Written by `python benchmarks/survive.py --write` from stored runs. Byz-NSGDM (eta = 0.1) on",
            "scikit-learn's digits, 20 workers, 300 rounds, all samples with the honest workers. Accuracy",
            "in %, the mean over the last tenth of the rounds, seed by seed: trainings that are driven to",
            "the brink go one way or the other. `drift` and `cos` are objectives of",
            "[autobyz](../reference/attacks/autobyz.md), searched each round against the rule as it",
            "stands. Its objective `workers`, which takes more, was found later and is not among them.",
        ),
    ]
    for stage, heading in (
        ("screening", "Screening, seeds 0 and 1"),
        ("held out", "On seeds 10 and 11, not looked at before"),
    ):
        for cell in dict.fromkeys(t["cell"] for t in found if t["stage"] == stage):
            here = [t for t in found if (t["stage"], t["cell"]) == (stage, cell)]
            text += ["", f"## {heading}: {cell}", "", *_cell(here)]
    return "\n".join(text).rstrip() + "\n"


def _cell(here: Trials) -> list[str]:
    attacks = list(dict.fromkeys(t["attack"] for t in here))
    by = {(t["candidate"], t["attack"]): t for t in here}
    rows = []
    for candidate in dict.fromkeys(t["candidate"] for t in here):
        mine = [by.get((candidate, attack)) for attack in attacks]
        attacked = [t for t in mine if t and t["attack"] != "no attack"]
        worst = min((fmean(t["values"]) for t in attacked), default=None)
        rows.append(
            [
                f"`{candidate}`",
                *map(_values, mine),
                NOT if worst is None else f"{100 * worst:.1f}",
            ]
        )
    calm = [t["h"] for t in here if t["attack"] == "no attack" and t["h"] is not None]
    liars = int(here[0]["cell"].rpartition(" ")[2])
    text = [table(["defence", *attacks, "worst mean"], rows)]
    if calm:
        r = liars / (20 - 2 * liars)
        least, most = r * min(calm), r * max(calm)
        said = (
            "from 1 on no rule that sees the rows alone [can promise a direction]"
            if least >= 1
            else "that has [this meaning]"
        )
        text += [
            prose(
                f"Without attack h = variance/‖m‖² of the honest rows was {min(calm):.1f} to",
                f"{max(calm):.1f} in the median round, and r = f/(n - 2 f) is {r:.3f}, so that r h was",
                f"{least:.1f} to {most:.1f}; {said}(../stress.md#how-different-is-too-different).",
            ),
        ]
    return text


def _values(trial: dict[str, Any] | None) -> str:
    return NOT if trial is None else ", ".join(f"{100 * value:.1f}" for value in trial["values"])
