"""A run's directory: `spec.toml`, then `checkpoint.pt` while it is unfinished, then `records.parquet` and
`result.json`. It appears at once; each file in it is replaced at once; what is damaged is refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from byzopt.engines.checkpoint import load, save
from byzopt.errors import InvalidInput, Status
from byzopt.experiments.environment import environment
from byzopt.experiments.loading import load as load_spec
from byzopt.experiments.spec import Spec
from byzopt.experiments.toml import dumps
from byzopt.experiments.trial import Outcome, Record
from byzopt.files import write_atomically

SPEC, CHECKPOINT, RECORDS, RESULT = "spec.toml", "checkpoint.pt", "records.parquet", "result.json"
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    pa.ArrowException,
)  # what reading a damaged file may raise


@dataclass(frozen=True)
class Store:
    """The directory of one spec's run. Errors: `InvalidInput` for one that is of something else, damaged, or
    cannot be written."""

    path: Path
    spec: Spec

    def check(self) -> None:
        """Raise unless the directory is absent, empty, or of this very spec."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        try:
            found = load_spec(self.path / SPEC).id
        except InvalidInput:
            found = "something else"
        if found != self.spec.id:
            raise InvalidInput(
                f"Directory {self.path} should be new, empty or of this spec ({self.spec.id}). "
                f"Found {found}. Choose another --out."
            )

    @property
    def finished(self) -> bool:
        """Whether a result lies there."""
        return (self.path / RESULT).exists()

    def stage(self) -> None:
        """Make the directory, unless it is there: at once, with the spec in it."""
        if (self.path / SPEC).exists():
            return
        with _writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            staged = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=f".{self.path.name}."))
            try:
                (staged / SPEC).write_text(dumps(self.spec.data), encoding="utf-8")
                staged.chmod(0o755)
                os.replace(staged, self.path)
            except BaseException:
                shutil.rmtree(staged)
                raise

    def clear(self) -> None:
        """Remove what a run left, so that it starts again."""
        with _writing(self.path):
            for name in (CHECKPOINT, RESULT, RECORDS):
                (self.path / name).unlink(missing_ok=True)

    def keep(self, checkpoint: dict[str, Any]) -> None:
        """Store a checkpoint."""
        with _writing(self.path):
            save(self.path / CHECKPOINT, checkpoint)

    def checkpoint(self) -> dict[str, Any] | None:
        """The stored checkpoint, if there is one."""
        path = self.path / CHECKPOINT
        return load(path) if path.exists() else None

    def finish(self, outcomes: Mapping[str, Outcome]) -> None:
        """Store the records and the result; the checkpoint has served."""
        with _writing(self.path):
            for name, content in contents(self.spec, outcomes).items():
                write_atomically(self.path / name, content)
            (self.path / CHECKPOINT).unlink(missing_ok=True)

    def outcomes(self) -> dict[str, Outcome]:
        """What `finish` stored."""
        try:
            return found(self.path, read_result(self.path))
        except DAMAGE as error:
            raise InvalidInput(
                f"Directory {self.path} should hold a result as byzopt wrote it. Found damage: {error}. "
                "Use --fresh to run again."
            ) from None


def stored(path: Path) -> tuple[Spec, dict[str, Outcome]]:
    """The spec and the outcomes in a finished run's directory."""
    spec = load_spec(path / SPEC)
    return spec, Store(path, spec).outcomes()


def contents(
    spec: Spec, outcomes: Mapping[str, Outcome], more: Mapping[str, Any] | None = None
) -> dict[str, bytes]:
    """The files of a finished run but its spec; the result comes last, because it says that all is there."""
    table = _table(outcomes)
    result = {
        "id": spec.id,
        "environment": environment(),
        "records": sha256(table).hexdigest(),
        "variants": {name: summary(o) for name, o in outcomes.items()},
    } | dict(more or {})
    text = json.dumps(result | {"digest": _digest(result)}, indent=1, allow_nan=False)
    return {RECORDS: table, RESULT: text.encode()}


def read_result(path: Path) -> dict[str, Any]:
    """What a run's `result.json` says, once its records and itself have proved whole. Errors: `DAMAGE`."""
    result: dict[str, Any] = json.loads((path / RESULT).read_bytes())
    if result.get("digest") != _digest(result):
        raise ValueError("the checksum of its result is wrong")
    if sha256((path / RECORDS).read_bytes()).hexdigest() != result["records"]:
        raise ValueError("the checksum of its records is wrong")
    return result


def found(path: Path, result: Mapping[str, Any]) -> dict[str, Outcome]:
    """The outcomes in a run's directory, by variant. Errors: `DAMAGE`."""
    records = _records((path / RECORDS).read_bytes())
    return {name: _outcome(told, records.get(name, ())) for name, told in result["variants"].items()}


def _digest(result: Mapping[str, Any]) -> str:
    told = {key: value for key, value in result.items() if key != "digest"}
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def summary(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON: flat, and null in place of what is not finite."""
    known = {"status": str(outcome.status), "message": outcome.message, "rounds": outcome.rounds}
    figures = {k: v if isfinite(v) else None for k, v in outcome.metrics.items()}
    gone = [{"worker": i, "round": t, "reason": why} for i, t, why in outcome.expelled]
    known |= {"expulsions": gone} if gone else {}
    return known | {"seconds": round(outcome.seconds, 3)} | figures


def _outcome(found: dict[str, Any], records: tuple[Record, ...]) -> Outcome:
    status = Status(found["status"])
    gone = tuple((one["worker"], one["round"], one["reason"]) for one in found.get("expulsions", ()))
    return Outcome(status, found["rounds"], found["seconds"], records, found["message"], expelled=gone)


def _table(outcomes: Mapping[str, Outcome]) -> bytes:
    """All records as a Parquet table: `variant`, `t`, a column for each figure, null where it has none."""
    rows = [{"variant": name} | record for name, o in outcomes.items() for record in o.records]
    kinds: dict[str, pa.DataType] = {"variant": pa.string(), "t": pa.int64()}
    kinds |= {key: pa.float64() for row in rows for key in row if key not in kinds}
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(list(kinds.items()))), buffer)
    return buffer.getvalue()


def _records(raw: bytes) -> dict[str, tuple[Record, ...]]:
    grouped: dict[str, list[Record]] = {}
    for row in pq.read_table(io.BytesIO(raw)).to_pylist():
        name = row.pop("variant")
        grouped.setdefault(name, []).append({key: value for key, value in row.items() if value is not None})
    return {name: tuple(records) for name, records in grouped.items()}


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            f"Directory {path} should be writable. Found: {error.strerror}. Choose another --out."
        ) from None
