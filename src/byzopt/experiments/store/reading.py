"""A finished run's directory, read without trust: one schema, checked once, here.

Whoever shows stored runs (`query`, `report`, sweeps, reproductions) gets them from here. Whatever is wrong
with one is a `Damaged`, never another error, and no more is unfolded in memory than the run can hold.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from hashlib import sha256
from json import dumps
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import msgspec

from byzopt import files, parquet
from byzopt.errors import InvalidInput, require
from byzopt.experiments.specs.plain_spec import MOST_NUMBERS, MOST_RECORDS, SPARE, PlainSpec
from byzopt.experiments.store.outcomes import outcome_of_summary
from byzopt.experiments.trials.outcome import RESERVED, Outcome, Record

SPEC, RECORDS, RESULT, LOG = "spec.toml", "records.parquet", "result.json", "log.txt"
_MOST_BYTES = {SPEC: 1 << 24, RESULT: 1 << 26, RECORDS: 1 << 28}
_LONGEST = 500  # letters of a reason: it may quote what is stored
T = TypeVar("T")


class Damaged(InvalidInput):
    """What is stored is not as byzopt wrote it; the message is the reason."""


class FinishedRun(NamedTuple):
    """A run that ended: its spec, the outcomes of its variants by name; in the store of a sweep also its own
    id and those of the runs that were computed together with it."""

    spec: PlainSpec
    outcomes: dict[str, Outcome]
    run: str
    batch: tuple[str, ...]
    content: Mapping[str, str] = MappingProxyType({})  # of the files that it read, by name


class _Result(msgspec.Struct):
    """What `result.json` holds."""

    id: str
    environment: dict[str, Any]
    records: str
    variants: dict[str, dict[str, Any]]
    digest: str
    run: str = ""
    batch: tuple[str, ...] = ()
    content: dict[str, str] = {}  # msgspec copies it


def read_run(path: Path) -> FinishedRun:
    """The run that ended in this directory. Errors: `Damaged`."""
    try:
        return _finished(path)
    except InvalidInput as error:
        raise Damaged(_line(error)) from None
    except OSError as error:
        where = f"{Path(error.filename).name}: " if isinstance(error.filename, str) else ""
        raise Damaged(f"{where}{_line(error.strerror or error)}") from None
    except RecursionError:
        raise Damaged("brackets within brackets, too deep to read") from None
    except parquet.DAMAGE as error:
        raise Damaged(_line(error)) from None


def is_unfinished(path: Path) -> bool:
    """Whether a directory is that of a run on its way, as `byzopt run` leaves it when stopped or killed.

    A run in the store of a sweep, which has a log, appears whole or not at all.
    """
    try:
        return not any(files.exists(path / name) for name in (RESULT, LOG))
    except OSError:
        return False  # `finished` says why


def run_directories(root: Path) -> list[Path]:
    """The directories of runs in a store, or among those that `byzopt run` made, or a run's own.

    Those that cannot be looked into are among them, for `finished` to say why. Errors: `InvalidInput`.
    """
    if not root.is_dir():
        found = f"the file {str(root)!r}" if root.is_file() else f"no directory {str(root)!r}"
        raise InvalidInput(f"A store should be a directory of runs. Found {found}.")
    if _is_run(root):
        return [root.resolve()]
    try:
        inside = sorted(root.iterdir())
    except OSError as error:
        raise InvalidInput(f"Store {root} should be readable. Found: {error.strerror}.") from None
    return [path for path in inside if not path.name.startswith(".") and path.is_dir() and _is_run(path)]


def _is_run(path: Path) -> bool:
    try:
        return files.exists(path / RESULT) or files.exists(path / SPEC)
    except OSError:
        return True


def parse_json(raw: bytes, kind: type[T]) -> T:
    """JSON of a known shape. Errors: `InvalidInput`, which says where it differs."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except RecursionError:
        raise InvalidInput("brackets within brackets, too deep to read") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(_line(error)) from None


def result_digest(result: Any) -> str:
    """The checksum of what `result.json` holds beside it."""
    covered = {key: value for key, value in result.items() if key != "digest"}
    return sha256(dumps(covered, sort_keys=True).encode()).hexdigest()


def _finished(path: Path) -> FinishedRun:
    raw = _bytes(path, RESULT)
    result = parse_json(raw, _Result)
    if result.digest != result_digest(parse_json(raw, dict)):
        raise InvalidInput("the checksum of its result is wrong")
    table = _bytes(path, RECORDS)
    if sha256(table).hexdigest() != result.records:
        raise InvalidInput("the checksum of its records is wrong")
    spec = PlainSpec(tomllib.loads(_bytes(path, SPEC).decode()))
    if spec.id != result.id:
        raise InvalidInput("its spec is not the one that was run")
    require(spec.variants.keys() == result.variants.keys(), "A result", "have the spec's variants", "others")
    require(len(set(result.batch)) == len(result.batch), "A run's batch", "name each run once", "one twice")
    records = _records(table, spec)
    outcomes = {name: outcome_of_summary(result.variants[name], records[name]) for name in spec.variants}
    for name, outcome in outcomes.items():
        rounds = spec.variants[name].data["rounds"]
        require(outcome.rounds <= rounds, "A run", f"end after at most {rounds} rounds", outcome.rounds)
    return FinishedRun(spec, outcomes, result.run, result.batch, result.content)


def _records(raw: bytes, spec: PlainSpec) -> dict[str, tuple[Record, ...]]:
    """The records of every variant, in order of their rounds."""
    planned = {name: variant.planned for name, variant in spec.variants.items()}
    limits = parquet.Limits(
        min(sum(planned.values()), MOST_RECORDS + SPARE * len(planned)), MOST_NUMBERS, planned
    )
    columns = parquet.read(raw, "variant", "t", limits)
    names = columns.pop("variant")
    figures = [key for key in columns if key != "t"]
    wrong = sorted(RESERVED & set(figures))
    require(not wrong, "A figure in records", "have a name of its own", wrong)
    grouped: dict[str, list[Record]] = {name: [] for name in planned}
    for name, t, *values in zip(names, columns["t"], *(columns[key] for key in figures), strict=True):
        pairs = zip(figures, values, strict=True)
        record = {"t": t} | {key: value for key, value in pairs if value is not None}
        before = grouped[name][-1]["t"] if grouped[name] else -1
        require(record["t"] > before, "Records", "be in order of their rounds", f"{t} after {before}")
        grouped[name].append(record)
    for name, records in grouped.items():
        require(len(records) <= planned[name], "Records", f"be at most {planned[name]}", len(records))
    return {name: tuple(records) for name, records in grouped.items()}


def _bytes(path: Path, name: str) -> bytes:
    try:
        return files.read(path / name, _MOST_BYTES[name])
    except ValueError as error:
        raise InvalidInput(f"{name}: {error}") from None


def _line(error: object) -> str:
    return " ".join(str(error)[:_LONGEST].split())
