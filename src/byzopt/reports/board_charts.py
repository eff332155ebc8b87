"""The benchmark's charts: figures by attack and defence, worst curves, and accuracy against price."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from byzopt.benchmark.protocol import Cell
from byzopt.benchmark.ranking import Place
from byzopt.benchmark.rows import Row
from byzopt.benchmark.scoring import figures
from byzopt.errors import Status
from byzopt.experiments import Outcome
from byzopt.reports.curves import COLOURS
from byzopt.reports.lettering import inked, letters
from byzopt.reports.study.cases import Case
from byzopt.reports.study.chart import Chart, canvas
from byzopt.reports.study.figures_of import figure_of
from byzopt.reports.study.heat import heat_map
from byzopt.reports.study.lines import MOST, curve_chart

APART = 0.036  # between names beside a chart, as a share of its height


def cell_charts(cell: Cell, placed: Sequence[Place]) -> list[Chart]:
    """The charts of a cell: a map of all attacks, the curves of the worst, and the price of each defence."""
    made = [_map(cell, placed), _curves(cell, placed), _price(cell, placed)]
    return [one for one in made if one is not None]


def _map(cell: Cell, placed: Sequence[Place]) -> Chart | None:
    figure = figure_of(cell.rules.figure)
    outside = [attack for one in placed for attack in one.row.outside]
    cells = {
        (one.row.entry, attack): _cases(one.row, figures(one.row, hits[attack]))
        for one in placed
        for hits in ({**one.row.outside, **one.row.hits},)
        for attack in dict.fromkeys([*cell.attacks, *outside])
        if attack in hits
    }
    chart = heat_map(f"attacks-{cell.name}", f"By attack, {cell.name}", figure, cells, ("defence", "attack"))
    text = (
        f"{figure.label}, mean over the last tenth of the rounds and over {len(placed[0].row.seeds)} seeds. "
    )
    text += "The least bright cell of a line is its score." if cell.rules.rises else "Bright is good."
    return chart._replace(caption=text) if chart else None


def _curves(cell: Cell, placed: Sequence[Place]) -> Chart | None:
    figure = figure_of(cell.rules.figure)
    series = {}
    for one in placed[:MOST]:
        curve = one.row.curves.get(one.score.known_attack, [])
        records = tuple({"t": t, figure.key: value} for t, value in curve)
        series[f"{one.row.entry}: {one.score.known_attack}"] = [_case(0, records)]
    chart = curve_chart(f"curves-{cell.name}", f"Worst attack over rounds, {cell.name}", figure, series)
    text = "Means over seeds, under the attack that is worst for each defence."
    text += f" The first {MOST} of {len(placed)} defences." if len(placed) > MOST else ""
    return chart._replace(caption=text) if chart else None


@inked
def _price(cell: Cell, placed: Sequence[Place]) -> Chart | None:
    """What is left under the worst attack against what is had without: crosses for means, dots for seeds."""
    figure = figure_of(cell.rules.figure)
    drawing, axes = canvas(4.6, 4.4)
    rows: list[dict[str, Any]] = []
    named: list[tuple[float, float, str, str]] = []
    for i, one in enumerate(placed):
        clean, worst = figure.unit(one.score.clean), figure.unit(one.score.value)
        seeds = [figure.unit(value) for value in figures(one.row, one.row.hits[one.score.attack])]
        colour = COLOURS[i % len(COLOURS)]
        axes.plot([clean] * len(seeds), seeds, ".", color=colour, markersize=4, alpha=0.7)
        axes.plot([clean], [worst], "x", color=colour, markersize=7)
        named.append((clean, worst, letters(one.row.entry), colour))
        rows += [
            {"defence": one.row.entry, "without attack": clean, "worst": worst, "each seed": s} for s in seeds
        ]
    axes.set_xlabel(letters(f"{figure.label}, without attack"))
    axes.set_ylabel(letters(f"{figure.label}, worst attack"))
    if figure.scale == 100:
        axes.set_ylim(0, 101)
    else:
        axes.set_yscale("log")
        axes.set_xscale("log")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    drawn = [one for one in named if isfinite(one[0]) and isfinite(one[1])]
    _name_beside(axes, drawn)
    text = "Crosses: means over seeds; dots: each seed under the worst attack of the set."
    left = ", ".join(name for *_, name, _ in named if name not in {one[2] for one in drawn})
    text += f" Without a finite mean, and not drawn: {left}." if left else ""
    return Chart(f"price-{cell.name}", f"Worst attack against none, {cell.name}", text, drawing, rows)


def _name_beside(axes: Any, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Names to the right of the axes, in the order of the points' heights, each with a line to its point."""
    axes.autoscale_view()
    heights = [axes.transAxes.inverted().transform(axes.transData.transform(one[:2]))[1] for one in points]
    order = sorted(range(len(points)), key=heights.__getitem__)
    places: list[float] = []
    for i in order:
        places.append(max(heights[i], places[-1] + APART) if places else heights[i])
    for k in reversed(range(len(places))):  # down again where the last stand above the top
        places[k] = min(places[k], 1 - APART * (len(places) - 1 - k))
    for i, place in zip(order, places, strict=True):
        clean, worst, name, colour = points[i]
        axes.annotate(
            name,
            (clean, worst),
            (1.04, place),
            textcoords="axes fraction",
            va="center",
            fontsize=7,
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6},
        )


def _cases(row: Row, values: Sequence[float]) -> list[Case]:
    """The stored figures of seeds, as runs that ended on them."""
    return [
        _case(seed, ({"t": 0, row.figure: value},)) for seed, value in zip(row.seeds, values, strict=True)
    ]


def _case(seed: int, records: tuple[dict[str, float], ...]) -> Case:
    whole = all(isfinite(value) for record in records for value in record.values())
    return Case({}, seed, Outcome(Status.COMPLETED if whole else Status.DIVERGED, 0, 0.0, records))
