"""The benchmark's charts: figures by attack and defence, worst curves, and accuracy against price."""

from __future__ import annotations

from collections.abc import Sequence
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


def cell_charts(cell: Cell, placed: Sequence[Place]) -> list[Chart]:
    """The charts of a cell: a map of all attacks, the curves of the worst, and the price of each defence."""
    made = [_map(cell, placed), _curves(cell, placed), _price(cell, placed)]
    return [one for one in made if one is not None]


def _map(cell: Cell, placed: Sequence[Place]) -> Chart | None:
    figure = figure_of(cell.rules.figure)
    cells = {
        (one.row.entry, attack): _cases(one.row, figures(one.row, struck))
        for one in placed
        for attack, struck in {**one.row.hits, **one.row.outside}.items()
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
    drawing, axes = canvas(4.3, 4.2)
    rows: list[dict[str, Any]] = []
    for i, one in enumerate(placed):
        clean, worst = figure.unit(one.score.clean), figure.unit(one.score.value)
        seeds = [figure.unit(value) for value in figures(one.row, one.row.hits[one.score.attack])]
        colour = COLOURS[i % len(COLOURS)]
        axes.plot([clean] * len(seeds), seeds, ".", color=colour, markersize=4, alpha=0.7)
        axes.plot([clean], [worst], "x", color=colour, markersize=7)
        axes.annotate(
            letters(one.row.entry),
            (clean, worst),
            (4, 3),
            textcoords="offset points",
            fontsize=7,
            color=colour,
        )
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
    text = "Crosses: means over seeds; dots: each seed under the worst attack of the set."
    return Chart(f"price-{cell.name}", f"Worst attack against none, {cell.name}", text, drawing, rows)


def _cases(row: Row, values: Sequence[float]) -> list[Case]:
    """The stored figures of seeds, as runs that ended on them."""
    return [
        _case(seed, ({"t": 0, row.figure: value},)) for seed, value in zip(row.seeds, values, strict=True)
    ]


def _case(seed: int, records: tuple[dict[str, float], ...]) -> Case:
    return Case({}, seed, Outcome(Status.COMPLETED, 0, 0.0, records))
