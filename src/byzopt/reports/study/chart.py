"""A chart: a drawing with the numbers behind it, as PNG, SVG and CSV."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from byzopt.escaping import csv_text
from byzopt.files import write_atomically
from byzopt.reports.lettering import inked, visible


class Chart(NamedTuple):
    """A drawing, what it shows in words, and the rows of its CSV file."""

    name: str
    title: str
    caption: str
    figure: Any
    rows: Sequence[Mapping[str, Any]]

    @property
    def svg(self) -> str:
        """The drawing as an element of an HTML page, its ids its own."""
        text = self._bytes("svg").decode()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        mark = re.sub(r"[^\w-]", lambda found: f"_{ord(found[0]):x}_", self.name)
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{mark}-", text)
        label = visible(self.title).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)

    @property
    def csv(self) -> str:
        """The numbers behind the drawing."""
        return as_csv(self.rows)

    def save(self, folder: Path) -> list[Path]:
        """Write the three files."""
        folder.mkdir(parents=True, exist_ok=True)
        made = {"png": self._bytes("png"), "svg": self._bytes("svg"), "csv": self.csv.encode()}
        for kind, content in made.items():
            write_atomically(folder / f"{self.name}.{kind}", content)
        return [folder / f"{self.name}.{kind}" for kind in made]

    @inked
    def _bytes(self, kind: str) -> bytes:
        buffer = io.BytesIO()
        more = {"metadata": {"Date": None}} if kind == "svg" else {"dpi": 150}
        self.figure.savefig(buffer, format=kind, **more)
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


N = TypeVar("N", bound=NamedTuple)
MOST = 120  # letters of a file's name, of the 255 that file systems take


def with_own_names(made: Iterable[N]) -> list[N]:
    """Charts or tables, each with a name that no other has in any letter case and that a file can have."""
    found: dict[str, N] = {}
    for one in made:
        name: str = one.name  # type: ignore[attr-defined]
        if len(name) > MOST:
            name = f"{name[: MOST - 9]}-{sha256(name.encode()).hexdigest()[:8]}"
        first, again = name, 1
        while name.lower() in found:
            again += 1
            name = f"{first}-{again}"
        found[name.lower()] = one._replace(name=name)
    return list(found.values())


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.=]+", "-", text).strip("-") or "all"
