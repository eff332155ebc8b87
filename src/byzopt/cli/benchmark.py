"""`byzopt benchmark`: entries measured, their table drawn, and any of its figures replayed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from byzopt.cli.again import same_command
from byzopt.cli.benchmark_rows import facts, replay, say, table
from byzopt.cli.parameters import DEFAULT_STORE, StorePath
from byzopt.cli.stress import NO_EVIDENCE, duration
from byzopt.errors import ByzoptError, counted, require

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
        wide = max(map(len, shipped_entries())) + 2
        print("\n".join([f"{name:{wide}}{about}" for name, about in shipped_entries().items()]))
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
        say(f"{failed} of {len(loaded) * len(chosen)} entries in cells failed, see above")
    if not whole:
        say(f"not all was measured; go on with: {same_command()}")
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
    from byzopt.own_files import describe_error, place_of

    whole, failed = True, 0
    for cell in cells:
        for entry in entries:
            try:
                whole &= (_strike if entry.kind == "attack" else _defend)(cell, entry, store, over)
            except Unwritable:  # no fault of the entry's, and met by all
                raise
            except Exception as error:  # of the entry's own code, too; the others are measured all the same
                failed += 1
                where = "" if isinstance(error, ByzoptError) else f"{place_of(error)}: ".lstrip(": ")
                say(f"{cell.name}: {entry.name} failed: {where}{describe_error(error)}")
            if over() and not whole:  # else what is stored may be all that there is to measure
                return False, failed
    return whole, failed


def _strike(cell: Cell, entry: Entry, store: Path, over: Callable[[], bool]) -> bool:
    from byzopt.benchmark.attacking import strike

    struck, left = strike(cell, entry, store, play=_play, over=over)
    say(f"{cell.name}: {entry.name} against {counted(struck, 'defence')}")
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
    say(f"{cell.name}: {entry.name}: {about} ({monotonic() - began:.0f} s)")
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


app.command(name="table")(table)
app.command(name="facts")(facts)
app.command(name="replay")(replay)
