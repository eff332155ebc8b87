"""Outcomes and progress as plain data: whole in checkpoints, and as the summary in a run's `result.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from typing import Annotated, Any

import msgspec
from torch import Tensor

from byzopt.engines import LoopState
from byzopt.errors import InvalidInput, Status, require
from byzopt.experiments.trials.outcome import Outcome, Record, RunProgress
from byzopt.states import freeze, thaw

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Expulsion(msgspec.Struct):
    worker: _Count
    round: _Count
    reason: str


class _Summary(msgspec.Struct):
    """What a summary says beside figures."""

    status: Status
    message: str
    rounds: _Count
    seconds: Annotated[float, msgspec.Meta(ge=0)]
    expulsions: tuple[_Expulsion, ...] = ()


def pack_outcome(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain data for a checkpoint: every field."""
    return {f.name: getattr(outcome, f.name) for f in fields(Outcome)} | {"status": str(outcome.status)}


def unpack_outcome(packed: Any) -> Outcome:
    """The inverse of `frozen`. Errors: `InvalidInput` for anything else."""
    _check(packed, Outcome, "An outcome in a checkpoint")
    known = {f.name: packed[f.name] for f in fields(Outcome) if f.name in packed}
    return Outcome(**{**known, "status": Status(packed["status"])})


def pack_progress(progress: RunProgress) -> tuple[Any, ...]:
    """Where a run stands, as plain data for a checkpoint."""
    return freeze(progress.state), progress.records, dict(progress.report), progress.seconds


def unpack_progress(packed: Any, like: LoopState, rounds: int) -> RunProgress:
    """The inverse of `frozen_progress`, in the structure of `like`, a state of the same run of so many
    `rounds`. Errors: `InvalidInput` for anything else."""
    rest = ("records", tuple[Record, ...]), ("report", dict[str, float]), ("seconds", float)
    good = isinstance(packed, tuple) and len(packed) == 1 + len(rest)
    require(good, "A run in a checkpoint", "be its state, records, report and seconds", type(packed).__name__)
    for value, (name, kind) in zip(packed[1:], rest, strict=True):
        _check(value, kind, f"`{name}` of a run in a checkpoint")
    state = thaw(packed[0], like)
    require(0 <= state.t <= rounds, "A run in a checkpoint", f"stand at a round in 0..{rounds}", state.t)
    require(
        all("t" in record for record in packed[1]), "Records in a checkpoint", "name their round `t`", "none"
    )
    return RunProgress(state, *packed[1:])


def outcome_summary(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON: flat, and null in place of what is not finite."""
    message = outcome.message.encode(errors="backslashreplace").decode()  # JSON holds no half characters
    known = {"status": str(outcome.status), "message": message, "rounds": outcome.rounds}
    figures = {k: v if isfinite(v) else None for k, v in outcome.metrics.items()}
    gone = [{"worker": i, "round": t, "reason": why} for i, t, why in outcome.expelled]
    known |= {"expulsions": gone} if gone else {}
    return known | {"seconds": round(outcome.seconds, 3)} | figures


def outcome_of_summary(summary: Mapping[str, Any], records: tuple[Record, ...]) -> Outcome:
    """The outcome that a summary and its records tell of; figures are those of the records.

    Errors: `InvalidInput` where the two do not fit each other or are no outcome's.
    """
    known = _check(summary, _Summary, "The summary of a run")
    gone = tuple((one.worker, one.round, one.reason) for one in known.expulsions)
    outcome = Outcome(known.status, known.rounds, known.seconds, records, known.message, expelled=gone)
    figures = {key: value for key, value in summary.items() if key not in _Summary.__struct_fields__}
    for key in figures.keys() | outcome.metrics.keys():
        seen, said = outcome.metrics.get(key), figures.get(key)
        same = said is None if seen is None or not isfinite(seen) else _equal(said, seen)
        require(
            same, f"Figure {key!r} of a run's summary", f"be that of its last record, {seen}", repr(said)[:99]
        )
    last = int(records[-1]["t"]) if records else 0
    require(last <= known.rounds, "A run's last record", f"be of a round up to {known.rounds}", last)
    return outcome


def _equal(said: Any, seen: float) -> bool:
    try:
        return isinstance(said, (int, float)) and float(said) == seen
    except OverflowError:
        return False


def _check(value: Any, kind: Any, what: str) -> Any:
    try:
        return msgspec.convert(value, kind, dec_hook=_tensor)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(f"{what} should be as byzopt wrote it. Found: {error}.") from None


def _tensor(kind: type, value: Any) -> Any:
    if kind is Tensor and isinstance(value, Tensor):
        return value
    raise ValueError(f"{type(value).__name__} in place of {kind.__name__}")
