"""A chart: a drawing with the numbers behind it, as PNG, SVG, PDF, CSV and LaTeX."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from byzopt.escaping import csv_text, visible
from byzopt.files import write_atomically
from byzopt.reports.lettering import inked
from byzopt.reports.study import latex
from byzopt.reports.study.latex_tables import latex_table

PHONE = 350  # pixels that a phone of 390 has for a chart or a table


class Bar(NamedTuple):
    """A map's colours from the least value to the largest, with the texts at both ends and between."""

    label: str
    colours: Sequence[str]
    ticks: Sequence[str]


class Grid(NamedTuple):
    """A map's cells for people: what goes down and across, the columns' names, each row behind its own."""

    names: tuple[str, str]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def tall(self) -> list[tuple[str, ...]]:
        """Head and rows, turned where there are more columns than rows."""
        down, across = self.names
        lines = [(f"{down} / {across}", *self.columns), *map(tuple, self.rows)]
        if len(self.columns) <= len(self.rows):
            return lines
        head, *rest = zip(*lines, strict=True)
        return [(f"{across} / {down}", *head[1:]), *rest]


class Chart(NamedTuple):
    """A drawing, what it shows in words, the rows of its CSV file; for a map, its colours and its cells."""

    name: str
    title: str
    caption: str
    figure: Any
    rows: Sequence[Mapping[str, Any]]
    bar: Bar | None = None
    grid: Grid | None = None

    @property
    def latex(self) -> str:
        """A figure with its caption, which includes the PDF file; behind it the cells of a map as a table."""
        about = latex.escaped(f"{self.title}. {self.caption}")
        text = latex.latex_figure(self.name, about)
        if self.grid is None:
            return text
        head, *rows = self.grid.tall
        numeric = [False] + [True] * (len(head) - 1)
        return text + "\n" + latex_table(self.name, f"{self.title}. {self.caption}", head, rows, numeric)

    @property
    def svg(self) -> str:
        """The drawing as an element of an HTML page, its ids its own."""
        text = self._bytes("svg").decode()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        mark = re.sub(r"[^\w-]", lambda found: f"_{ord(found[0]):x}_", self.name)
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{mark}-", text)
        label = visible(self.title, "").replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)

    @property
    def wide(self) -> bool:
        """Whether a phone is too narrow for it."""
        return bool(self.figure.get_size_inches()[0] * 96 > PHONE)

    @property
    def csv(self) -> str:
        """The numbers behind the drawing."""
        return as_csv(self.rows)

    def save(self, folder: Path) -> list[Path]:
        """Write the drawing as PNG, SVG and PDF, its numbers as CSV, its caption in a LaTeX figure."""
        folder.mkdir(parents=True, exist_ok=True)
        made = {kind: self._bytes(kind) for kind in ("png", "svg", "pdf")}
        made |= {"csv": self.csv.encode(), "tex": self.latex.encode()}
        for kind, content in made.items():
            write_atomically(folder / f"{self.name}.{kind}", content)
        return [folder / f"{self.name}.{kind}" for kind in made]

    @inked
    def _bytes(self, kind: str) -> bytes:
        buffer = io.BytesIO()
        title, caption = visible(self.title, ""), visible(self.caption, "")
        # No dates, so that the same runs give the same files.
        about: dict[str, dict[str, Any]] = {
            "png": {"Title": title, "Description": caption},
            "svg": {"Date": None, "Title": title, "Description": caption},
            "pdf": {"CreationDate": None, "Title": title, "Subject": caption},
        }
        self.figure.savefig(buffer, format=kind, metadata=about[kind], dpi=150)
        return buffer.getvalue()


@inked
def canvas(width: float, height: float) -> tuple[Any, Any]:
    """A new drawing in inches, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV text, numbers at full precision."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    return csv_text([names, *([row.get(name) for name in names] for row in rows)])


MOST = 120  # letters of a file's name, of the 255 that file systems take


def own_names(names: Iterable[str]) -> list[str]:
    """Names that files can have, each another than all before in any letter case."""
    found: dict[str, str] = {}
    for whole in names:
        name = whole
        if len(name) > MOST:
            name = f"{name[: MOST - 9]}-{sha256(name.encode()).hexdigest()[:8]}"
        first, again = name, 1
        while name.lower() in found:
            again += 1
            name = f"{first}-{again}"
        found[name.lower()] = name
    return list(found.values())


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.=]+", "-", text).strip("-") or "all"
