"""`byzopt benchmark`: entries measured, their table drawn, and any of its figures replayed."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from byzopt.cli.options import directory
from byzopt.cli.parameters import DEFAULT_STORE, AsJson, StorePath
from byzopt.cli.stress import NO_EVIDENCE, duration
from byzopt.errors import ByzoptError, InvalidInput, counted, require

if TYPE_CHECKING:
    from byzopt.benchmark import Cell, Entry, Row

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
Cells = Annotated[
    list[str] | None, typer.Option("--cell", help="A cell, as digits-dirichlet0.1-n20-f3. Repeatable.")
]


@app.callback()
def main() -> None:
    """Defences tuned, attacked and ranked by one protocol: measure yours, draw the table, replay figures."""


@app.command(name="run")
def run(
    entries: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ENTRY]...", help="Folders with entry.toml, or shipped names. Default: all."),
    ] = None,
    cell: Cells = None,
    quick: Annotated[bool, typer.Option("--quick", help="One cell: minutes.")] = False,
    full: Annotated[bool, typer.Option("--full", help="All cells: days. Default: the core, hours.")] = False,
    budget: Annotated[
        str | None, typer.Option(help="Begin no round after 90s, 10m, 1h. Default: no limit.")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Name entries and cells; run nothing.")] = False,
    store: StorePath = DEFAULT_STORE,
) -> int:
    """Measure entries: defences in every cell, attacks against every defence that the store has measured.

    All runs are stored: the same command goes on where it was stopped. Exits with 1 where an entry failed in
    a cell (the others are measured), with 4 where the budget ended before all was measured.
    """
    from byzopt.benchmark.entries import load_entry, shipped_entries
    from byzopt.benchmark.protocol import chosen_cells
    from byzopt.cli import FAILED
    from byzopt.cli.stopping import INTERRUPTED, stop_on_signals
    from byzopt.experiments.store.directories import check_directory

    if quick and full:
        raise typer.BadParameter("--quick and --full cannot both be given.")
    seconds = duration(budget)
    chosen = chosen_cells(cell or (), "quick" if quick else "full" if full else "core")
    if list_all:
        print("\n".join([f"{name:20}{about}" for name, about in shipped_entries().items()]))
        print("\n".join(one.name for one in chosen))
        return 0
    loaded = [load_entry(one) for one in entries or shipped_entries()]
    _check_names(loaded)
    for entry in loaded:
        entry.check()
    check_directory(store, "--store")
    end = None if seconds is None else monotonic() + seconds
    with stop_on_signals() as stopped:

        def over() -> bool:
            return stopped() or (end is not None and monotonic() >= end)

        whole, failed = _measure(loaded, chosen, store, over)
        halted = stopped()
    if failed:
        _say(f"{failed} of {len(loaded) * len(chosen)} entries in cells failed, see above")
    if not whole:
        _say(f"not all was measured; go on with: {shlex.join(['byzopt', *sys.argv[1:]])}")
        return INTERRUPTED if halted else FAILED if failed else NO_EVIDENCE
    return FAILED if failed else 0


def _check_names(entries: list[Entry]) -> None:
    """Refuse two entries of one name: the second would take the first one's place."""
    first: dict[str, Entry] = {}
    for entry in entries:
        same = first.setdefault(entry.name, entry) == entry
        require(same, "Entries of one run", "have names of their own", f"two called {entry.name}")


def _measure(
    entries: list[Entry], cells: tuple[Cell, ...], store: Path, over: Callable[[], bool]
) -> tuple[bool, int]:
    """Measure cell by cell; whether nothing is left, and how many entries failed in a cell."""
    from byzopt.experiments.store.run_store import Unwritable

    whole, failed = True, 0
    for cell in cells:
        for entry in entries:
            try:
                whole &= (_strike if entry.kind == "attack" else _defend)(cell, entry, store, over)
            except Unwritable:  # no fault of the entry's, and met by all
                raise
            except Exception as error:  # of the entry's own code, too; the others are measured all the same
                failed += 1
                kind = "" if isinstance(error, ByzoptError) else f"{type(error).__name__}: "
                _say(f"{cell.name}: {entry.name} failed: {kind}{error}")
            if over() and not whole:  # else what is stored may be all that there is to measure
                return False, failed
    return whole, failed


