"""Tables of a study: worst attacks, rounds and bits to a target, bound beside measurement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from statistics import median

from byzopt.experiments.sweeps.tuning import Choice
from byzopt.reports.study.bounded import BOUND, LEAST
from byzopt.reports.study.captions import describe_cases
from byzopt.reports.study.cases import Case, group_cases, label_text
from byzopt.reports.study.figures_of import Figure, figure_of, worst_place
from byzopt.reports.study.finals import SPREAD
from byzopt.reports.study.sheet import Cell, ReportTable
from byzopt.theory.promise import Promise

NEAR = 0.9  # the target lies this far on the way from the start to the best final value


def worst_case_table(
    name: str, title: str, figure: Figure, cases: Sequence[Case], series: Sequence[str]
) -> ReportTable:
    """Every series at its worst attack, the best of them first: what a defender can count on."""
    judged: list[tuple[float | None, tuple[Cell, ...]]] = []
    for labels, of_series in group_cases(cases, series).items():
        attacks = list(group_cases(of_series, ["attack"]).items())
        means = [figure.mean(group) for _, group in attacks]
        at = worst_place(figure, means)
        hit, value = attacks[at][1], means[at]
        finals = figure.finals(hit)
        ends = (min(finals), max(finals)) if finals else (None, None)
        failed = sum(case.outcome.status.failed for case in of_series)
        numbers = (value, figure.spread(hit), len(finals), *ends, failed, len(of_series))
        judged.append((value, (*labels, attacks[at][0][0], *numbers)))
    lowest = float("-inf") if figure.rises else float("inf")
    judged.sort(key=lambda pair: lowest if pair[0] is None else pair[0], reverse=figure.rises)
    ends_of = (f"{figure.label}, least", f"{figure.label}, largest")
    head = (*series, "worst attack", *figure.columns, *ends_of, "runs that failed", "runs")
    text = f"Final values under the attack that is worst for each, best defence first. {SPREAD} An attack "
    text += (
        "under which a run failed is the worst, and has no mean; failed runs are counted over all attacks. "
    )
    text += describe_cases(cases)
    digits = dict.fromkeys((*figure.columns[:2], *ends_of), figure.digits)
    return ReportTable(name, title, text, head, [row for _, row in judged], digits)


def target_table(
    name: str,
    title: str,
    figure: Figure,
    cases: Sequence[Case],
    series: Sequence[str],
    target: float | None,
) -> ReportTable | None:
    """Rounds, gradients, bits and seconds until the figure first reaches a target, in the figure's unit."""
    goal = _target(figure, cases) if target is None else target
    if goal is None:
        return None
    rows: list[tuple[Cell, ...]] = []
    for labels, group in group_cases(cases, [*series, "attack"]).items():
        hits = [hit for case in group if (hit := _hit(figure, case, goal)) is not None]
        costs = [cost for i in range(4) for cost in _middle([hit[i] for hit in hits])]
        rows.append((*labels, len(hits), len(group), *costs))
    what = ("rounds", "gradients / worker", "bits / worker", "≈ s")
    spread = [f"{cost}, {of}" for cost in what for of in ("median", "least", "largest")]
    head = (*series, "attack", "seeds that reach it", "seeds", *spread)
    sign = "at least" if figure.rises else "at most"
    text = f"Target: {figure.label} {sign} {goal:.4g}. Medians and extremes over the seeds that reach it. "
    text += "Seconds are the run's own, shared evenly among its rounds, on whatever machine ran it. "
    text += describe_cases(cases)
    return ReportTable(name, title, text, head, rows)


