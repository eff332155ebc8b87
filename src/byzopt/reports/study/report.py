"""A report: the charts and tables that fit the axes along which a study varies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from byzopt.certificates.progress import OnProgress, no_progress
from byzopt.errors import UnknownName
from byzopt.experiments.sweeps.tuning import read_choices
from byzopt.reports.study import workers
from byzopt.reports.study.cases import SERIES, Case, Study, group_cases, load_study
from byzopt.reports.study.chart import Chart, own_names, slug
from byzopt.reports.study.figures_of import LOSS, Figure, figure_of, main_figure, shown_figures
from byzopt.reports.study.finals import final_values_table
from byzopt.reports.study.heat import heat_map
from byzopt.reports.study.lines import MOST, curve_chart
from byzopt.reports.study.sheet import ReportTable
from byzopt.reports.study.sheets import (
    bound_table,
    promise_table,
    target_table,
    tuned_tables,
    worst_case_table,
)

Target = tuple[str, float]  # a figure's key, and the value to reach in records' own unit


@dataclass(frozen=True)
class StudyReport:
    """What a store's runs say: charts and tables in the order of reading."""

    study: Study
    maps: tuple[Chart, ...]
    curves: tuple[Chart, ...]
    sheets: tuple[ReportTable, ...]


def make_report(
    store: Path, target: Target | None = None, bounds: bool = False, on_progress: OnProgress = no_progress
) -> StudyReport:
    """The report on a store. `target`: see `to_target`; by default nine tenths of the way to the best value.
    `bounds` puts what theory promises beside it, see `bound_adder`; `on_progress` hears how far that is.

    Runs are told apart by every setting that varies. Charts are drawn for each task; lines and columns are
    methods and rules; what else varies makes a chart of its own. Errors: `InvalidInput` for a store without
    runs; `UnknownName` for a figure that no record has.
    """
    study = load_study(store, bounds, on_progress)
    if target is not None:
        known = {key for case in study.cases for record in case.outcome.records for key in record}
        if target[0] not in known:
            raise UnknownName(f"Unknown figure {target[0]!r}. Known: {', '.join(sorted(known - {'t'}))}.")
    series = [axis for axis in SERIES if axis in study.varied] or ["rule"]
    maps: list[Chart | None] = []
    lines: list[Chart | None] = []
    sheets: list[ReportTable | None] = []
    for (task,), cases in group_cases(study.cases, ["task"]).items():
        part = _Part(study, cases, task, series)
        maps += part.maps()
        lines += part.curves()
        lines += part.workers()
        sheets += part.sheets(target)
    choices, wrong = read_choices(store)
    sheets += tuned_tables(choices)
    study = replace(study, damaged={**study.damaged, **wrong})
    return _named(study, [*filter(None, maps)], [*filter(None, lines)], [*filter(None, sheets)])


def _named(
    study: Study, maps: Sequence[Chart], lines: Sequence[Chart], sheets: Sequence[ReportTable]
) -> StudyReport:
    """The report, every file of which has a name of its own."""
    names = iter(own_names(one.name for group in (maps, lines, sheets) for one in group))
    drawn, curved = [tuple(one._replace(name=next(names)) for one in group) for group in (maps, lines)]
    return StudyReport(study, drawn, curved, tuple(one._replace(name=next(names)) for one in sheets))


