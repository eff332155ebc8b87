"""The one writer and the one reader of Parquet: a column of names, one of whole numbers, the rest of floats.

Reading is in one thread, from memory: `pyarrow.parquet.read_table` on a Python file object now and then
aborts the interpreter when it ends, long after the table is read. What a file claims to hold is looked at
before it is read, because a few bytes may unfold to gigabytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

DAMAGE = (OSError, ValueError, MemoryError, NotImplementedError, pa.ArrowException)  # what reading may raise
_PIECE = 1 << 16  # rows that are unfolded at a time
_ROOM = 1 << 16  # bytes that a column may take beside its values: heads, statistics, one dictionary


class Limits(NamedTuple):
    """What a file may hold at most: rows, numbers in all of its columns, and which names."""

    rows: int
    numbers: int
    names: Collection[str]


def write(rows: Iterable[Mapping[str, Any]], name: str, number: str) -> bytes:
    """`rows` as a file: `name` is a column of texts, `number` of whole numbers, all others of floats, null
    where a row has none."""
    kinds: dict[str, pa.DataType] = {name: pa.string(), number: pa.int64()}
    told = [
        {key: value if key in kinds or value is None else float(value) for key, value in row.items()}
        for row in rows
    ]
    schema = kinds | {key: pa.float64() for row in told for key in row if key not in kinds}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(told, schema=pa.schema(list(schema.items()))), sink)
    return bytes(sink.getvalue())


def read(raw: bytes, name: str, number: str, limits: Limits) -> dict[str, list[Any]]:
    """The columns that `write` wrote, as lists. Errors: `DAMAGE`; `ValueError` for what is none of its files
    or beyond the limits, before it is unfolded."""
    file = pq.ParquetFile(pa.BufferReader(raw))
    schema = file.schema_arrow
    _check_schema(schema, name, number)
    _check_size(file.metadata, schema.names, limits)
    # Each name is then held once, however many rows have it.
    file = pq.ParquetFile(pa.BufferReader(raw), metadata=file.metadata, read_dictionary=[name])
    columns: dict[str, list[Any]] = {key: [] for key in schema.names}
    left = limits.rows
    for piece in file.iter_batches(_PIECE, use_threads=False):
        left -= piece.num_rows
        _require(left >= 0, "it holds more rows than it says")
        found = piece.column(name).dictionary.to_pylist()
        _require(set(found) <= set(limits.names), f"its `{name}` should be one of {list(limits.names)[:9]}")
        for key, values in zip(piece.schema.names, piece.columns, strict=True):
            columns[key] += values.to_pylist()
    _require(None not in columns[name] and None not in columns[number], f"a row lacks `{name}` or `{number}`")
    return columns


def _check_schema(schema: pa.Schema, name: str, number: str) -> None:
    names = schema.names
    _require(len(set(names)) == len(names), "two of its columns have one name")
    _require({name, number} <= set(names), f"it has no column `{name}` or `{number}`")
    kinds = {name: pa.string(), number: pa.int64()}
    for field in schema:
        wanted = kinds.get(field.name, pa.float64())
        _require(field.type == wanted, f"its column {field.name!r} holds {field.type}, not {wanted}")


def _check_size(metadata: Any, names: Sequence[str], limits: Limits) -> None:
    rows = metadata.num_rows
    _require(0 <= rows <= limits.rows, f"it holds {rows:,} rows where the run has at most {limits.rows:,}")
    numbers = rows * len(names)
    _require(numbers <= limits.numbers, f"it holds {numbers:,} numbers, more than {limits.numbers:,}")
    longest = max((len(one.encode()) for one in limits.names), default=0)
    _require(metadata.num_row_groups <= rows + 1, "it has more groups of rows than rows")
    for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
        for column in (group.column(i) for i in range(group.num_columns)):
            most = column.num_values * (16 + longest) + longest + _ROOM
            size = column.total_uncompressed_size
            _require(column.num_values <= limits.rows, "a column is longer than the table")
            _require(0 <= size <= most, f"a column of {column.num_values:,} values takes {size:,} bytes")


def _require(ok: bool, otherwise: str) -> None:
    if not ok:
        raise ValueError(otherwise)