def tuned_tables(choices: Mapping[str, Choice]) -> Iterator[ReportTable]:
    """What each tuned sweep of a store chose, by which rule: a table a sweep, by the name of its folder."""
    for folder, choice in choices.items():
        axes = list(dict.fromkeys(axis for cell in choice.cells for axis in cell.cell))
        rows: list[tuple[Cell, ...]] = []
        figure = figure_of(choice.figure)
        for cell in choice.cells:
            about = [label_text(cell.cell.get(axis, "-")) for axis in axes]
            score = None if cell.score is None else figure.unit(cell.score)
            chosen = cell.chosen or dict.fromkeys(choice.choose, "none")
            settings = [label_text(chosen[axis]) for axis in choice.choose]
            rows.append((*about, *settings, score, len(cell.settings)))
        head = (*axes, *choice.choose, figure.label, "settings tried")
        text = f"Chosen by {choice.by.replace('_', ' ')} of {choice.figure}"
        text += ", on test figures." if choice.on_test_figures else "."
        title, digits = f"Tuned settings, {folder}", {figure.label: figure.digits}
        yield ReportTable(f"tuned-{folder}", title, text, head, rows, digits)


def bound_table(name: str, title: str, cases: Sequence[Case], axes: Sequence[str]) -> ReportTable | None:
    """What theory bounds beside what was measured, at the last record that holds both."""
    rows: list[tuple[Cell, ...]] = []
    for labels, group in group_cases(cases, axes).items():
        for case in group:
            for key, end in _bounded(case):
                records = [r for r in case.outcome.records if key in r]
                at = max(i for i, r in enumerate(records) if key + end in r)
                seen = min(r[key] for r in records[: at + 1]) if end == LEAST else records[at][key]
                bound = records[at][key + end]
                held = "holds" if seen <= bound else "EXCEEDED"
                name_of = f"least {key}" if end == LEAST else key
                share = seen / bound if bound else None
                rows.append((*labels, case.seed, name_of, seen, bound, share, held))
    head = (*axes, "seed", "figure", "measured", "bound", "measured / bound", "")
    text = "Last records of each run. A bound is of the run's own step and stands here only where every "
    text += "premise of its theorem does; what rests on estimates is named in the table of promises. Bounds "
    text += "of methods with noise are in expectation, or with the probability that is said there."
    return ReportTable(name, title, text, head, rows) if rows else None


def promise_table(name: str, title: str, cases: Sequence[Case], axes: Sequence[str]) -> ReportTable | None:
    """What theory promises of every run, and what the promise rests on, or why there is none."""
    rows: list[tuple[Cell, ...]] = []
    for labels, group in group_cases(cases, axes).items():
        for case in group:
            promises = [case.promise] if case.promise is not None else []
            for promise in (*promises, *case.privacy):
                texts = promise_text(promise)
                rows.append((*labels, case.seed, promise.theorem, promise.measures, *texts))
    head = (*axes, "seed", "theorem", "on", "bound", "rests on, or fails for")
    text = "A bound is given where every premise of the theorem was looked at and stands, with the run's own "
    text += "step. One that is no less than the figure at the start is vacuous."
    return ReportTable(name, title, text, head, rows) if rows else None


def promise_text(promise: Promise) -> tuple[str, str]:
    """A promise's bound in words, and what it rests on or lacks."""
    if promise.bound is None:
        return "none", "; ".join(promise.missing) or "no bound is worked out"
    rests = "; ".join((*promise.estimated, *promise.remarks)) or "every premise holds for certain"
    if promise.vacuous:
        return f"vacuous: {promise.bound:.4g}, where the start has {promise.trivial:.4g}", rests
    return f"{promise.bound:.4g}", rests


def _bounded(case: Case) -> list[tuple[str, str]]:
    """The figures of a run that have a bound, and how its key ends."""
    keys = dict.fromkeys(key for record in case.outcome.records for key in record)
    return [(key, end) for key in keys for end in (BOUND, LEAST) if key + end in keys]


def _target(figure: Figure, cases: Sequence[Case]) -> float | None:
    finals = [value for case in cases if (value := figure.final(case)) is not None]
    starts = [
        figure.unit(case.outcome.records[0][figure.key])
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
        value = figure.unit(record.get(figure.key, float("nan")))
        if isfinite(value) and (value >= goal if figure.rises else value <= goal):
            t = record["t"]
            seconds = case.outcome.seconds * t / max(1, case.outcome.rounds)
            return t, record.get("gradients", float("nan")), record.get("bits", float("nan")), seconds
    return None


def _middle(values: Sequence[float]) -> tuple[float | None, ...]:
    if not values or not all(map(isfinite, values)):
        return None, None, None
    return median(values), min(values), max(values)
