"""Stored runs changed so that every checksum still holds: what a hostile copy of a store may look like."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from byzopt.experiments.specs.plain_spec import content_hash
from byzopt.experiments.specs.toml import dumps
from byzopt.experiments.store.reading import result_digest
from byzopt.experiments.sweeps import Sweep

SPEC = {
    "task": "quartic",
    "rule": "nnm >> krum",
    "attack": "bit_flip",
    "rounds": 6,
    "lr": 0.1,
    "eval_every": 2,
}
SWEEP = Sweep(name="two", spec=SPEC, grid={"seed": [0, 1]})
DEEP = b"[" * 100_000


def result(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a run's result; `change` works on it, or returns another."""
    told = json.loads((run / "result.json").read_text())
    changed = change(told)
    told = told if changed is None else changed
    if isinstance(told, dict):
        told["digest"] = result_digest(told)
    (run / "result.json").write_text(json.dumps(told))


def records(run: Path, table: pa.Table, **options: Any) -> None:
    """Put another table in place of a run's records."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    raw = bytes(sink.getvalue())
    (run / "records.parquet").write_bytes(raw)
    result(run, lambda told: told.update(records=sha256(raw).hexdigest()))


def table(run: Path) -> pa.Table:
    """A run's records as they are."""
    raw = (run / "records.parquet").read_bytes()
    return pq.ParquetFile(pa.BufferReader(raw)).read(use_threads=False)


def spec(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a run's spec, and its id with it."""
    told = tomllib.loads((run / "spec.toml").read_text())
    change(told)
    (run / "spec.toml").write_text(dumps(told))
    told = tomllib.loads((run / "spec.toml").read_text())
    result(run, lambda known: known.update(id=content_hash(told)))
