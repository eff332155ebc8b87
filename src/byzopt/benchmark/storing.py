"""Rows of the benchmark on disk: read with their damage told, and changed by several commands at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock

from byzopt.benchmark.protocol import NAME, Cell
from byzopt.benchmark.rows import Row, check_row
from byzopt.errors import InvalidInput, require, said
from byzopt.files import read, write_atomically

ROWS = "rows.json"  # beside a page, the rows from which it is drawn
MOST = 1 << 26  # bytes of a file of rows
AGAIN = "Move it away and repeat `byzopt benchmark run`: its runs are stored, and are not run again."


def row_path(store: Path, cell: str, entry: str) -> Path:
    """Where the row of an entry in a cell lies in a store."""
    return store / "benchmark" / cell / f"{entry}.json"


def write_row(store: Path, row: Row) -> None:
    """Put a row into a store, in the place of what is there. What others may write too: `store_row`."""
    path = row_path(store, row.cell, row.entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _bytes(row))


def store_row(store: Path, row: Row) -> Row | None:
    """Store a measured row together with what the stored one knows beside it.

    Attacks of others and facts are kept for the same setting; figures of the set, too, where packages and
    protocol are the same. A row of others gives way only to one that is whole, or has all its attacks.

    Args:
        store: The store.
        row: What was measured, perhaps in part.

    Returns:
        The row as it is stored now; None where the old one stays.

    Raises:
        InvalidInput: The stored row is damaged.
    """
    with _alone(store, row.cell, row.entry):
        old = read_row(store, row.cell, row.entry)
        if old is not None and not _merge(row, old):
            return None
        write_row(store, row)
        return row


def change_row(store: Path, row: Row, change: Callable[[Row], None]) -> bool:
    """Change the stored row of the entry, cell and setting of `row`, as it is by now.

    Args:
        store: The store.
        row: The row as it was read some time ago.
        change: What to do with the one that is there now.

    Returns:
        False, and nothing is changed, where that one is gone or has another setting.

    Raises:
        InvalidInput: The stored row is damaged.
    """
    with _alone(store, row.cell, row.entry):
        now = read_row(store, row.cell, row.entry)
        if now is None or (now.spec, now.rules) != (row.spec, row.rules):
            return False
        change(now)
        write_row(store, now)
        return True


def read_row(store: Path, cell: str, entry: str) -> Row | None:
    """The row of an entry in a cell, if there is one. Errors: `InvalidInput` for damage."""
    path = row_path(store, cell, entry)
    return _stored(path) if path.exists() else None


def read_rows(source: str | Path, damaged: dict[str, str] | None = None) -> list[Row]:
    """All rows of a store, or of a file that `write_rows` wrote.

    Args:
        source: A store's directory, or a file.
        damaged: Takes what is wrong with damaged rows, which are left out then; by default they are refused.

    Returns:
        The rows, by cell and entry.

    Raises:
        InvalidInput: Nothing there, what is no file of rows, or a damaged row.
    """
    source = Path(source)
    found: list[Row] = []
    for name, load in _sources(source):
        try:
            found.append(load())
        except InvalidInput as error:
            if damaged is None:
                raise
            damaged[name] = str(error)
    return found


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write rows to one file: a table that can be drawn and replayed without its store."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, b"[\n" + b",\n".join(_bytes(row).strip() for row in rows) + b"\n]\n")


@contextmanager
def _alone(store: Path, cell: str, entry: str) -> Iterator[None]:
    """Nobody else changes this row meanwhile. The lock's file stays: to remove it would open a gap."""
    path = row_path(store, cell, entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{entry}.lock")):
        yield


def _merge(row: Row, old: Row) -> bool:
    """Take over what the old row knows beside; False where it knows more that does not fit the new one."""
    attacks = Cell.of(row.cell).attacks
    alike = (old.spec, old.rules) == (row.spec, row.rules)
    under = (old.protocol, old.attack_set, old.versions, old.seeds)
    if alike and under == (row.protocol, row.attack_set, row.versions, row.seeds):
        hits = {**old.hits, **row.hits}
        row.hits = {name: hits[name] for name in attacks if name in hits}
        row.curves = {**old.curves, **row.curves}
        row.start = old.start if row.start is None else row.start
    elif not (row.hits.keys() >= attacks.keys() or row.hits.keys() >= old.hits.keys()):
        return False
    if alike:
        row.outside, row.slower, row.different = old.outside, old.slower, old.different
        row.curves = {**{name: old.curves[name] for name in old.outside if name in old.curves}, **row.curves}
    return True


def _sources(source: Path) -> Iterator[tuple[str, Callable[[], Row]]]:
    """What each row of a source is called, and how it is read."""
    if source.is_file():
        rows: list[msgspec.Raw] = _decoded(source, lambda: read(source, MOST), list[msgspec.Raw], "")
        for k, raw in enumerate(rows, start=1):
            name = f"{source}, row {k}"
            yield name, lambda name=name, raw=raw: _checked(name, lambda: bytes(raw), "")  # type: ignore[misc]
        return
    what, made = "A source of rows", "`byzopt benchmark table --out DIR` writes DIR/rows.json."
    there = source.exists()
    require(there, what, "be a store, or a file of rows", f"nothing at {source}", made)
    paths = sorted((source / "benchmark").glob("*/*.json"))
    beside = source / ROWS
    remedy = f"Name {beside}." if beside.exists() else "Run `byzopt benchmark run`."
    require(bool(paths), f"Store {source}", "hold a row of the benchmark", "none", remedy)
    for path in paths:
        yield str(path), lambda path=path: _stored(path)  # type: ignore[misc]


def _stored(path: Path) -> Row:
    row = _checked(path, lambda: read(path, MOST), AGAIN)
    place = (path.parent.name, path.stem)
    require((row.cell, row.entry) == place, str(path), "hold the row that it is named for", said(row.entry))
    return row


def _checked(name: object, content: Callable[[], bytes], remedy: str) -> Row:
    row: Row = _decoded(name, content, Row, remedy)
    try:
        require(NAME.fullmatch(row.entry) is not None, "Its entry", "have an entry's name", said(row.entry))
        check_row(row)
    except InvalidInput as error:
        raise InvalidInput(
            f"{name} should hold a row as byzopt wrote it. {error} {remedy}".rstrip()
        ) from None
    return row


def _decoded(name: object, content: Callable[[], bytes], kind: Any, remedy: str) -> Any:
    try:
        return msgspec.json.decode(content(), type=kind)
    except (msgspec.DecodeError, OSError, ValueError, RecursionError) as error:
        text = f"{name} should hold rows as byzopt wrote them. Found: {error}. {remedy}"
        raise InvalidInput(text.rstrip()) from None


def _bytes(row: Row) -> bytes:
    return json.dumps(_finite(msgspec.to_builtins(row)), allow_nan=False).encode() + b"\n"


def _finite(value: Any) -> Any:
    """Plain data with None for what is no finite number: JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value
