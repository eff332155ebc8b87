"""Claims: who works on a run. A claim is a lock that the system gives back when its owner dies, however."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from byzopt.errors import InvalidInput
from byzopt.experiments.reading import parsed


class Claims:
    """Claims on several names, all or none. A context that gives back what it holds.

    Each name is a file in `folder` with an exclusive `flock`, which the kernel (on a network file system, its
    server) drops when the owner's process ends, so that no claim outlives its owner. The file is removed
    before the lock is given back; one that was removed while we waited for it does not count.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.held = folder, ExitStack()

    def take(self, names: Iterable[str]) -> bool:
        """Claim all these names, or none if one of them is somebody's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as taken:
            for name in names:
                claim = _claimed(self.folder / name)
                if claim is None:
                    return False
                taken.callback(_give_back, self.folder / name, claim)
            self.held.push(taken.pop_all())
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.held.close()


def owner(folder: Path, name: str) -> dict[str, Any] | None:
    """Who holds a claim now: `pid`, `host`, `since`; None where nobody does."""
    try:
        handle = os.open(folder / name, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with suppress(InvalidInput, OSError):
            return parsed(os.read(handle, 1000), dict[str, Any])
        return {}
    finally:
        os.close(handle)
    return None


def _claimed(path: Path) -> int | None:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        if _same(handle, path):
            break
        os.close(handle)  # its last owner removed the file between our two calls
    told = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat()}
    with suppress(OSError):  # for people only; a full disk is noticed where it matters
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(told).encode())
    return handle


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _give_back(path: Path, handle: int) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
    os.close(handle)
