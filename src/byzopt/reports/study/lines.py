"""Curves: a figure against rounds, a line for each method and rule, a band over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from statistics import fmean
from typing import Any, NamedTuple

from byzopt.experiments.trials.outcome import LARGEST, has_finite_square
from byzopt.reports.curves import COLOURS, STYLES
from byzopt.reports.lettering import WIDE as LEGEND
from byzopt.reports.lettering import distinct, heights, inked, legend, letters, longest
from byzopt.reports.study.bounded import BOUND, LEAST
from byzopt.reports.study.captions import describe_cases
from byzopt.reports.study.cases import Case
from byzopt.reports.study.chart import Chart, canvas
from byzopt.reports.study.figures_of import Figure

AXES = {  # what curves go against: the records' key, the axis's label
    "rounds": ("t", "Communication rounds"),
    "gradients": ("gradients", "Gradients per worker"),
    "bits": ("bits", "Bits sent per worker"),
}
WIDE = 50.0  # values that span this factor are drawn on a log axis
ROOM = 1.1
FLED = 10.0  # times where it began: a line that ends above it has left
SHORT = 20  # letters of names that two columns have room for
MOST = 8  # lines in a chart


class Series(NamedTuple):
    """A series: for every round that all its seeds reached, its place on the axis, mean over seeds, and the
    mean, the least and the largest value."""

    rounds: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: int
    failed: int


@inked
def curve_chart(
    name: str, title: str, figure: Figure, series: Mapping[str, Sequence[Case]], against: str = "rounds"
) -> Chart | None:
    """A chart of these series against rounds or another of `AXES`; None where no run has the figure."""
    found = {label: series_of(figure, cases, AXES[against][0]) for label, cases in series.items()}
    lines = {label: line for label, line in found.items() if line is not None}
    if not lines:
        return None
    bounds = _bounds(figure, series) if against == "rounds" else {}
    labels = [*(_named(label, line) for label, line in lines.items()), *bounds]
    names, handles = distinct(labels, LEGEND), list[Any]()
    columns = 1 if longest(names) > SHORT else 2
    drawing, axes = canvas(4.3, 3.0 + 0.2 * -(-heights(names) // columns))
    top, log = scale(figure, lines)
    for i, line in enumerate(lines.values()):
        style = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}
        handles += axes.plot(line.rounds, line.mean, linewidth=1.8, zorder=20 - i, **style)
        if line.seeds > 1:
            axes.fill_between(line.rounds, line.low, line.high, color=style["color"], alpha=0.18, linewidth=0)
    for rounds, values in bounds.values():
        # A bound of the last round alone is a mark.
        mark = "" if len(rounds) > 1 else "_"
        handles += axes.plot(rounds, values, color="0.35", linewidth=1.2, linestyle=(0, (1, 1)), marker=mark)
    far = [line.rounds[-1] for line in lines.values()]
    if against != "rounds" and max(far) > WIDE * min(far) > 0:
        axes.set_xscale("log", nonpositive="mask")  # no place for what nothing had cost yet
    axes.set_xlabel(AXES[against][1] + (", log scale" if axes.get_xscale() == "log" else ""))
    axes.set_ylabel(letters(figure.label + (", log scale" if log else "")))
    set_limits(axes, figure, lines, top, log)
    _crosses(axes, lines)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    legend(drawing, handles, names, columns, fontsize=9.5)
    gone = {label: max(line.mean) for label, line in lines.items() if max(line.mean) > top * (1 + 1e-9)}
    return Chart(
        name,
        title,
        _caption(lines, gone, len(bounds), series) + _gaps(figure, series),
        drawing,
        _rows(figure, series, AXES[against][0]),
    )


def series_of(figure: Figure, cases: Sequence[Case], against: str = "t") -> Series | None:
    """Cases that differ in the seed as one series; None where not all of them have the figure."""
    found = [
        {
            int(record["t"]): (record.get(against, 0.0), figure.unit(record[figure.key]))
            for record in case.outcome.records
            if figure.key in record
            and has_finite_square(record[figure.key])
            and has_finite_square(record.get(against, 0.0))
        }
        for case in cases
    ]
    common = set.intersection(*map(set, found)) if found else set()
    if not common:
        return None
    places = [fmean(one[t][0] for one in found) for t in sorted(common)]
    values = [[one[t][1] for one in found] for t in sorted(common)]
    failed = sum(case.outcome.status.failed for case in cases)
    ends = [fmean(at) for at in values], [min(at) for at in values], [max(at) for at in values]
    return Series(places, *ends, len(cases), failed)


def _bounds(
    figure: Figure, series: Mapping[str, Sequence[Case]]
) -> dict[str, tuple[list[float], list[float]]]:
    """What theory promises, where the records of all seeds say it: the largest of their bounds."""
    found = {}
    for end, words in ((BOUND, "bound"), (LEAST, "bound of the least so far")):
        key = figure.key + end
        for label, cases in series.items():
            told = [
                {r["t"]: r[key] for r in case.outcome.records if has_finite_square(r.get(key, inf))}
                for case in cases
            ]
            if common := sorted(set.intersection(*map(set, told))):
                values = [figure.unit(max(one[t] for one in told)) for t in common]
                found[f"{words}: {label}"] = [float(t) for t in common], values
    return found


def scale(figure: Figure, lines: Mapping[str, Series]) -> tuple[float, bool]:
    """The largest value to show and whether on a log axis: runs that failed or fled do not set the scale."""
    if figure.scale == 100:
        return 100.0, False
    there = [line for line in lines.values() if not line.failed]
    well = [line for line in there if line.mean[-1] <= FLED * line.mean[0]] or there or list(lines.values())
    shown = [value for line in well for value in line.mean] + [line.mean[0] for line in lines.values()]
    log = min(shown) > 0 and max(shown) > WIDE * min(shown)
    return max(shown) * (10.0 if log else ROOM), log


def set_limits(axes: Any, figure: Figure, lines: Mapping[str, Series], top: float, log: bool) -> None:
    """Set the vertical axis."""
    if figure.scale == 100:
        axes.set_ylim(0, 101)
    elif log:
        axes.set_yscale("log")
        least = min(value for line in lines.values() for value in line.low if value > 0)
        high = max(value for line in lines.values() for value in line.high)
        axes.set_ylim(least / 2, min(top, high * 2))
    else:
        least = min(value for line in lines.values() for value in line.low)
        high = max(value for line in lines.values() for value in line.high)
        axes.set_ylim(min(0.0, least), min(top, high * ROOM))


def _crosses(axes: Any, lines: Mapping[str, Series]) -> None:
    """A mark where each failed series ends; at the edge if that is beyond it."""
    low, high = axes.get_ylim()
    for i, line in enumerate(lines.values()):
        if line.failed:
            height = max(low, min(line.mean[-1], high))
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(line.rounds[-1:], [height], "x", color=colour, markersize=8, zorder=30, clip_on=False)


def _named(label: str, line: Series) -> str:
    return f"{label} ({line.failed} of {line.seeds} failed)" if line.failed else label


def _gaps(figure: Figure, series: Mapping[str, Sequence[Case]]) -> str:
    records = (record for cases in series.values() for case in cases for record in case.outcome.records)
    gone = any(figure.key in record and not has_finite_square(record[figure.key]) for record in records)
    return f" Values that are not finite, or beyond {LARGEST:g}, are not drawn." if gone else ""


def _caption(
    lines: Mapping[str, Series], gone: Mapping[str, float], bounds: int, series: Mapping[str, Sequence[Case]]
) -> str:
    text = "Lines: one run each. "
    if any(line.seeds > 1 for line in lines.values()):
        text = "Lines: the mean over seeds. Bands: from the smallest to the largest value of any seed. "
    text += describe_cases(case for label in lines for case in series[label])
    text += " Dotted: what theory bounds." if bounds else ""
    if any(line.failed for line in lines.values()):
        text += " A cross marks where the first run of a failed series ended."
    for label, value in gone.items():
        text += f" {label} leaves the axis, up to {value:,.3g}."
    return text


def _rows(figure: Figure, series: Mapping[str, Sequence[Case]], against: str) -> list[dict[str, Any]]:
    return [
        {"series": label, "seed": case.seed, "t": int(record["t"])}
        | ({against: record.get(against)} if against != "t" else {})
        | {figure.label: figure.unit(record[figure.key])}
        for label, cases in series.items()
        for case in cases
        for record in case.outcome.records
        if figure.key in record
    ]
