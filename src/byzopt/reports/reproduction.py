"""The results of a reproduction: its charts and its numbers, all from stored runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from byzopt.experiments.store.environment import environment
from byzopt.files import write_atomically
from byzopt.reports.reproduction_page import part_slug, part_title, reproduction_markdown
from byzopt.reports.study.captions import describe_cases
from byzopt.reports.study.cases import Case, WorkerCounts
from byzopt.reports.study.chart import Chart, own_names, slug
from byzopt.reports.study.figures_of import Figure, figure_of
from byzopt.reports.study.heat import heat_map
from byzopt.reports.study.lines import curve_chart
from byzopt.reports.study.sizes import size_chart
from byzopt.reproductions.fits import FittedValue
from byzopt.reproductions.reproduction import Cell, Fit, Part
from byzopt.reproductions.running import CellRun, ReproducedTables
from byzopt.reproductions.verdict import ComparedCell

RESULTS = "results.json"
MOST_SERIES = 8  # in a chart


def reproduction_charts(account: ReproducedTables) -> list[Chart]:
    """Each part's charts: its heat map, its fits, its curves for each setting of all axes but the last."""
    charts: list[Chart | None] = []
    for part in account.reproduction.parts:
        charts += [_map(account, part)] if part.map else []
        drawn = [fit for fit in part.fits if fit.how != "least" and not fit.then]
        charts += [chart for fit in drawn for chart in _sizes(account, part, fit)]
        charts += [
            chart for key in part.show for to in part.against for chart in _curves(account, part, key, to)
        ]
    made = [chart for chart in charts if chart is not None]
    names = own_names(chart.name for chart in made)
    return [chart._replace(name=name) for chart, name in zip(made, names, strict=True)]


def results(account: ReproducedTables) -> dict[str, Any]:
    """Every number of the page, with the spec of a run of each cell and what all were computed with."""
    it = account.reproduction
    cells = [_told(account, line) for line in account.lines if line.values]
    data = {"reproduction": it.name, "paper": it.paper, "environment": environment(), "cells": cells}
    fits = [fit_data(one) for one in account.fitted]
    return data | ({"fits": fits} if fits else {})


def save_reproduction(account: ReproducedTables, out: Path) -> list[Path]:
    """Write the page, its numbers, and every chart as PNG, SVG, PDF, CSV and LaTeX."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = reproduction_charts(account)
    made = [path for chart in drawn for path in chart.save(out)]
    for name, content in (
        (RESULTS, dump_results(results(account))),
        ("README.md", reproduction_markdown(account, drawn)),
    ):
        write_atomically(out / name, content.encode())
        made.append(out / name)
    return made


def dump_results(data: dict[str, Any]) -> str:
    """`results` as text, what is by seed in a line."""
    text = json.dumps(data, indent=1, allow_nan=False)
    return re.sub(r'\{\s*"-?\d+":[^{}]*\}', lambda found: " ".join(found.group().split()), text)


def _curves(account: ReproducedTables, part: Part, key: str, against: str) -> list[Chart | None]:
    figure = figure_of(key)
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in part.cells:
        groups.setdefault(cell.at[:-1], []).append(cell)
    charts = []
    for labels, cells in groups.items():
        series = {cell.at[-1]: cases for cell in cells if (cases := _cases(account, part, cell))}
        words = (key,) if against == "rounds" else (key, "by", against)
        title = ", ".join((part_title(part), *labels))
        name = slug("-".join((part_slug(part), *words, *labels)))
        charts.append(curve_chart(name, title, figure, series, against))
    return charts


def _sizes(account: ReproducedTables, part: Part, fit: Fit) -> list[Chart | None]:
    """The means that a fit is made of, by size; of many series, a chart for each label of the first axis."""
    name = fit.measure or part.measures[0].name
    lines = [line for line in account.lines if line.part is part and line.measure.name == name]
    axes = [axis for axis in part.axes if axis != fit.over]
    split = len({line.cell.at[: part.axes.index(fit.over)] for line in lines}) > MOST_SERIES
    groups: dict[tuple[str, ...], dict[str, dict[float, list[float]]]] = {}
    for line in lines:
        labels = dict(zip(part.axes, line.cell.at, strict=True))
        size, apart = float(labels.pop(fit.over)), (labels.pop(axes[0]),) if split else ()
        label = ", ".join(f"{axis} {text}" for axis, text in labels.items())
        # The mean of those that are left, where some failed, would be of the lucky ones.
        whole = line.known if line.mean is not None else []
        groups.setdefault(apart, {}).setdefault(label, {})[size] = whole
    shares = all(value in (0, 1) for line in lines for value in line.known)
    level, least = fit.level if fit.how == "crossing" else None, 0.0 if shares else None
    said = describe_cases(case for cell in part.cells for case in _cases(account, part, cell))
    if lost := sum(line.mean is None for line in lines if line.values):
        said += f" Sizes at which a run has no value are left out: {lost}."
    return [
        size_chart(
            slug("-".join((part_slug(part), fit.name, *apart))),
            ", ".join((f"{part_title(part)}: {fit.name}", *apart)),
            (fit.over, name),
            series,
            level,
            least,
            said,
        )
        for apart, series in groups.items()
    ]


def _map(account: ReproducedTables, part: Part) -> Chart | None:
    measure, (down, across) = part.measures[0], part.axes[-2:]
    cells = {(c.at[-2], c.at[-1]): cases for c in part.cells if (cases := _cases(account, part, c))}
    figure = Figure(measure.figure, measure.name, measure.scale)
    return heat_map(f"{part_slug(part)}-map", part_title(part), figure, cells, (down, across))


def _cases(account: ReproducedTables, part: Part, cell: Cell) -> list[Case]:
    labels = dict(zip(part.axes, cell.at, strict=True))
    return [Case(labels, one.seed, one.outcome, _setting(one)) for one in account.of(part, cell)]


def _setting(one: CellRun) -> WorkerCounts:
    return WorkerCounts(one.spec.n, one.spec.f, len(one.spec.cohort.byzantine))


def fit_data(one: FittedValue) -> dict[str, Any]:
    """A fit as plain data."""
    part, expected = one.part, one.expected
    data: dict[str, Any] = {
        "part": part.name,
        "protocol": part.protocol,
        "fit": one.fit.name,
        "of": one.labels,
    }
    data |= {"expected": None if expected is None else expected.value, "value": one.value}
    return data | {"standard_error": one.spread, "verdict": one.verdict}


def _told(account: ReproducedTables, line: ComparedCell) -> dict[str, Any]:
    part, runs = line.part, account.of(line.part, line.cell)
    data: dict[str, Any] = {"part": part.name, "protocol": part.protocol, "at": list(line.cell.at)}
    data |= {"measure": line.measure.name, "paper": line.printed, "mean": line.mean}
    data |= {"deviation": line.deviation, "ddof": part.ddof, "verdict": line.verdict}
    data |= {"values": {str(seed): value for seed, value in line.values.items()}}
    data |= {"runs": {str(one.seed): one.run for one in runs}}
    first = line.measure is part.measures[0]
    return data | ({"spec": runs[0].spec.data} if first else {})
