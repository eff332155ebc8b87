"""The checkpoint of runs that one command computes: of a spec's variants in turn, or of a batch in step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from byzopt.errors import InvalidInput, TooManyFaults, require
from byzopt.experiments.store.outcomes import pack_outcome, pack_progress, unpack_outcome, unpack_progress
from byzopt.experiments.trials.outcome import Outcome, RunProgress
from byzopt.experiments.trials.prepared import PreparedRun

_PARTS = {"ended", "running", "log"}


@dataclass(frozen=True)
class Checkpoint:
    """By the names of runs: how those ended that have, where the others stand, and lines of their logs; and
    what the files held on which they run."""

    ended: Mapping[str, Outcome] = field(default_factory=dict)
    running: Mapping[str, RunProgress] = field(default_factory=dict)
    log: Mapping[str, list[str]] = field(default_factory=dict)
    content: Mapping[str, str] = field(default_factory=dict)  # of the files that they read

    @property
    def data(self) -> dict[str, Any]:
        """The checkpoint as plain data and tensors."""
        return {
            "ended": {name: pack_outcome(outcome) for name, outcome in self.ended.items()},
            "running": {name: pack_progress(progress) for name, progress in self.running.items()},
            "log": dict(self.log),
        } | ({"content": dict(self.content)} if self.content else {})

    @classmethod
    def of(
        cls, data: Mapping[str, Any], names: Collection[str], ready: Mapping[str, PreparedRun]
    ) -> Checkpoint:
        """The inverse of `data`, for runs of these `names`, of which those in `ready` could be prepared.

        Errors: `InvalidInput` for damage and for the checkpoint of other runs.
        """
        data = _present(data)
        whole = data.keys() - {"content"} == _PARTS and all(isinstance(data[p], dict) for p in data)
        fits = whole and all(data[part].keys() <= set(names) for part in _PARTS)
        require(fits, "A checkpoint", "be one of these runs", "something else")
        ended = {name: unpack_outcome(packed) for name, packed in data["ended"].items()}
        running = {
            name: _progress(one, data["running"][name])
            for name, one in ready.items()
            if name in data["running"] and name not in ended
        }
        log = {name: [str(line) for line in lines] for name, lines in data["log"].items()}
        content = {str(name): str(told) for name, told in data.get("content", {}).items()}
        return cls(ended, running, log, content)


def _present(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The present form of a checkpoint that `byzopt run` kept before 0.1: with one run under way."""
    if data.keys() == {"ended", "current", "progress"} and isinstance(data["current"], str):
        return {"ended": data["ended"], "running": {data["current"]: data["progress"]}, "log": {}}
    return data


def _progress(ready: PreparedRun, packed: Any) -> RunProgress:
    if isinstance(ready.first, TooManyFaults):
        raise InvalidInput("A checkpoint should be of a run whose first round works. Found none.")
    return unpack_progress(packed, ready.first.state, ready.settings.rounds)