class _Part:
    """The runs on one task."""

    def __init__(self, study: Study, cases: Sequence[Case], task: str, series: list[str]) -> None:
        self.cases, self.task, self.series = cases, task, series
        self.figure = main_figure(cases)
        self.varied = [a for a in study.varied if a != "task" and len({c.labels.get(a) for c in cases}) > 1]
        self.tag = slug(task) if "task" in study.varied else ""

    def maps(self) -> Iterator[Chart | None]:
        """Attack by rule, and tolerance by heterogeneity, wherever both vary."""
        if "attack" in self.varied:
            for title, tag, cases in self._facets(["attack", *self.series]):
                cells = group_cases(cases, ["attack", *self.series])
                label = joined_labels(key[1:] for key in cells)
                named = {(key[0], label[key[1:]]): group for key, group in cells.items()}
                names = ("attack", " · ".join(self.series))
                yield heat_map(f"attack-by-rule{tag}", f"Attack by rule{title}", self.figure, named, names)
        tolerance = next((axis for axis in ("f", "attackers") if axis in self.varied), None)
        if tolerance and "split" in self.varied:
            for title, tag, cases in self._facets([tolerance, "split", "attack"]):
                groups = group_cases(cases, [tolerance, "split"]).items()
                squares = {(key[0], key[1]): group for key, group in groups}
                name, said = f"f-by-heterogeneity{tag}", f"{tolerance} by heterogeneity{title}"
                yield heat_map(name, said, self.figure, squares, (tolerance, "split of the data"), worst=True)

    def curves(self) -> Iterator[Chart | None]:
        """The main figure and the loss, against rounds."""
        for figure in dict.fromkeys((self.figure, LOSS)):
            for title, tag, cases in self._facets(self.series):
                groups = group_cases(cases, self.series)
                label, lines = joined_labels(groups), list(groups.items())
                for at in range(0, len(lines), MOST):
                    part = f"-{at // MOST + 1}" if len(lines) > MOST else ""
                    named = {label[key]: group for key, group in lines[at : at + MOST]}
                    yield curve_chart(
                        f"{figure.key}{tag}{part}", f"{self._said(figure)}{title}", figure, named
                    )

    def workers(self) -> Iterator[Chart | None]:
        """Each honest worker's figures, a chart for every setting, where they were measured."""
        for figure in workers.measured_worker_figures(self.cases):
            for title, tag, cases in self._facets([]):
                said = f"{self._said(figure)} {workers.WHOSE}{title}"
                yield workers.worker_chart(f"workers-{figure.key}{tag}", said, figure, cases)

    def sheets(self, target: Target | None) -> Iterator[ReportTable | None]:
        """Final values, worst attacks, costs to a target, bounds."""
        shown = [*self.series, *(axis for axis in self.varied if axis not in self.series)]
        name = f"final-values-{self.tag}" if self.tag else "final-values"
        yield final_values_table(
            name, f"Final values, {self.task}", shown_figures(self.cases), self.cases, shown
        )
        facets = list(self._facets(["attack", *self.series]))
        for title, tag, cases in facets:
            yield worst_case_table(f"worst-case{tag}", f"Worst case{title}", self.figure, cases, self.series)
        figure, goal = self._aim(target)
        for title, tag, cases in facets:
            name, said = f"to-target{tag}", f"Cost to a target{title}"
            yield target_table(name, said, figure, cases, self.series, goal)
        axes = [axis for axis in self.varied if axis not in self.series]
        shown = [*self.series, *axes]
        yield bound_table(f"bounds{self.tag}", f"Bound beside measurement, {self.task}", self.cases, shown)
        yield promise_table(f"promises{self.tag}", f"What theory promises, {self.task}", self.cases, shown)

    def _facets(self, shown: Sequence[str]) -> Iterator[tuple[str, str, list[Case]]]:
        """The runs for each setting of what varies and is not shown: words for titles and for file names."""
        axes = [axis for axis in self.varied if axis not in shown]
        for labels, cases in group_cases(self.cases, axes).items():
            words = [f"{axis} {label}" for axis, label in zip(axes, labels, strict=True)]
            parts = [slug(f"{axis}-{label}") for axis, label in zip(axes, labels, strict=True)]
            tag = "-".join([self.tag, *parts]) if self.tag else "-".join(parts)
            yield ", ".join(["", self.task, *words]), f"-{tag}" if tag else "", cases

    def _aim(self, target: Target | None) -> tuple[Figure, float | None]:
        if target is None:
            return self.figure, None
        figure = figure_of(target[0])
        return figure, figure.unit(target[1])

    def _said(self, figure: Figure) -> str:
        return figure.label.partition(" (")[0]


def joined_labels(keys: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Labels of several axes in one text, another for each."""
    labels: dict[tuple[str, ...], str] = {}
    for key in dict.fromkeys(keys):
        text = " · ".join(key)
        labels[key] = text if text not in labels.values() else " · ".join(map(repr, key))
    return labels
