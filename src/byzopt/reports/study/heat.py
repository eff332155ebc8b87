"""Heat maps: a final figure over two axes, every cell with its number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any, TypeAlias

import numpy as np

from byzopt.reports.lettering import distinct, heights, inked, letters, longest
from byzopt.reports.study.captions import describe_cases
from byzopt.reports.study.cases import Case, group_cases
from byzopt.reports.study.chart import Bar, Chart, Grid, canvas
from byzopt.reports.study.figures_of import Figure
from byzopt.reports.study.figures_of import worst_place as worst_of
from byzopt.reports.study.finals import SPREAD

BESIDE, MOST = 30, 90  # letters in a line of a row's or a column's name, and in all of it
MAP = "cividis"  # told apart with any colour vision, and in print
Row: TypeAlias = dict[str, Any]
Cells = Mapping[tuple[str, str], Sequence[Case]]


@inked
def heat_map(
    name: str, title: str, figure: Figure, cells: Cells, names: tuple[str, str], worst: bool = False
) -> Chart | None:
    """A chart of the mean final figure in each (row, column); None where nothing ended well.

    `worst`: a cell holds several attacks' runs, and shows the worst attack's mean.
    """
    rows = list(dict.fromkeys(row for row, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    judged = {place: _worst(figure, cases) if worst else cases for place, cases in cells.items()}
    values = {place: figure.mean(cases) for place, cases in judged.items()}
    known = [value for value in values.values() if value is not None]
    if not known:
        return None
    down, across = distinct(rows, BESIDE, MOST), distinct(columns, BESIDE, MOST)
    width = 1.6 + 0.085 * longest(down) + 0.82 * len(columns)
    # Names of columns stand at an angle, so that their lines take height too.
    lines = max(name.count("\n") for name in across)
    height = (
        1.9 + max(0.42 * max(3, len(rows)), 0.17 * heights(down)) + 0.045 * longest(across) + 0.16 * lines
    )
    drawing, axes = canvas(max(3.4, width), height)
    colours = _Colours(figure, known)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if (row, column) in cells:
                _cell(axes, i, j, figure, values[row, column], judged[row, column], colours)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), across, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), down)
    axes.set_xlabel(letters(names[1]))
    axes.set_ylabel(letters(names[0]))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = drawing.colorbar(colours.mapped, ax=axes, shrink=0.95, pad=0.02)
    # As vectors too, without seams between its colours.
    bar.solids.set(rasterized=False, edgecolor="face")
    bar.set_label(letters(figure.label), fontsize=9)
    table = [_told(figure, names, place, cases) for place, cases in judged.items()]
    text = f"Final {figure.label[:1].lower()}{figure.label[1:]}, mean over seeds"
    text += ", under the attack that is worst in the cell. " if worst else ". "
    text += describe_cases(case for cases in cells.values() for case in cases)
    text += " Hatched: a run failed, so that there is no mean." if len(known) < len(values) else ""
    if any(len(cases) > 1 for cases in judged.values()):
        text += f" In tables, mean ± sd; {SPREAD}"
    texts = {place: figure.pair(cases) for place, cases in judged.items()}
    grid = Grid(names, columns, [[row, *(texts.get((row, one), "-") for one in columns)] for row in rows])
    return Chart(name, title, text, drawing, table, colours.bar(figure), grid)


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

    def bar(self, figure: Figure) -> Bar:
        """The colours from end to end."""
        from matplotlib.colors import to_hex

        places = [i / 16 for i in range(17)]
        colours = [to_hex(self.mapped.cmap(place)) for place in places]
        norm: Any = self.mapped.norm  # both kinds go back
        return Bar(figure.label, colours, [_short(figure, float(norm.inverse(at))) for at in (0, 0.5, 1)])

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


def _worst(figure: Figure, cases: Sequence[Case]) -> list[Case]:
    """The runs under the attack that is worst for them."""
    groups = list(group_cases(cases, ["attack"]).values())
    return groups[worst_of(figure, [figure.mean(group) for group in groups])]


def _told(figure: Figure, names: tuple[str, str], place: tuple[str, str], cases: Sequence[Case]) -> Row:
    values: list[float | None] = [figure.mean(cases), figure.spread(cases), len(figure.finals(cases))]
    failed = sum(case.outcome.status.failed for case in cases)
    row: Row = dict(zip(names, place, strict=True)) | dict(zip(figure.columns, values, strict=True))
    return row | {"runs that failed": failed, "runs": len(cases)}
