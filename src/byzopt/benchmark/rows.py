"""Rows of the benchmark's table: what one defence came to in one cell, as plain data that is stored."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec

from byzopt.errors import InvalidInput, require
from byzopt.files import read, write_atomically

MOST = 1 << 26  # bytes of a file of rows


class Setting(msgspec.Struct):
    """A setting that was tried in tuning, its worst figure (None: a run failed), and its runs' ids."""

    setting: dict[str, Any]
    score: float | None
    runs: list[str]


class Hit(msgspec.Struct):
    """What an attack did: the figure of every seed (None: a run failed), and the ids of its runs."""

    values: list[float | None]
    runs: list[str]
    attack: dict[str, Any]
    status: str
    seconds: float


class Row(msgspec.Struct):
    """What a defence came to in a cell: its tuning, and each attack's figures by seed.

    `spec` with one of `rules` (draws of its lots) and a hit's attack is all that its runs need. `outside` are
    attacks that others entered. `refused` says why a cell has no place for the defence.
    `slower` and `different` are those of `facts`.

    Args:
        cell: Name of the cell.
        entry: Name of the entry.
        title: What the entry is.
        source: Where it comes from.
        remarks: What readers should know of it.
        protocol: Version of the protocol.
        attack_set: Version of the set of attacks.
        figure: By what the cell is judged.
        rises: Whether more of it is better.
        seeds: Those of the figures.
        versions: Of the packages that decide a result.
        spec: Plain data of the chosen spec, without attack and seed.
        rules: The rule, once for each draw of its lots.
        tries: The settings that were tried.
        trusted: Rows that the rule trusts.
        hits: What each attack of the set did, by its name.
        outside: What attacks of others did, by the entry's name.
        curves: The figure over rounds under each attack, mean over seeds.
        start: The figure before the first round.
        refused: Why the cell has no place for the entry; empty: it has.
        slower: How many times as long a round takes as with the mean.
        different: Rounds, and how different honest gradients are there.

    Examples:
        >>> from byzopt.benchmark import Row
        >>> cell = "digits-dirichlet1-n20-f3"
        >>> Row(cell, "mine", "Mine", "", "", "1", "1", "accuracy", True, [0, 1, 2], {}).hits
        {}
    """

    cell: str
    entry: str
    title: str
    source: str
    remarks: str
    protocol: str
    attack_set: str
    figure: str
    rises: bool
    seeds: list[int]
    versions: dict[str, str]
    spec: dict[str, Any] = {}
    rules: list[Any] = []
    tries: list[Setting] = []
    trusted: list[int] = []
    hits: dict[str, Hit] = {}
    outside: dict[str, Hit] = {}
    curves: dict[str, list[list[float]]] = {}
    start: float | None = None
    refused: str = ""
    slower: float | None = None
    different: list[list[float]] = []


def row_path(store: Path, cell: str, entry: str) -> Path:
    """Where the row of an entry in a cell lies in a store."""
    return store / "benchmark" / cell / f"{entry}.json"


def write_row(store: Path, row: Row) -> None:
    """Store a row."""
    path = row_path(store, row.cell, row.entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _bytes(row))


def keep_known(row: Row, old: Row | None) -> None:
    """Take over what an older row of the same setting knows beside the set: attacks of others, facts."""
    if old is not None and (old.spec, old.rules) == (row.spec, row.rules):
        row.outside, row.slower, row.different = old.outside, old.slower, old.different
        row.curves = {**{name: old.curves[name] for name in old.outside if name in old.curves}, **row.curves}


def read_row(store: Path, cell: str, entry: str) -> Row | None:
    """The row of an entry in a cell, if there is one. Errors: `InvalidInput` for damage."""
    path = row_path(store, cell, entry)
    return _read(path, Row) if path.exists() else None


def read_rows(source: str | Path) -> list[Row]:
    """All rows of a store, or of a file that `write_rows` wrote.

    Args:
        source: A store's directory, or a file.

    Returns:
        The rows, by cell and entry.

    Raises:
        InvalidInput: Nothing there, or what is no row.
    """
    source = Path(source)
    if source.is_file():
        rows: list[Row] = _read(source, list[Row])
        return rows
    paths = sorted((source / "benchmark").glob("*/*.json"))
    require(
        bool(paths), f"Store {source}", "hold a row of the benchmark", "none", "Run `byzopt benchmark run`."
    )
    return [_read(path, Row) for path in paths]


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write rows to one file: a table that can be drawn and replayed without its store."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, b"[\n" + b",\n".join(_bytes(row).strip() for row in rows) + b"\n]\n")


def _bytes(row: Row) -> bytes:
    return json.dumps(_finite(msgspec.to_builtins(row)), allow_nan=False).encode() + b"\n"


def _finite(value: Any) -> Any:
    """Plain data with None for what is no finite number: JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _read(path: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(read(path, MOST), type=kind)
    except (msgspec.DecodeError, OSError, ValueError) as error:
        raise InvalidInput(f"{path} should hold rows as byzopt wrote them. Found: {error}.") from None
