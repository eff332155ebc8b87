"""Final values: mean, spread and count of every figure in every setting."""

from __future__ import annotations

from collections.abc import Sequence

from byzopt.reports.study.captions import describe_cases
from byzopt.reports.study.cases import Case, group_cases
from byzopt.reports.study.figures_of import Figure
from byzopt.reports.study.sheet import Cell, ReportTable

SPREAD = "sd is the standard deviation over seeds, with divisor k - 1 for k of them."


def final_values_table(
    name: str, title: str, figures: Sequence[Figure], cases: Sequence[Case], axes: Sequence[str]
) -> ReportTable:
    """A row for each setting of `axes`, with every figure's mean, spread and number of runs that have it."""
    rows: list[tuple[Cell, ...]] = []
    for labels, group in group_cases(cases, axes).items():
        numbers: list[Cell] = []
        for figure in figures:
            numbers += [figure.mean(group), figure.spread(group), len(figure.finals(group))]
        rows.append((*labels, *numbers, _failed(group), len(group)))
    named = [name for figure in figures for name in figure.columns]
    head = (*axes, *named, "runs that failed", "runs")
    digits = {name: figure.digits for figure in figures for name in figure.columns[:2]}
    text = f"Values at the end of a run: mean, sd and count over seeds. {SPREAD} A setting in which a run "
    text += f"failed has no mean. {describe_cases(cases)}"
    return ReportTable(name, title, text, head, rows, digits)


def _failed(cases: Sequence[Case]) -> int:
    return sum(case.outcome.status.failed for case in cases)
