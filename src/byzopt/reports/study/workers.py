"""Curves of each honest worker's figures on its own data, where records hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from byzopt.experiments.trials.per_worker import worker_figure
from byzopt.reports.curves import COLOURS, STYLES
from byzopt.reports.lettering import inked, legend, letters
from byzopt.reports.study.captions import describe_cases
from byzopt.reports.study.cases import Case
from byzopt.reports.study.chart import Chart, canvas
from byzopt.reports.study.figures_of import Figure, figure_of_workers, worst_place
from byzopt.reports.study.lines import Series, scale, series_of, set_limits

FEW = len(COLOURS)  # workers who all have a colour and a name
WHOSE = "of each honest worker on its own data"


def measured_worker_figures(cases: Sequence[Case]) -> list[Figure]:
    """The figures that the first records of these cases hold of single workers."""
    keys = [key for case in cases if case.outcome.records for key in case.outcome.records[0]]
    names = dict.fromkeys(of_worker.figure for key in keys if (of_worker := worker_figure(key)) is not None)
    return [figure_of_workers(name) for name in names]


@inked
def worker_chart(name: str, title: str, figure: Figure, cases: Sequence[Case]) -> Chart | None:
    """A chart of `figure` by round, a line for each honest worker: the mean over cases, which differ in seed.

    Of many workers those that end worst and best are named. None where no case has the figure.
    """
    split = {worker: _cases(figure, worker, cases) for worker in _who(figure, cases)}
    found = {worker: series_of(figure, own_cases) for worker, own_cases in split.items()}
    lines = {f"worker {worker}": line for worker, line in found.items() if line is not None}
    if not lines:
        return None
    styles, named = _styles(figure, lines)
    drawing, axes = canvas(4.3, 3.0 + 0.2 * -(-len(named) // 2))
    top, log = scale(figure, lines)
    handles = {label: axes.plot(line.rounds, line.mean, **styles[label])[0] for label, line in lines.items()}
    axes.set_xlabel("Communication rounds")
    axes.set_ylabel(letters(figure.label + (", log scale" if log else "")))
    set_limits(axes, figure, lines, top, log)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    legend(drawing, [handles[label] for label in named], list(named.values()), 2, fontsize=9.5)
    several = any(line.seeds > 1 for line in lines.values())
    text = f"A line for each of {len(lines)} honest workers, on all of its own data"
    text += ": the mean over seeds. " if several else ". "
    return Chart(name, title, text + describe_cases(cases), drawing, list(_rows(figure, split)))


def _styles(figure: Figure, lines: Mapping[str, Series]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """How each worker's line is drawn, and what the legend says of those that it names."""
    if len(lines) <= FEW:
        styles = {
            label: {"color": COLOURS[i], "linestyle": STYLES[i % len(STYLES)], "linewidth": 1.6}
            for i, label in enumerate(lines)
        }
        return styles, {label: label for label in lines}
    ends = {label: line.mean[-1] for label, line in lines.items()}
    low = list(ends)[worst_place(figure, list(ends.values()))]
    best = max(ends, key=lambda label: ends[label] if figure.rises else -ends[label])
    styles = {label: {"color": "0.6", "linewidth": 0.9, "zorder": 5} for label in lines}
    styles[low] = {"color": COLOURS[1], "linewidth": 1.8, "zorder": 20}
    styles[best] = {"color": COLOURS[0], "linewidth": 1.8, "linestyle": "--", "zorder": 19}
    other = next(label for label in lines if label not in (low, best))
    return styles, {low: f"{low}, worst at the end", best: f"{best}, best at the end", other: "the others"}


def _who(figure: Figure, cases: Sequence[Case]) -> list[int]:
    """The workers of whom some record holds the figure."""
    keys = {key for case in cases for record in case.outcome.records[:1] for key in record}
    return sorted(
        one.worker for key in keys if (one := worker_figure(key)) is not None and one.figure == figure.key
    )


def _cases(figure: Figure, worker: int, cases: Sequence[Case]) -> list[Case]:
    """The cases with this worker's figure for that of all."""
    key = f"{figure.key}_worker_{worker}"
    words = []
    for case in cases:
        records = tuple({"t": r["t"], figure.key: r[key]} for r in case.outcome.records if key in r)
        words.append(case._replace(outcome=replace(case.outcome, records=records)))
    return words


def _rows(figure: Figure, split: Mapping[int, Sequence[Case]]) -> Iterator[dict[str, Any]]:
    for worker, cases in split.items():
        for case in cases:
            for r in case.outcome.records:
                value = figure.unit(r[figure.key])
                yield {"worker": worker, "seed": case.seed, "t": int(r["t"]), figure.label: value}
