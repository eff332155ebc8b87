"""Tables of a study: worst attacks, rounds and bits to a target, bound beside measurement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from statistics import median
from typing import NamedTuple

from byzopt.reports.study.bounded import BOUND
from byzopt.reports.study.cases import Case, spelt, split
from byzopt.reports.study.chart import as_csv
from byzopt.reports.study.figures_of import Figure, worst

NEAR = 0.9  # the target lies this far on the way from the start to the best final value


class Sheet(NamedTuple):
    """A table: its name, title, what it says in words, head, rows of text."""

    name: str
    title: str
    caption: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]

    @property
    def csv(self) -> str:
        """The table as CSV text."""
        return as_csv([dict(zip(self.head, row, strict=True)) for row in self.rows])


def worst_case(name: str, title: str, figure: Figure, cases: Sequence[Case], series: Sequence[str]) -> Sheet:
    """Every series at its worst attack, the best of them first: what a defender can count on."""
    judged = []
    for labels, own in split(cases, series).items():
        attacks = list(split(own, ["attack"]).items())
        means = [figure.mean(group) for _, group in attacks]
        at = worst(figure, means)
        finals = [value for case in attacks[at][1] if (value := figure.final(case)) is not None]
        spread = f"{figure.said(min(finals))} to {figure.said(max(finals))}" if finals else "-"
        failed = sum(case.outcome.status.failed for case in own)
        value = means[at]
        said = "failed" if value is None else figure.said(value)
        judged.append((value, (*labels, attacks[at][0][0], said, spread, f"{failed} of {len(own)}")))
    lowest = float("-inf") if figure.rises else float("inf")
    judged.sort(key=lambda pair: lowest if pair[0] is None else pair[0], reverse=figure.rises)
    head = (*series, "worst attack", f"{figure.label}, mean", "over its seeds", "runs that failed")
    text = "Final values under the attack that is worst for each, best defence first."
    return Sheet(name, title, text, head, [row for _, row in judged])


def to_target(
    name: str,
    title: str,
    figure: Figure,
    cases: Sequence[Case],
    series: Sequence[str],
    target: float | None,
) -> Sheet | None:
    """Rounds, gradients, bits and seconds until the figure first reaches a target, in the figure's unit."""
    goal = _target(figure, cases) if target is None else target
    if goal is None:
        return None
    rows = []
    for labels, own in split(cases, [*series, "attack"]).items():
        hits = [hit for case in own if (hit := _hit(figure, case, goal)) is not None]
        costs = [_middle([hit[i] for hit in hits]) for i in range(4)] if hits else ["-"] * 4
        rows.append((*labels, f"{len(hits)} of {len(own)}", *costs))
    head = (*series, "attack", "seeds that reach it", "rounds", "gradients / worker", "bits / worker", "≈ s")
    sign = "at least" if figure.rises else "at most"
    text = f"Target: {figure.label} {sign} {goal:.4g}. Medians over the seeds that reach it. Seconds are the "
    text += "run's own, shared evenly among its rounds, on whatever machine ran it."
    return Sheet(name, title, text, head, rows)


def tuned(store: Path) -> list[Sheet]:
    """What each tuned sweep of a store chose, by which rule: a table a sweep."""
    made = []
    for path in sorted((store / "sweeps").glob("*/tuned.json")):
        told = json.loads(path.read_text())
        if not told:
            continue
        axes = list(dict.fromkeys(axis for cell in told["cells"] for axis in cell["cell"]))
        rows = []
        for cell in told["cells"]:
            about = [spelt(cell["cell"].get(axis, "-")) for axis in axes]
            score = "-" if cell["score"] is None else f"{cell['score']:.4g}"
            chosen = cell["chosen"] or dict.fromkeys(told["choose"], "none")
            settings = [spelt(chosen[axis]) for axis in told["choose"]]
            rows.append((*about, *settings, score, str(len(cell["settings"]))))
        head = (*axes, *told["choose"], told["figure"], "settings tried")
        text = f"Chosen by {told['by'].replace('_', ' ')} of {told['figure']}"
        text += ", on test figures." if told["on_test_figures"] else "."
        name = f"tuned-{path.parent.name}"
        made.append(Sheet(name, f"Tuned settings, {path.parent.name}", text, head, rows))
    return made


def bounds(name: str, title: str, cases: Sequence[Case], axes: Sequence[str]) -> Sheet | None:
    """What theory bounds beside what was measured, at the last record that holds both."""
    rows = []
    for labels, own in split(cases, axes).items():
        for case in own:
            for key in _bounded(case):
                record = next(r for r in reversed(case.outcome.records) if key in r and key + BOUND in r)
                seen, bound = record[key], record[key + BOUND]
                held = "holds" if seen <= bound else "EXCEEDED"
                told = (f"{seen:.4g}", f"{bound:.4g}", f"{seen / bound:.3g}" if bound else "-", held)
                rows.append((*labels, str(case.seed), key, *told))
    head = (*axes, "seed", "figure", "measured", "bound", "measured / bound", "")
    text = "Last records of each run. Bounds are those of the theorem's own step sizes, with constants "
    text += "estimated on the task: a run with other steps may exceed them."
    return Sheet(name, title, text, head, rows) if rows else None


def _bounded(case: Case) -> list[str]:
    keys = dict.fromkeys(key for record in case.outcome.records for key in record)
    return [key for key in keys if key + BOUND in keys]


def _target(figure: Figure, cases: Sequence[Case]) -> float | None:
    finals = [value for case in cases if (value := figure.final(case)) is not None]
    starts = [
        figure.scale * case.outcome.records[0][figure.key]
        for case in cases
        if case.outcome.records and figure.key in case.outcome.records[0]
    ]
    if not finals or not starts:
        return None
    if figure.rises:
        return median(starts) + NEAR * (max(finals) - median(starts))
    start, best = median(starts), min(finals)
    if start > 0 and best > 0:
        return float(start ** (1 - NEAR) * best**NEAR)
    return start + NEAR * (best - start)


def _hit(figure: Figure, case: Case, goal: float) -> tuple[float, float, float, float] | None:
    """What the first record at the goal had cost."""
    for record in case.outcome.records:
        value = figure.scale * record.get(figure.key, float("nan"))
        if isfinite(value) and (value >= goal if figure.rises else value <= goal):
            t = record["t"]
            seconds = case.outcome.seconds * t / max(1, case.outcome.rounds)
            return t, record.get("gradients", float("nan")), record.get("bits", float("nan")), seconds
    return None


def _middle(values: Sequence[float]) -> str:
    value = median(values)
    return "-" if not isfinite(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
