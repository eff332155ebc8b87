"""An attack that somebody enters: it is tried on every defence that a store has measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from byzopt.benchmark.entries import Entry
from byzopt.benchmark.evaluating import Play, hit, note, play_here
from byzopt.benchmark.protocol import Cell
from byzopt.benchmark.rows import read_row, write_row
from byzopt.errors import require


def strike(
    cell: Cell,
    entry: Entry,
    store: str | Path,
    *,
    play: Play = play_here,
    over: Callable[[], bool] = lambda: False,
) -> tuple[int, int]:
    """Try an attack on the defences of a cell, each with the setting that it had chosen before.

    Args:
        cell: Where.
        entry: An attack.
        store: Where the defences' rows are, and their runs go.
        play: Plays the runs of a plan; default: in this process.
        over: Whether to stop; checkpoints are kept.

    Returns:
        Against how many defences it was measured, and how many are left.

    Raises:
        InvalidInput: A defence in place of an attack, or a run that an error ended.
    """
    require(entry.kind == "attack", f"Entry {entry.name}", "be an attack", entry.kind)
    attack, store = entry.attack_data, Path(store)
    names = sorted(path.stem for path in (store / "benchmark" / cell.name).glob("*.json"))
    done = left = 0
    for name in names:
        row = read_row(store, cell.name, name)
        if row is None or row.refused:
            continue
        struck = None if over() else hit(cell, row.spec, row.rules, attack, store, play, over)
        if struck is None:
            left += 1
            continue
        row.outside[entry.name], outcomes = struck
        note(row, entry.name, outcomes)
        write_row(store, row)
        done += 1
    return done, left
