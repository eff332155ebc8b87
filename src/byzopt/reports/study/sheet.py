"""A table of numbers and names: as text for people, as CSV, as LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from byzopt.files import write_atomically
from byzopt.reports.study.chart import PHONE, as_csv
from byzopt.reports.study.latex_tables import latex_table

Cell: TypeAlias = str | int | float | None
# Columns that paper joins, and how.
JOINED = {("mean", "sd"): "{} ± {}", ("median", "least", "largest"): "{} ({} to {})"}
NONE: Mapping[str, str] = {}


class ReportTable(NamedTuple):
    """A table: its name, title, what it says in words, head, rows; None is what there is no number for.

    `digits`: how a column's numbers are written for people, as `.1f`. CSV has them at full precision.
    """

    name: str
    title: str
    caption: str
    head: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    digits: Mapping[str, str] = NONE

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The rows for people."""
        return [
            tuple(
                cell_text(cell, self.digits.get(name, "")) for name, cell in zip(self.head, row, strict=True)
            )
            for row in self.rows
        ]

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column, whether it holds numbers."""
        return tuple(
            any(isinstance(row[i], (int, float)) for row in self.rows) for i in range(len(self.head))
        )

    @property
    def wide(self) -> bool:
        """Whether a phone is likely to be too narrow for it, at seven pixels a letter."""
        head, rows, _ = self.joined
        longest = [max(len(row[i]) for row in rows or [head]) for i in range(len(head))]
        return sum(7 * letters + 24 for letters in longest) > PHONE

    @property
    def csv(self) -> str:
        """The table as CSV text."""
        return as_csv([dict(zip(self.head, row, strict=True)) for row in self.rows])

    @property
    def latex(self) -> str:
        """The table as LaTeX with booktabs, its caption included."""
        head, texts, numeric = self.joined
        return latex_table(self.name, f"{self.title}. {self.caption}", head, texts, numeric)

    @property
    def joined(self) -> tuple[list[str], list[list[str]], list[bool]]:
        """Head, rows and `numeric` for people: mean and sd in one column, a median with its extremes."""
        head, columns, numeric = list[str](), list[list[str]](), list[bool]()
        texts = [list(column) for column in zip(*self.texts, strict=True)] or [[] for _ in self.head]
        at = 0
        while at < len(self.head):
            name, kind = self.head[at].rpartition(", ")[::2]
            for ends, write in JOINED.items():
                if self.head[at : at + len(ends)] == tuple(f"{name}, {end}" for end in ends):
                    head.append(f"{name}, {write.format(*ends)}")
                    parts = zip(*texts[at : at + len(ends)], strict=True)
                    columns.append([_together(write, part) for part in parts])
                    break
            else:
                ends = (kind,)
                head.append(self.head[at])
                columns.append(texts[at])
            numeric.append(self.numeric[at])
            at += len(ends)
        return head, [list(row) for row in zip(*columns, strict=True)], numeric

    def save(self, folder: Path) -> list[Path]:
        """Write the table as CSV and as LaTeX."""
        folder.mkdir(parents=True, exist_ok=True)
        made = {f"{self.name}.csv": self.csv, f"{self.name}.tex": self.latex}
        for name, text in made.items():
            write_atomically(folder / name, text.encode())
        return [folder / name for name in made]


def _together(write: str, part: tuple[str, ...]) -> str:
    """One text for a mean and its spread, or a median and its extremes: without them where there are none."""
    alone = "-" in part or (len(part) == 3 and part[1] == part[2])
    return part[0] if alone else write.format(*part)


def cell_text(value: Cell, digits: str = "") -> str:
    """A cell for people: whole numbers in full, others with four digits or as `digits` says."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if digits:
        return format(value, digits)
    if abs(value) < 1e12 and value == int(value):
        return f"{value:,.0f}"
    return f"{value:.4g}"
