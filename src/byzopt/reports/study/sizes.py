"""Final figures against a size: for slopes and crossings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from byzopt.reports.curves import COLOURS, STYLES
from byzopt.reports.lettering import WIDE as LEGEND
from byzopt.reports.lettering import distinct, heights, inked, legend, letters, longest
from byzopt.reports.study.chart import Chart, canvas

Values = Mapping[float, Sequence[float]]  # size -> the values of all seeds
MARKS = "osD^vPX"
FEW = 5
LONG = 20  # letters of a label that takes a line of its own
WIDE = 4.0  # values that span this factor are drawn on a log axis


@inked
def size_chart(
    name: str,
    title: str,
    names: tuple[str, str],
    series: Mapping[str, Values],
    level: float | None = None,
    least: float | None = None,
    said: str = "",
) -> Chart | None:
    """A chart of the means over seeds by size, with lines at `level` and a bar of one standard error each.

    `names` of the two axes. `least` is where a linear vertical axis begins, for shares; without it that axis
    is logarithmic where values are wide apart. `said` ends the caption. None where there is nothing to show.
    """
    series = {label: values for label, values in series.items() if any(values.values())}
    if not series:
        return None
    told, handles = distinct(list(series), LEGEND), list[Any]()
    columns = 1 if longest(told) > LONG else 2
    drawing, axes = canvas(4.3, 3.0 + 0.2 * -(-heights(told) // columns))
    for i, values in enumerate(series.values()):
        places = sorted(size for size, found in values.items() if found)
        middle = [fmean(values[size]) for size in places]
        errors = [_error(values[size]) for size in places]
        style = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}
        mark = MARKS[i % len(MARKS)]
        bars = axes.errorbar(places, middle, errors, marker=mark, markersize=4, capsize=2, **style)
        handles.append(bars)
    if level is not None:
        axes.axhline(level, color="0.35", linewidth=1.0, linestyle=(0, (1, 1)))
    axes.set_xscale("log")
    _ticks(axes.xaxis, sorted({size for values in series.values() for size in values}))
    means = [fmean(found) for values in series.values() for found in values.values() if found]
    log = least is None and min(means) > 0 and max(means) > WIDE * min(means)
    if log:
        axes.set_yscale("log")
        _ticks(axes.yaxis)
    elif least is not None:
        axes.set_ylim(least, 1.02)
    axes.set_xlabel(letters(f"{names[0]}, log scale"))
    axes.set_ylabel(letters(names[1] + (", log scale" if log else "")))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if any(series):
        legend(drawing, handles, told, columns, fontsize=9.5)
    seeds = max(len(found) for values in series.values() for found in values.values())
    text = "Points: one run each." if seeds == 1 else f"Points: the mean over up to {seeds} seeds. Bars: one "
    text += "standard error to each side." if seeds > 1 else ""
    text += f" {said}" if said else ""
    text += " Dotted: the level that is looked for." if level is not None else ""
    rows = [
        {"series": label, names[0]: size, f"{names[1]}, mean": fmean(found)}
        | {f"{names[1]}, sd": stdev(found) if len(found) > 1 else None, f"{names[1]}, count": len(found)}
        for label, values in series.items()
        for size, found in sorted(values.items())
        if found
    ]
    return Chart(name, title, text, drawing, rows)


def _ticks(axis: Any, places: Sequence[float] = ()) -> None:
    """Plain numbers on a log axis: at `places` where they are few, else at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    few = 0 < len(places) <= FEW
    axis.set_major_locator(FixedLocator(list(places)) if few else LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _error(values: Sequence[float]) -> float:
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
