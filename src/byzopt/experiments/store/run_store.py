"""The store of many runs: a directory for each, which appears whole or not at all.

    STORE/<run id>/         spec.toml, records.parquet, result.json (figures, environment, checksums), log.txt
    STORE/batches/<id>.pt   the checkpoint of runs that advance together
    STORE/claims/<run id>   who works on a run now
    STORE/sweeps/<name>/    sweep.toml, runs.json, tuned.json

Several processes may write to one store, on one machine or on a file system that they share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from byzopt.checkpoint import load, save
from byzopt.errors import InvalidInput, Status
from byzopt.experiments.specs.plain_spec import MAIN
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.specs.toml import dumps
from byzopt.experiments.store.directories import explain_refused_writes
from byzopt.experiments.store.reading import LOG, SPEC, Damaged, read_run
from byzopt.experiments.store.run_directory import result_files
from byzopt.experiments.trials.outcome import Outcome
from byzopt.files import (
    clear_directories,
    clear_leftovers,
    remove_directory,
    write_atomically,
    write_directory,
)


class Unwritable(InvalidInput):
    """The store cannot be written: the disk is full, or the directory is not ours."""


class StoredRun(NamedTuple):
    """What is stored under a run's id.

    `kind`: "missing"; "whole", a run that ended; "failed", one that an error ended; "damaged". `message` is
    the reason of the last two. `batch` are the runs that were computed together with it; `risen` says that it
    ended worse than it started (`Outcome.risen`), `content` what the files held that it read.
    """

    kind: Literal["missing", "whole", "failed", "damaged"]
    message: str = ""
    status: Status | None = None
    batch: tuple[str, ...] = ()
    risen: bool = False
    content: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class RunStore:
    """A directory of runs. Errors: `Unwritable`."""

    root: Path

    @property
    def claims(self) -> Path:
        """Where claims on runs lie."""
        return self.root / "claims"

    def inspect(self, run: str) -> StoredRun:
        """What is stored of a run; every checksum is verified."""
        path = self.root / run
        try:
            if not path.exists():
                return StoredRun("missing")
            stored = read_run(path)
        except (Damaged, OSError) as error:
            return StoredRun("damaged", str(error))
        if stored.run != run:
            return StoredRun("damaged", "it is another run")
        ended = stored.outcomes[MAIN]
        kind: Literal["failed", "whole"] = "failed" if ended.status is Status.ERROR else "whole"
        return StoredRun(
            kind, ended.message, ended.status, stored.batch, ended.risen is not None, stored.content
        )

    def read_outcome(self, run: str) -> Outcome:
        """How a stored run ended. Errors: `Damaged`."""
        return read_run(self.root / run).outcomes[MAIN]

    def save_run(
        self,
        run: str,
        spec: Spec,
        outcome: Outcome,
        log: Sequence[str],
        batch: Sequence[str],
        content: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Store a run that ended, and what the files held that it read; its claim is the caller's. What lay
        there, damaged, gives way."""
        about = {"run": run, "batch": list(batch)}
        files = {SPEC: dumps(spec.data).encode(), LOG: "".join(f"{line}\n" for line in log).encode()}
        files |= result_files(spec, {MAIN: outcome}, content, about)
        with store_writes(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            clear_directories(self.root / run)  # of an owner that died, because we hold the claim
            write_directory(self.root / run, files, replace=True)

    def remove(self, run: str) -> None:
        """Remove a stored run, at once."""
        with store_writes(self.root):
            remove_directory(self.root / run)

    def save_checkpoint(self, batch: str, content: dict[str, Any]) -> None:
        """Store the checkpoint of a batch."""
        with store_writes(self.root):
            path = self._path(batch)
            path.parent.mkdir(parents=True, exist_ok=True)
            clear_leftovers(path.parent, path.name)
            save(path, content)

    def load_checkpoint(self, batch: str) -> dict[str, Any] | None:
        """A batch's checkpoint, if there is one. Errors: `InvalidInput` for damage."""
        path = self._path(batch)
        return load(path) if path.exists() else None

    def remove_checkpoint(self, batch: str) -> None:
        """Remove a batch's checkpoint, which has served."""
        with store_writes(self.root):
            self._path(batch).unlink(missing_ok=True)

    def has_checkpoint(self, batch: str) -> bool:
        """Whether a batch is under way."""
        return self._path(batch).exists()

    def write_sweep_files(self, folder: str, files: Mapping[str, str]) -> Path:
        """Write a sweep's own files."""
        path = self.root / "sweeps" / folder
        with store_writes(self.root):
            path.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                write_atomically(path / name, text.encode())
        return path

    def _path(self, batch: str) -> Path:
        return self.root / "batches" / f"{batch}.pt"


def store_writes(root: Path) -> AbstractContextManager[None]:
    """In here what the system refuses is `Unwritable`."""
    full = "Free some space and run the same command again; no run is lost."
    return explain_refused_writes(root, "Choose another --store; no run is lost.", full, "Store", Unwritable)
