"""Heat maps: a final figure over two axes, every cell with its number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

import numpy as np

from byzopt.reports.lettering import distinct, heights, inked, letters, longest
from byzopt.reports.study.cases import Case
from byzopt.reports.study.chart import Chart, canvas
from byzopt.reports.study.figures_of import Figure

BESIDE = 40  # letters in a line of a row's or a column's name
MAP = "cividis"  # told apart with any colour vision, and in print
Cells = Mapping[tuple[str, str], Sequence[Case]]


@inked
def heat(
    name: str, title: str, figure: Figure, cells: Cells, names: tuple[str, str], worst: bool = False
) -> Chart | None:
    """A chart of the mean final figure in each (row, column); None where nothing ended well.

    `worst`: a cell holds several attacks' runs, and shows the worst attack's mean.
    """
    rows = list(dict.fromkeys(row for row, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    values = {place: _value(figure, cases, worst) for place, cases in cells.items()}
    known = [value for value in values.values() if value is not None]
    if not known:
        return None
    down, across = distinct(rows, BESIDE), distinct(columns, BESIDE)
    width = 1.6 + 0.075 * longest(down) + 0.82 * len(columns)
    height = 1.9 + max(0.42 * max(3, len(rows)), 0.17 * heights(down)) + 0.035 * longest(across)
    drawing, axes = canvas(max(3.4, width), height)
    colours = _Colours(figure, known)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if (row, column) in cells:
                _cell(axes, i, j, figure, values[row, column], cells[row, column], colours)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), across, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), down)
    axes.set_xlabel(letters(names[1]))
    axes.set_ylabel(letters(names[0]))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = drawing.colorbar(colours.mapped, ax=axes, shrink=0.95, pad=0.02)
    bar.set_label(letters(figure.label), fontsize=9)
    told = [
        {names[0]: row, names[1]: column, "mean": values[row, column], "runs": len(cases)}
        | {"failed": sum(case.outcome.status.failed for case in cases)}
        for (row, column), cases in cells.items()
    ]
    text = "Final values, mean over seeds" + (", of the worst attack." if worst else ".")
    text += " Hatched: a run failed." if len(known) < len(values) else ""
    return Chart(name, title, text, drawing, told)


class _Colours:
    """From values to colours: shares on the whole of 0 to 100, others on the range seen, log if wide."""

    def __init__(self, figure: Figure, known: Sequence[float]) -> None:
        import matplotlib as mpl
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LogNorm, Normalize

        low, high = (0.0, 100.0) if figure.scale == 100 else (min(known), max(known))
        self.log = low > 0 and high > 10 * low
        norm = LogNorm(low, high) if self.log else Normalize(low, high if high > low else low + 1)
        # Bright is good, whichever way the figure runs.
        chosen = mpl.colormaps[MAP if figure.rises else f"{MAP}_r"]
        self.mapped = ScalarMappable(norm, chosen)

    def of(self, value: float) -> tuple[Any, str]:
        """The colour of a cell, and of the number in it."""
        red, green, blue, _ = colour = self.mapped.to_rgba(np.array([value]))[0]
        return colour, "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _cell(
    axes: Any, i: int, j: int, figure: Figure, value: float | None, cases: Sequence[Case], colours: _Colours
) -> None:
    from matplotlib.patches import Rectangle

    corner = (j - 0.5, i - 0.5)
    if value is None:
        failed = sum(case.outcome.status.failed for case in cases)
        axes.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor="0.7", hatch="///", linewidth=0))
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(j, i, f"{failed}/{len(cases)}\nfailed", ha="center", va="center", fontsize=7.5, bbox=box)
        return
    fill, ink = colours.of(value)
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=fill, edgecolor="white", linewidth=1))
    axes.text(j, i, _short(figure, value), ha="center", va="center", fontsize=9, color=ink)


def _short(figure: Figure, value: float) -> str:
    if figure.scale == 100:
        return f"{value:.1f}"
    return f"{value:.2g}" if value == 0 or abs(log10(abs(value))) < 3 else f"{value:.0e}"


def _value(figure: Figure, cases: Sequence[Case], worst: bool) -> float | None:
    if not worst:
        return figure.mean(cases)
    attacks: dict[str, list[Case]] = {}
    for case in cases:
        attacks.setdefault(case.labels.get("attack", "-"), []).append(case)
    means = [figure.mean(group) for group in attacks.values()]
    whole = [value for value in means if value is not None]
    if len(whole) < len(means):
        return None
    return min(whole) if figure.rises else max(whole)
