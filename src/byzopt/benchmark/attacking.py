"""An attack that somebody enters: it is tried on every defence that a store has measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from byzopt.benchmark.entries import Entry, check_name
from byzopt.benchmark.evaluating import Play, hit, note, play_here
from byzopt.benchmark.protocol import Cell
from byzopt.benchmark.repeating import check_repeats
from byzopt.benchmark.rows import Hit, Row
from byzopt.benchmark.storing import change_row, read_row
from byzopt.errors import InvalidInput, require
from byzopt.experiments import Outcome


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
        InvalidInput: A defence in place of an attack, or a name that is taken. In the end, after all others:
            damaged rows, and runs that an error ended.
    """
    require(entry.kind == "attack", f"Entry {entry.name}", "be an attack", entry.kind)
    check_name(entry)
    attack, store = entry.attack_data, Path(store)
    names = sorted(path.stem for path in (store / "benchmark" / cell.name).glob("*.json"))
    done = left = 0
    failed: dict[str, str] = {}
    for name in names:
        try:
            row = read_row(store, cell.name, name)
            if row is None or row.refused:
                continue
            if not (done or over()):
                check_repeats(entry, {**row.spec, "rule": row.rules[0], "attack": attack})
            struck = hit(cell, row.spec, row.rules, attack, store, play, over)
            # Others may have written the row while the runs went on: what was read then is not written back.
            if struck is not None and change_row(store, row, _add(entry.name, *struck)):
                done += 1
            else:
                left += 1
        except InvalidInput as error:
            failed[name] = str(error)
    if failed:
        why = f"{', '.join(failed)} (the first: {next(iter(failed.values()))})"
        raise InvalidInput(f"{entry.name} was tried on {done} defences of {cell.name}, and failed with {why}")
    return done, left


def _add(name: str, struck: Hit, outcomes: Sequence[Outcome]) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        row.outside[name] = struck
        note(row, name, outcomes)

    return change
