"""The page of `benchmarks/survive.py`: what held, what fell, and what is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from _peers_env import table
from _stressed import prose

Found = Mapping[str, Any]
NOT = "-"


def attacked(one: Found) -> dict[str, list[float]]:
    """Each seed's accuracy under every attack that a candidate met."""
    hits = {**one["hits"], **one["again"]}
    return {attack: values for attack, values in hits.items() if attack != "no attack"}


def worst_attack(one: Found) -> str:
    """The attack under which the mean over seeds is least."""
    hits = attacked(one)
    return min(hits, key=lambda attack: fmean(hits[attack]))


def worst(one: Found) -> float:
    """The least mean over seeds, over all attacks."""
    return fmean(attacked(one)[worst_attack(one)])


def page(found: Sequence[Found]) -> str:
    """A table of each cell, the second attacks on the best, and how sure their order is."""
    seeds = len(found[0]["hits"]["no attack"]) if found else 0
    text = [
        "# Which defences survive a searched attack",
        "",
        prose(
            "Written by `python benchmarks/survive.py --write` from stored runs. Digits, an MLP 64-24-10,",
            "20 workers, 60 rounds: the [benchmark](../benchmark.md)'s protocol 2, in which each defence",
            "has the best of three rates against three attacks, on a seed and samples that no figure has.",
            f"The figures are of {seeds} seeds that neither the benchmark nor its tuning uses: accuracy (%),",
            "the mean over the last tenth of the rounds; guessing is 10. `workers`, `cos` and the other",
            "searches are objectives of [autobyz](../reference/attacks/autobyz.md). Rules come with worker",
            "momentum of eta = 0.1 where nothing else is said. `ascent` was written for chains that end in a",
            "mean: it follows the gradient of the objective through the chain, from 24 starts",
            "(`benchmarks/_ascent.py`). What a rule costs: [rules](rules.md),",
            "[guards](guards.md).",
        ),
    ]
    ended = [one["candidate"] for one in found if not any(one["hits"]["no attack"])]
    if ended:
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(ended))
        text += [
            "",
            prose(
                f"Runs that end before their last round count as 0: {names}, whose guards take honest",
                "workers with other data for liars and expel more than the rule behind them can do without.",
            ),
        ]
    for cell in dict.fromkeys(one["cell"] for one in found):
        here = sorted((one for one in found if one["cell"] == cell), key=worst, reverse=True)
        text += ["", f"## {cell}", "", *_cell(here)]
    return "\n".join(text).rstrip() + "\n"


def _cell(here: Sequence[Found]) -> list[str]:
    attacks = list(here[0]["hits"])
    head = ["defence", "rate", *attacks, "worst", "each seed under it"]
    rows = [
        [
            f"`{one['candidate']}`",
            f"{one['lr']:g}",
            *(f"{100 * fmean(one['hits'][attack]):.1f}" for attack in attacks),
            f"{100 * worst(one):.1f}",
            _seeds(attacked(one)[worst_attack(one)]),
        ]
        for one in here
    ]
    text = [table(head, rows), _order(here)]
    again = [one for one in here if one["again"]]
    if again:
        kinds = list(dict.fromkeys(attack for one in again for attack in one["again"]))
        rows = [
            [
                f"`{one['candidate']}`",
                *(
                    f"{100 * fmean(one['again'][attack]):.1f}" if attack in one["again"] else NOT
                    for attack in kinds
                ),
            ]
            for one in again
        ]
        text += [
            "",
            "The best, attacked again by what is not in the benchmark's set (searches with the full budget):",
            "",
            table(["defence", *kinds], rows),
        ]
    return text


def _order(here: Sequence[Found]) -> str:
    """What the seeds say of the best: beside whom it is better on every one of them, and beside whom not."""
    best, rest = here[0], here[1:]
    mine = attacked(best)[worst_attack(best)]
    close = [
        one
        for one in rest
        if not all(a > b for a, b in zip(mine, attacked(one)[worst_attack(one)], strict=True))
    ]
    if not close:
        return prose(f"`{best['candidate']}` is above each of the others on every seed.")
    names = ", ".join(f"`{one['candidate']}`" for one in close)
    return prose(
        f"The first is not above {names} on every seed: between these the order is not settled.",
    )


def _seeds(values: Sequence[float]) -> str:
    return ", ".join(f"{100 * value:.0f}" for value in values)
