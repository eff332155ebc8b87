"""The table of a benchmark's rows, facts beside them, and the replay of their figures."""

from __future__ import annotations

import json
import sys
import tempfile
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from byzopt.cli.options import directory
from byzopt.cli.parameters import DEFAULT_STORE, AsJson, StorePath
from byzopt.errors import InvalidInput, counted

if TYPE_CHECKING:
    from byzopt.benchmark import Row


def table(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE]...", help="Stores, or files of rows. Default: byzopt-store."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=directory, metavar="DIR", help="Write the page, its charts and the rows there."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Rank the defences of a store, or of a file of rows; with --out also as a page of its own.

    Damaged rows are named and left out; then it exits with 1.
    """
    from byzopt.benchmark.ranking import by_cell, current, overall
    from byzopt.benchmark.rows import once
    from byzopt.benchmark.storing import read_rows
    from byzopt.cli import terminal
    from byzopt.experiments.store.directories import check_directory, explain_refused_writes
    from byzopt.reports.benchmark import board_tables, save_board

    damaged: dict[str, str] = {}
    read = [row for source in sources or [str(DEFAULT_STORE)] for row in read_rows(source, damaged)]
    rows = once(read)
    _tell(damaged)
    if len(rows) < len(read):
        say(f"counted once: {counted(len(read) - len(rows), 'row')} that another repeats")
    if out is not None:
        check_directory(out, "--out")
    if as_json:
        ranked = overall(current(rows), by_cell(current(rows)))
        print(json.dumps([one._asdict() for one in ranked], allow_nan=False))
    else:
        terminal.print_sheets(board_tables(rows))
    if out is not None:
        with explain_refused_writes(out, "Choose another --out."):
            made = save_board(rows, out, damaged)
        say(f"{len(made)} files in {out}")
    return 1 if damaged else 0


def facts(
    store: StorePath = DEFAULT_STORE,
    time: Annotated[
        bool, typer.Option("--time", help="Also how long a round takes, beside the mean's.")
    ] = False,
) -> int:
    """Add to a store's rows how much honest data differ in each cell, and with --time what a round takes.

    Times are of this processor, and only as good as it is idle.
    """
    from byzopt.benchmark.facts import different, slower
    from byzopt.benchmark.protocol import Cell
    from byzopt.benchmark.storing import change_row, read_rows

    damaged: dict[str, str] = {}
    for row in read_rows(store, damaged):
        if row.refused or not row.rules:
            continue
        found = [list(one) for one in different(Cell.of(row.cell)) if isfinite(one[1])]
        ratio = slower(row) if time else None
        ratio = ratio if ratio is None or isfinite(ratio) else None

        def add(now: Row, found: list[list[float]] = found, ratio: float | None = ratio) -> None:
            now.different, now.slower = found, now.slower if ratio is None else ratio

        change_row(store, row, add)
        ratio = row.slower if ratio is None else ratio
        taken = "" if ratio is None else f", a round takes {ratio:.2f} times the mean's"
        print(f"{row.cell}: {row.entry}: h = {', '.join(f'{h:.3g}' for _, h in found)}{taken}", flush=True)
    _tell(damaged)
    return 1 if damaged else 0


def replay(
    source: Annotated[str, typer.Argument(help="A store, or a file of rows.")],
    entry: Annotated[str, typer.Argument(help="The entry of the row.")],
    cell: Annotated[str, typer.Option(help="The cell of the row.")],
    attacks: Annotated[
        list[str] | None, typer.Option("--attack", help="Only this attack. Repeatable. Default: all.")
    ] = None,
) -> int:
    """Run a row's attacks again, from what is stored of it alone, and compare every figure to the last digit.

    Exits with 1 where one differs. Figures are the same only with the packages that the row names, on the
    same kind of processor.
    """
    from byzopt.benchmark.evaluating import replay as play_again
    from byzopt.benchmark.storing import read_rows
    from byzopt.experiments.sweeps.runs import deciding_versions

    damaged: dict[str, str] = {}
    row = next((one for one in read_rows(source, damaged) if (one.cell, one.entry) == (cell, entry)), None)
    if row is None:
        _tell(damaged)
        raise InvalidInput(f"{source} should hold a row of {entry} in {cell}. Found none.")
    if row.versions != deciding_versions():
        say(f"the row was made with {row.versions}; here are {deciding_versions()}")
    same = True
    for name in attacks or [*row.hits, *row.outside]:
        with tempfile.TemporaryDirectory() as folder:
            again = play_again(row, name, folder)
        stored = {**row.hits, **row.outside}[name].values
        equal = again == stored
        same &= equal
        print(f"{name}: {'the same' if equal else 'DIFFERS'}: stored {stored}, again {again}", flush=True)
    return 0 if same else 1


def _tell(damaged: dict[str, str]) -> None:
    for name, reason in damaged.items():
        say(f"damaged and left out: {name}: {reason}")


def say(line: str) -> None:
    """Tell a line on stderr."""
    print(f"byzopt: {line}", file=sys.stderr, flush=True)
