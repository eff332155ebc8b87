"""Checkpoints of a job of many ranks, for restarts by torchrun: each rank keeps its own, two rounds deep.

checkpoints = RankCheckpoints("checkpoints", group)
start = checkpoints.restore(model=model, optimizer=optimizer)      # 0 where there is nothing
for t in range(start + 1, last + 1):
    ...
    if t % 50 == 0:
        checkpoints.save(t, model=model, optimizer=optimizer)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from warnings import warn

import torch

from byzopt.checkpoint import check, load, packed, save, unpacked
from byzopt.distributed.agreement import share_error
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.header import hashed
from byzopt.errors import InvalidInput, require
from byzopt.files import clear_leftovers

DEPTH = 2


class Stateful(Protocol):
    """What has a state dict of tensors and plain data."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class RankCheckpoints:
    """A folder (shared by the ranks, or one on each machine) of files `rank-R-round-T.pt`.

    A rank writes only its own files, each at once or not at all, and reads only those, with their checksums
    and with `weights_only`. A job may die while some ranks have written a round and others not, and a file
    may be damaged, so the last two are kept, and all ranks go back to the newest round that every one of them
    has whole. A job may be started again with more or fewer ranks. Files of other names are left alone.

    Args:
        folder: Where the files are.
        group: Process group of the ranks; None: all.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> import torch.distributed as dist
        >>> from byzopt.distributed import RankCheckpoints
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> with TemporaryDirectory() as folder:
        ...     RankCheckpoints(folder).restore()  # nothing has been saved
        0
        >>> dist.destroy_process_group()
    """

    def __init__(self, folder: str | Path, group: Any = None) -> None:
        self.comm, self.folder = Communicator(group), Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"A place for checkpoints should be a folder. Found: {error}.") from None
        self._newest = max(self._rounds(), default=0)  # what lies beyond is of before the job went back

    def save(self, t: int, **parts: Stateful) -> None:
        """Write the states of these parts as those after round t, which is at least 1.

        Files of later rounds are from before the job went back to an earlier one, and are removed. Errors:
        `OSError` where the file cannot be written; then those before it are there.
        """
        require(t >= 1, "The round of a checkpoint", "be at least 1", t)
        clear_leftovers(self.folder, self._path(t).name)
        save(self._path(t), {name: part.state_dict() for name, part in parts.items()})
        mine = [old for old in self._rounds() if old <= self._newest or old == t]
        for old in set(self._rounds()) - set([old for old in mine if old <= t][-DEPTH:]):
            self._path(old).unlink(missing_ok=True)
            clear_leftovers(self.folder, self._path(old).name)
        self._newest = t

    def restore(self, **parts: Stateful) -> int:
        """Load the newest round that all ranks have whole into these parts; its number, 0 if there is none.

        A collective. Where there is no such round but one that more than half of those ranks have whole that
        have any file, ranks without it (new ones, in a job with more ranks than before, or those whose files
        are lost or damaged) take each part from the others: what most have alike, else that of the lowest
        rank. What an optimizer keeps for a rank alone, its momentum, starts afresh there. Files of ranks that
        there are no more are left alone.

        Warns, on all ranks, of damaged files on any of them (on the rank itself with the reason), and of
        ranks that took the states of others. Errors, on all ranks: `InvalidInput` where ranks have files but
        no such round, or for states that do not fit the parts.
        """
        whole, damaged = self._examined()
        local = torch.tensor([_padded(whole), _padded(damaged)], dtype=torch.int64, device="cpu")
        whole_by_rank, damaged_by_rank = (
            [set(line) - {0} for line in lines]
            for lines in zip(*self.comm.all_gather(local).tolist(), strict=True)
        )
        broken = [
            f"round {t} of rank {rank}" for rank, rounds in enumerate(damaged_by_rank) for t in sorted(rounds)
        ]
        t = _newest_round(whole_by_rank, damaged_by_rank)
        if not t and (any(whole_by_rank) or broken):
            listing = [f"rank {rank}: {sorted(rounds)}" for rank, rounds in enumerate(whole_by_rank)]
            raise InvalidInput(
                f"Checkpoints should be whole and of one round on all ranks. Found rounds "
                f"{'; '.join(listing)}{'; damaged: ' + ', '.join(broken) if broken else ''}. "
                f"Empty {self.folder} to start again."
            )
        holders = [rank for rank, rounds in enumerate(whole_by_rank) if t in rounds]
        lines = [f"Checkpoints are damaged: {', '.join(broken)}. Round {t} is restored."] if broken else []
        if t and len(holders) < self.comm.n:
            new = sorted(set(range(self.comm.n)) - set(holders))
            lines.append(f"Ranks {new} have no checkpoint of round {t} and take the states of others.")
        if lines:
            warn(" ".join([*lines, *damaged.values()]), stacklevel=2)
        if t:
            self._load(t, parts, holders)
        self._newest = t
        return t

    def _examined(self) -> tuple[list[int], dict[int, str]]:
        """Which of this rank's last rounds are whole, and what is wrong with those that are not."""
        whole, damaged = [], {}
        for t in self._rounds()[-DEPTH:]:
            try:
                check(self._path(t))
                whole.append(t)
            except InvalidInput as error:
                damaged[t] = str(error)
        return whole, damaged

    def _load(self, t: int, parts: Mapping[str, Stateful], holders: list[int]) -> None:
        mine = self.comm.rank in holders
        content = share_error(self.comm, lambda: self._content(t, parts) if mine else {})
        for name in sorted(parts):
            state = content.get(name) if len(holders) == self.comm.n else self._given(content, name, holders)
            share_error(self.comm, partial(self._fitted, t, name, parts[name], state))

    def _content(self, t: int, parts: Iterable[str]) -> dict[str, Any]:
        """This rank's states after round t."""
        content = load(self._path(t), f"Empty {self.folder} to start again.")
        for name in parts:
            held = sorted(map(str, content))
            require(name in content, f"Checkpoint {self._path(t)}", f"hold the state of {name!r}", held)
        return content

    def _given(self, content: Mapping[str, Any], name: str, holders: list[int]) -> Any:
        """A part's state: this rank's, if it is one of the `holders`, or that of most of them."""
        data = packed(content[name]) if name in content else b""
        marks = torch.tensor([len(data), hashed(data)], dtype=torch.float64, device="cpu")
        told = [tuple(line) for line in self.comm.all_gather(marks).tolist()]
        usual = Counter(told[rank] for rank in holders).most_common(1)[0][0]
        source = next(rank for rank in holders if told[rank] == usual)
        blank = torch.zeros(int(usual[0]), dtype=torch.uint8, device="cpu")
        own = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.comm.rank == source else blank
        sent = self.comm.broadcast(own, source).cpu().numpy().tobytes()
        return content[name] if name in content else unpacked(sent)

    def _fitted(self, t: int, name: str, part: Stateful, state: Any) -> None:
        try:
            part.load_state_dict(state)
        except Exception as error:  # of whatever kind the part's own loading raises
            reason = " ".join(str(error).split())
            raise InvalidInput(f"Checkpoint {self._path(t)} should fit {name!r}. Found: {reason}") from error

    def _path(self, t: int) -> Path:
        return self.folder / f"rank-{self.comm.rank}-round-{t}.pt"

    def _rounds(self) -> list[int]:
        """The rounds of which this rank has a file."""
        name = re.compile(rf"rank-{self.comm.rank}-round-([1-9][0-9]{{0,17}})\.pt")
        return sorted(int(match[1]) for path in self.folder.iterdir() if (match := name.fullmatch(path.name)))


def _padded(rounds: Iterable[int]) -> list[int]:
    """Rounds as `DEPTH` numbers, zeros where there are fewer."""
    return ([0] * DEPTH + sorted(rounds))[-DEPTH:]


def _newest_round(whole: list[set[int]], damaged: list[set[int]]) -> int:
    """The newest round that all ranks have whole, or else more than half of those with any file; 0: none."""
    common: set[int] = set.intersection(*whole)
    if common:
        return max(common)
    files = sum(bool(good or bad) for good, bad in zip(whole, damaged, strict=True))
    counts = Counter(t for rounds in whole for t in rounds)
    return max((t for t, count in counts.items() if 2 * count > files), default=0)
