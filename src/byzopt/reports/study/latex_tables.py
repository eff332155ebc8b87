r"""Tables as LaTeX that can be read on paper: never made smaller than \footnotesize.

What is wider than the text is split: its columns go into several tables that repeat the columns which say
whose numbers these are. What is long is set in lines. Needs the packages booktabs and graphicx.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from byzopt.reports.study.latex import escaped, latex_number, needs

WIDTH = 84  # letters of \footnotesize that fit the text of an article
LINES = 40  # of a table that fit a page
GAP = 3  # letters between two columns
KEYS = 40  # letters of all columns that are repeated
TEXT = 30  # letters of a line in another column of texts
HEAD = 14  # letters of a line in a head


@dataclass(frozen=True)
class Column:
    """A column: its head in lines, its cells as texts, and how many letters its lines may have."""

    head: tuple[str, ...]
    texts: tuple[str, ...]
    numeric: bool
    width: int

    def cell(self, i: int) -> str:
        """The cell of row i as LaTeX."""
        text = self.texts[i]
        if self.numeric:
            return latex_number(text)
        return escaped(text) if len(text) <= self.width else self._in_lines(text)

    def lines(self, i: int) -> int:
        """How many lines the cell of row i takes."""
        return 1 if self.numeric else max(1, len(wrap(self.texts[i], self.width)))

    @property
    def latex_head(self) -> str:
        """The head as LaTeX."""
        lines = [escaped(line) for line in self.head]
        return "".join([r"\shortstack{", r"\\".join(lines), "}"]) if len(lines) > 1 else "".join(lines)

    def _in_lines(self, text: str) -> str:
        lines = r"\\".join(escaped(line) for line in wrap(text, self.width))
        return rf"\shortstack[l]{{{lines}}}"


def latex_table(
    name: str, caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> str:
    """A table of these texts, of which those in `numeric` columns are numbers.

    Args:
        name: What its label ends with.
        caption: What it says, as a text.
        head: Names of the columns; what comes behind a comma stands in a line of its own.
        rows: The texts, row by row.
        numeric: For each column, whether it holds numbers.
    """
    columns = _columns(head, rows, numeric)
    parts = [(some, pages) for some in _parts(columns) for pages in _pages(some, len(rows))]
    first = rf"\caption{{{escaped(caption)}}}\label{{tab:{name}}}"
    out = [needs(["booktabs", "graphicx"])]
    for k, (some, page) in enumerate(parts):
        about = first if k == 0 else r"\centerline{(continued)}\smallskip"
        kinds = "".join("r" if column.numeric else "l" for column in some)
        out += [r"\begin{table}", r"\centering", about, r"\footnotesize"]
        out += [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", _row([one.latex_head for one in some])]
        out += [r"\midrule", *(_row([one.cell(i) for one in some]) for i in page)]
        out += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(out) + "\n"


def _columns(
    head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> tuple[list[Column], list[Column]]:
    """The columns that every part repeats, those before the first numbers, and the others."""
    texts = list(zip(*rows, strict=True)) or [()] * len(head)
    count = max(1, list(numeric).index(True)) if True in numeric else 1
    longest = [max(map(len, (*cells, "x"))) for cells in texts]
    room = KEYS - GAP * count
    shares = [min(size, TEXT) for size in longest[:count]]
    over = max(1.0, sum(shares) / max(1, room))
    columns = []
    for i, (name, cells) in enumerate(zip(head, texts, strict=True)):
        most = max(5, int(shares[i] / over)) if i < count else longest[i] if numeric[i] else TEXT
        width = min(longest[i], most)
        lines = [line for part in name.split(", ") for line in wrap(part, max(HEAD, width)) or [""]]
        columns.append(Column(tuple(lines), tuple(cells), numeric[i], width))
    return columns[:count], columns[count:]


def _parts(columns: tuple[list[Column], list[Column]]) -> list[list[Column]]:
    """Groups of columns that fit the width of the text, each behind those that are repeated."""
    keys, others = columns
    parts, room = [list(keys)], WIDTH - sum(map(_room, keys))
    left = room
    for column in others:
        if _room(column) > left and len(parts[-1]) > len(keys):
            parts.append(list(keys))
            left = room
        parts[-1].append(column)
        left -= _room(column)
    return parts


def _pages(columns: Sequence[Column], rows: int) -> list[list[int]]:
    """The rows of each table, as many as fit a page."""
    pages, left = [list[int]()], LINES
    for i in range(rows):
        lines = max(column.lines(i) for column in columns)
        if lines > left and pages[-1]:
            pages.append([])
            left = LINES
        pages[-1].append(i)
        left -= lines
    return pages


def _room(column: Column) -> int:
    return max(column.width, *map(len, column.head)) + GAP


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
