"""The benchmark as one HTML page, with its charts, tables and rows as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from byzopt.benchmark.protocol import ATTACK_SET, PROTOCOL, SEEDS, Cell
from byzopt.benchmark.ranking import by_cell, current
from byzopt.benchmark.rows import Row, once
from byzopt.benchmark.storing import ROWS, write_rows
from byzopt.files import write_atomically
from byzopt.reports.board import board_tables
from byzopt.reports.board_charts import cell_charts
from byzopt.reports.study.page import environment

__all__ = ["board_tables", "save_board"]
BEHIND = ("coverage", "settings", "outdated")  # tables at the end of the page


def save_board(rows: Sequence[Row], out: Path, damaged: Mapping[str, str] | None = None) -> list[Path]:
    """Write the page, and the rows from which it is drawn, to a directory; returns the paths.

    `damaged` says what is wrong with rows that were left out.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "index.html", render_board(rows, damaged).encode())
    write_rows(once(rows), out / ROWS)
    return [out / "index.html", out / ROWS]


def render_board(rows: Sequence[Row], damaged: Mapping[str, str] | None = None) -> str:
    """The page's text."""
    from byzopt import __version__

    tables = board_tables(rows)
    kept = current(rows)
    charts = [chart for name, placed in by_cell(kept).items() for chart in cell_charts(Cell.of(name), placed)]
    maps = [chart for chart in charts if chart.name.startswith("attacks-")]
    notes = [(row.entry, row.source, row.remarks) for row in {row.entry: row for row in kept}.values()]
    refused = [(row.cell, row.entry, row.refused) for row in kept if row.refused]
    text: str = (
        environment()
        .get_template("board.html.j2")
        .render(
            tables=[one for one in tables if one.name not in BEHIND],
            behind=[one for name in BEHIND for one in tables if one.name == name],
            maps=maps,
            charts_of_cells=[chart for chart in charts if not chart.name.startswith("attacks-")],
            notes=notes,
            refused=refused,
            damaged=damaged or {},
            seeds=SEEDS,
            protocol=PROTOCOL,
            attack_set=ATTACK_SET,
            runs=sum(len(hit.runs) for row in kept for hit in [*row.hits.values(), *row.outside.values()])
            + sum(len(one.runs) for row in kept for one in row.tries),
            packages=sorted({f"{name} {version}" for row in kept for name, version in row.versions.items()}),
            version=__version__,
        )
    )
    return text
