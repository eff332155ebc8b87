"""A run's directory: `spec.toml`, then `checkpoint.pt` while it is unfinished, then `records.parquet` and
`result.json`. It appears at once; each file in it is replaced at once; what is damaged is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from byzopt import parquet
from byzopt.checkpoint import load, save
from byzopt.errors import ChangedFile, InvalidInput
from byzopt.experiments.specs.loading import read_spec
from byzopt.experiments.specs.plain_spec import PlainSpec, content_hash
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.specs.toml import dumps
from byzopt.experiments.store.content import check_content, known_content
from byzopt.experiments.store.directories import check_directory, explain_refused_writes
from byzopt.experiments.store.environment import environment
from byzopt.experiments.store.outcomes import outcome_summary
from byzopt.experiments.store.reading import RECORDS, RESULT, SPEC, Damaged, read_run, result_digest
from byzopt.experiments.trials.outcome import Outcome
from byzopt.files import clear_leftovers, write_atomically, write_directory
from byzopt.own_files import without_hashes

CHECKPOINT = "checkpoint.pt"
AGAIN = "run the same command again: it goes on from what is stored."
GO_ON = (f"Make it writable and {AGAIN}", f"Free some space and {AGAIN}")  # another --out would start anew


@dataclass(frozen=True)
class RunDirectory:
    """The directory of one spec's run. Errors: `InvalidInput` for one that is of something else, damaged, or
    cannot be written."""

    path: Path
    spec: Spec

    def check(self) -> None:
        """Raise unless the directory is absent, empty, or of this very spec; its name can be a new one's."""
        try:
            inside = {one.name for one in self.path.iterdir() if not one.name.startswith(f".{SPEC}.")}
        except (OSError, ValueError) as error:
            check_directory(self.path, "--out")
            if isinstance(error, FileNotFoundError):
                return
            raise InvalidInput(
                f"Directory {self.path} should be readable. Found: {error}. Choose another --out."
            ) from None
        if not inside:
            return
        try:  # nothing of it is built: a stored spec runs no code of anybody's
            stored = PlainSpec(read_spec(self.path / SPEC))
        except InvalidInput:
            stored = None  # a file of another kind
        found = stored.id if stored else "something else"
        if found != self.spec.id:
            if stored and content_hash(without_hashes(stored.data)) == content_hash(
                without_hashes(self.spec.data)
            ):
                raise ChangedFile(
                    f"Directory {self.path} should be of this spec ({self.spec.id}). Found a run ({found}) "
                    "of the same spec with other code in a file that it names. Put the old file back to go "
                    "on, or choose another --out for the new one."
                )
            raise InvalidInput(
                f"Directory {self.path} should be new, empty or of this spec ({self.spec.id}). "
                f"Found {found}. Choose another --out."
            )

    def check_writable(self) -> None:
        """Raise unless a run can be stored there."""
        check_directory(self.path, "--out")

    @property
    def finished(self) -> bool:
        """Whether a result lies there."""
        return (self.path / RESULT).exists()

    def create(self) -> None:
        """Make the directory, unless it is there: at once, with the spec in it. One that the user made empty
        stays the user's, with its mode."""
        if (self.path / SPEC).exists():
            return None
        content = dumps(self.spec.data).encode()
        with explain_refused_writes(self.path, "Choose another --out."):
            if self.path.exists():
                return write_atomically(self.path / SPEC, content)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return write_directory(self.path, {SPEC: content})

    def remove_leftovers(self) -> None:
        """Remove what a killed run was writing."""
        for name in (CHECKPOINT, RESULT, RECORDS, SPEC):
            clear_leftovers(self.path, name)

    def remove_results(self) -> None:
        """Remove what a run left, so that it starts again."""
        with explain_refused_writes(self.path, *GO_ON):
            for name in (CHECKPOINT, RESULT, RECORDS):
                (self.path / name).unlink(missing_ok=True)

    def save_checkpoint(self, content: dict[str, Any]) -> None:
        """Store a checkpoint."""
        with explain_refused_writes(self.path, *GO_ON):
            save(self.path / CHECKPOINT, content)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The stored checkpoint, if there is one."""
        path = self.path / CHECKPOINT
        return load(path) if path.exists() else None

    def write_result(
        self, outcomes: Mapping[str, Outcome], content: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Store the records, the result, and the `content` of files; the checkpoint has served."""
        with explain_refused_writes(self.path, *GO_ON):
            for name, data in result_files(self.spec, outcomes, content).items():
                write_atomically(self.path / name, data)
            (self.path / CHECKPOINT).unlink(missing_ok=True)

    def read_outcomes(self) -> dict[str, Outcome]:
        """What `write_result` stored. Errors: `ChangedFile` for a run on other data than there are now."""
        try:
            stored = read_run(self.path)
        except Damaged as error:
            raise InvalidInput(
                f"Directory {self.path} should hold a result as byzopt wrote it. Found damage: {error}. "
                "Use --fresh to run again."
            ) from None
        self.check_content(stored.content, known_content(self.spec))
        return stored.outcomes

    def check_content(self, then: Mapping[str, str], now: Mapping[str, str]) -> None:
        """Raise `ChangedFile` unless the files that a run reads hold what they held when it was begun."""
        remedy = "Put the old content back, choose another --out, or use --fresh to run again."
        check_content(then, now, f"Directory {self.path}", remedy)


def result_files(
    spec: Spec,
    outcomes: Mapping[str, Outcome],
    content: Mapping[str, str],
    more: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """The files of a finished run but its spec; the result comes last, because it says that all is there.
    `content` is what the files held that the run read."""
    rows = [{"variant": name} | record for name, o in outcomes.items() for record in o.records]
    table = parquet.write(rows, "variant", "t")
    result = {
        "id": spec.id,
        "environment": environment(),
        "records": sha256(table).hexdigest(),
        "variants": {name: outcome_summary(o) for name, o in outcomes.items()},
    } | ({"content": dict(content)} if content else {})
    result |= dict(more or {})
    text = json.dumps(result | {"digest": result_digest(result)}, indent=1, allow_nan=False)
    return {RECORDS: table, RESULT: text.encode()}
