"""Checkpoints of a job of many ranks, for restarts by torchrun: each rank keeps its own, two rounds deep.

place = Keep("checkpoints", group)
start = place.restore(model=model, optimizer=optimizer)      # 0 where there is nothing
for t in range(start + 1, last + 1):
    ...
    if t % 50 == 0:
        place.save(t, model=model, optimizer=optimizer)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import torch

from byzopt.distributed.link import Link
from byzopt.errors import InvalidInput

DEPTH = 2


class Stateful(Protocol):
    """What has a state dict of tensors and plain data."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Keep:
    """A folder (shared by the ranks, or one on each machine) of files `rank-R-round-T.pt`.

    A rank writes only its own files, each at once or not at all, and reads only those, with `weights_only`. A
    job may die while some ranks have written a round and others not, so the last two are kept, and all ranks
    go back to the newest round that every one of them has.
    """

    def __init__(self, folder: str | Path, group: Any = None) -> None:
        self.link, self.folder = Link(group), Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, t: int, **parts: Stateful) -> None:
        """Keep the states of these parts as those after round t."""
        path = self._path(t)
        temporary = path.with_suffix(f".{os.getpid()}")
        with temporary.open("wb") as file:
            torch.save({name: part.state_dict() for name, part in parts.items()}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        for old in self._rounds()[:-DEPTH]:
            self._path(old).unlink(missing_ok=True)

    def restore(self, **parts: Stateful) -> int:
        """Load the newest round that all ranks have into these parts; its number, or 0 if there is none.

        A collective. Errors: `InvalidInput`, on all ranks, where ranks have files but no round in common.
        """
        own = self._rounds()[-DEPTH:]
        told = torch.tensor(([0] * DEPTH + own)[-DEPTH:], dtype=torch.int64)
        kept = [set(line) - {0} for line in self.link.everyone(told).tolist()]
        common: set[int] = set.intersection(*kept)
        if not common:
            if any(kept):
                found = "; ".join(f"rank {rank}: {sorted(rounds)}" for rank, rounds in enumerate(kept))
                raise InvalidInput(
                    f"Checkpoints should be of one round on all ranks. Found rounds {found}. "
                    f"Empty {self.folder} to start again."
                )
            return 0
        t = max(common)
        content = torch.load(self._path(t), map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(content[name])
        return t

    def _path(self, t: int) -> Path:
        return self.folder / f"rank-{self.link.rank}-round-{t}.pt"

    def _rounds(self) -> list[int]:
        names = self.folder.glob(f"rank-{self.link.rank}-round-*.pt")
        return sorted(int(path.stem.rpartition("-")[2]) for path in names)