def _strike(cell: Cell, entry: Entry, store: Path, over: Callable[[], bool]) -> bool:
    from byzopt.benchmark.attacking import strike

    struck, left = strike(cell, entry, store, play=_play, over=over)
    _say(f"{cell.name}: {entry.name} against {counted(struck, 'defence')}")
    return not left


def _defend(cell: Cell, entry: Entry, store: Path, over: Callable[[], bool]) -> bool:
    from byzopt.benchmark.evaluating import evaluate
    from byzopt.benchmark.storing import read_row, store_row

    began = monotonic()
    read_row(store, cell.name, entry.name)  # a damaged one is told before anything is run
    row = evaluate(cell, entry, store, play=_play, over=over)
    kept = None if row is None else store_row(store, row)
    about = _about(kept or row)
    if row is not None and kept is None:
        about += "; the stored row, of another setting or other packages, has more and stays"
    _say(f"{cell.name}: {entry.name}: {about} ({monotonic() - began:.0f} s)")
    return row is not None and (bool(row.refused) or len((kept or row).hits) == len(cell.attacks))


def _play(plan: Any, over: Callable[[], bool]) -> None:
    """Play a plan in this process, with progress on stderr where that is a terminal."""
    from byzopt.cli.sweep_progress import SweepDisplay
    from byzopt.experiments.sweeps import run_sweep

    if not sys.stderr.isatty():
        run_sweep(plan, jobs=0, threads=1, stopped=over)
        return
    with SweepDisplay(plan) as display:
        run_sweep(plan, jobs=0, threads=1, stopped=over, tell=display.hear)


def _about(row: Row | None) -> str:
    from byzopt.benchmark.scoring import score

    if row is None:
        return "tuning is not done"
    if row.refused:
        return row.refused
    found = score(row)
    if found is None:
        return f"{counted(len(row.hits), 'attack')} measured so far"
    worst, clean = (
        f"{100 * value:.1f} %" if row.rises else f"{value:.4g}" for value in (found.value, found.clean)
    )
    return f"worst {row.figure} {worst}, by {found.attack}; without attack {clean}"


@app.command(name="table")
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
    from byzopt.experiments.store.directories import check_directory, explain_refused_writes
    from byzopt.reports.benchmark import board_tables, save_board

    damaged: dict[str, str] = {}
    read = [row for source in sources or [str(DEFAULT_STORE)] for row in read_rows(source, damaged)]
    rows = once(read)
    _tell(damaged)
    if len(rows) < len(read):
        _say(f"counted once: {counted(len(read) - len(rows), 'row')} that another repeats")
    if out is not None:
        check_directory(out, "--out")
    if as_json:
        ranked = overall(current(rows), by_cell(current(rows)))
        print(json.dumps([one._asdict() for one in ranked], allow_nan=False))
    else:
        _print(board_tables(rows))
    if out is not None:
        with explain_refused_writes(out, "Choose another --out."):
            made = save_board(rows, out, damaged)
        _say(f"{len(made)} files in {out}")
    return 1 if damaged else 0


@app.command(name="facts")
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


@app.command(name="replay")
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
        _say(f"the row was made with {row.versions}; here are {deciding_versions()}")
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
        _say(f"damaged and left out: {name}: {reason}")


def _print(tables: Any) -> None:
    from rich.table import Table

    from byzopt.cli import terminal

    console = terminal.console(width=160)
    for sheet in tables:
        shown = Table(title=sheet.title, title_justify="left", title_style="bold", box=None)
        head, rows, numeric = sheet.joined
        for name, number in zip(head, numeric, strict=True):
            shown.add_column(name, overflow="fold", justify="right" if number else "left")
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
        console.print(sheet.caption, style="dim")
        console.print()


def _say(line: str) -> None:
    print(f"byzopt: {line}", file=sys.stderr, flush=True)
