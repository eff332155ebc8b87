"""A run's directory: `spec.toml`, then `checkpoint.pt` while it is unfinished, then `records.parquet` and
`result.json`. It appears at once; each file in it is replaced at once; what is damaged is refused."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from byzopt import parquet
from byzopt.engines.checkpoint import load, save
from byzopt.errors import InvalidInput
from byzopt.experiments.environment import environment
from byzopt.experiments.loading import load as load_spec
from byzopt.experiments.outcomes import summary
from byzopt.experiments.reading import RECORDS, RESULT, SPEC, Damaged, digest, finished
from byzopt.experiments.spec import Spec
from byzopt.experiments.toml import dumps
from byzopt.experiments.trial import Outcome
from byzopt.files import clear_leftovers, write_atomically

CHECKPOINT = "checkpoint.pt"


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

    def tidy(self) -> None:
        """Remove what a killed run was writing."""
        for name in (CHECKPOINT, RESULT, RECORDS, SPEC):
            clear_leftovers(self.path, name)

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
            return finished(self.path).outcomes
        except Damaged as error:
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
    rows = [{"variant": name} | record for name, o in outcomes.items() for record in o.records]
    table = parquet.write(rows, "variant", "t")
    result = {
        "id": spec.id,
        "environment": environment(),
        "records": sha256(table).hexdigest(),
        "variants": {name: summary(o) for name, o in outcomes.items()},
    } | dict(more or {})
    text = json.dumps(result | {"digest": digest(result)}, indent=1, allow_nan=False)
    return {RECORDS: table, RESULT: text.encode()}


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            f"Directory {path} should be writable. Found: {error.strerror}. Choose another --out."
        ) from None
