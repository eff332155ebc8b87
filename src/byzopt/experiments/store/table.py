"""All runs of a store as one table: settings and final figures, or every record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from byzopt.errors import unknown
from byzopt.experiments.specs.plain_spec import PlainSpec
from byzopt.experiments.store.conditions import condition, is_number
from byzopt.experiments.store.reading import Damaged, is_unfinished, read_run, run_directories
from byzopt.experiments.store.rule_text import rule_text, short_hash
from byzopt.experiments.trials.outcome import Outcome
from byzopt.own_files import KEY

Row = dict[str, Any]


class Rows(NamedTuple):
    """The rows of a store; damaged directories, with the reason; how many runs have not ended."""

    rows: list[Row]
    damaged: dict[str, str]
    unfinished: int


def rows(store: str | Path, records: bool = False) -> Rows:
    """A row for each run, or for each of its records: `run`, settings by path, `status`, `message`,
    `rounds_run`, `seconds`, and figures (the final ones, or those at round `t`). A spec's variants
    are rows of their own.

    Components are under their key by name (`attack`), their parameters by path (`attack.scale`). A rule is
    spelled with the parameters in which it differs from its defaults at the spec's f.
    """
    found_rows: list[Row] = []
    damaged: dict[str, str] = {}
    left = 0
    for path in run_directories(Path(store)):
        if is_unfinished(path):
            left += 1
            continue
        try:
            found_rows += list(_of(path, records))
        except Damaged as error:
            damaged[path.name] = str(error)
    return Rows(found_rows, damaged, left)


def runs_table(
    store: str | Path,
    where: Sequence[str] = (),
    columns: Sequence[str] = (),
    records: bool = False,
) -> pa.Table:
    """The rows of a store that meet all conditions, as an Arrow table (`.to_pandas()` where pandas is there).

    `where`: `attack=alie`, `lr>=0.1`, `status!=completed`. `columns`: by default all. Damaged runs are left
    out; `rows` names them. Errors: `InvalidInput` for a column that no run has.

    Args:
        store: Directory of stored runs.
        where: Conditions such as `attack=alie` or `lr>=0.1`.
        columns: Names of columns; empty: all.
        records: Whether to give a row for every measurement, not for every run.

    Returns:
        The rows, in the order of the store.

    Raises:
        InvalidInput: A column that no run has, or a condition that cannot be read.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from byzopt import load, run, runs_table
        >>> with TemporaryDirectory() as store:
        ...     result = run(load("byz-nsgdm/quartic", ["rounds=5"], compare=False), out=f"{store}/one")
        ...     print(runs_table(store, columns=["rule", "rounds"]).to_pylist())
        [{'rule': 'nnm >> rfa', 'rounds': 5}]
    """
    return to_arrow(select_rows(rows(store, records).rows, where, columns))


def select_rows(found_rows: Sequence[Row], where: Sequence[str], columns: Sequence[str]) -> list[Row]:
    """The rows that meet all conditions, with these columns (by default all that any row has).

    Where columns are asked for, rows are in the order of those among them that are no figures.
    """
    known = list(dict.fromkeys(key for row in found_rows for key in row))
    tests = [condition(text, known, found_rows) for text in where]
    for name in columns:
        if name not in known:
            raise unknown("column", name, known)
    kept = [row for row in found_rows if all(test(row) for test in tests)]
    if columns:
        figures = {name for row in kept for name in _measured(row)}
        plain = [name for name in columns if name not in figures]
        kept.sort(key=lambda row: [_place(row.get(name)) for name in plain])
    return [{name: row.get(name) for name in columns or known} for row in kept]


def _measured(row: Row) -> set[str]:
    """What a run yields rather than what was asked of it: all that follows its status, but the round."""
    names = list(row)
    return set(names[names.index("message") :]) - {"t"}


def _place(value: Any) -> tuple[int, float, str]:
    """Where a value stands in order: none, then numbers by size, then texts."""
    if value is None:
        return 0, 0.0, ""
    if is_number(value) and not isinstance(value, str):
        return 1, _float(value), ""
    return 2, 0.0, value if isinstance(value, str) else json.dumps(value)


def to_arrow(found_rows: Sequence[Row]) -> pa.Table:
    """Rows as an Arrow table. Lists are JSON text; a column of numbers and texts is text."""
    names = list(dict.fromkeys(key for row in found_rows for key in row))
    return pa.table({name: _column([row.get(name) for row in found_rows]) for name in names})


def spec_settings(spec: PlainSpec) -> Row:
    """A spec's settings by path, components by name."""
    row: Row = {}
    for key, value in spec.data.items():
        if key == "rule":
            row[key] = rule_text(value, spec.data["f"])
        elif key != "compare":
            row |= _flat(key, value)
    return row


def _of(path: Path, records: bool) -> Iterator[Row]:
    for _, row, outcome in read_variants(path):
        if records:
            del row["seconds"]  # of the whole run, and of no record
            yield from (row | {"t": int(record["t"])} | _figures(record) for record in outcome.records)
        else:
            yield row | _figures(outcome.metrics)


def read_variants(path: Path) -> Iterator[tuple[PlainSpec, Row, Outcome]]:
    """A run's directory: spec, settings and outcome of the run, and of its variants. Errors: `Damaged`."""
    stored = read_run(path)
    for name, variant in stored.spec.variants.items():
        outcome = stored.outcomes[name]
        row: Row = {"run": path.name} | ({"variant": name} if len(stored.outcomes) > 1 else {})
        row |= spec_settings(variant)
        row |= {"status": str(outcome.status), "message": outcome.message, "rounds_run": outcome.rounds}
        yield variant, row | {"seconds": outcome.seconds}, outcome


def _figures(record: Mapping[str, float]) -> Row:
    return {key: value for key, value in record.items() if key != "t"}


def _flat(key: str, value: Any) -> Row:
    if not isinstance(value, Mapping):
        return {key: value}
    row: Row = {key: value["name"]} if "name" in value else {}
    for inner, content in value.items():
        if inner == KEY and isinstance(content, Mapping) and "sha256" in content:
            row[f"{key}.{KEY}"] = short_hash(content)  # where it lies says nothing of the run
        elif inner != "name":
            row |= _flat(f"{key}.{inner}", content)
    return row


def _column(values: list[Any]) -> pa.Array:
    plain = [json.dumps(value) if isinstance(value, (list, dict)) else value for value in values]
    kinds = {type(value) for value in plain if value is not None}
    if kinds <= {int, float} and float in kinds:
        return pa.array([None if value is None else _float(value) for value in values], pa.float64())
    beyond = any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in plain)
    if len(kinds) > 1 or beyond:
        plain = [value if value is None or isinstance(value, str) else json.dumps(value) for value in plain]
    return pa.array(plain)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf
