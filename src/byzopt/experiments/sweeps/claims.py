"""Claims: who works on a run. A claim is a lock that the system gives back when its owner dies, however."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import lock_descriptor

from byzopt.errors import InvalidInput
from byzopt.experiments.store.reading import parse_json

_LOCKED = 1  # bytes at a claim's beginning that Windows lets nobody else read while the lock is held


class Claims:
    """Claims on several names, all or none. A context that gives back what it holds.

    Each name is a file in `folder` with an exclusive lock of the operating system, which drops it when the
    owner's process ends (on a network file system, its server does), so that no claim outlives its owner.
    The file is removed before the lock is given back; one that was removed while we waited for it does not
    count. Windows removes no open file: there it is removed afterwards, unless somebody has opened it.
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


def claim_owner(folder: Path, name: str) -> dict[str, Any] | None:
    """Who holds a claim now: `pid`, `host`, `since`; None where nobody does."""
    try:
        handle = os.open(folder / name, os.O_RDWR)
    except OSError:
        return None
    try:
        if lock_descriptor(handle, blocking=False):
            return None
        with suppress(InvalidInput, OSError):
            os.lseek(handle, _LOCKED, os.SEEK_SET)
            return parse_json(os.read(handle, 1000), dict[str, Any])
        return {}
    finally:
        os.close(handle)


def _claimed(path: Path) -> int | None:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not lock_descriptor(handle, blocking=False):
                os.close(handle)
                return None
        except OSError:
            os.close(handle)
            raise
        if _same(handle, path):
            break
        os.close(handle)  # its last owner removed the file between our two calls
    owner = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat()}
    with suppress(OSError):  # for people only; a full disk is noticed where it matters
        os.ftruncate(handle, 0)
        os.write(handle, b" " * _LOCKED + json.dumps(owner).encode())
    return handle


def _same(handle: int, path: Path) -> bool:
    try:
        return sys.platform == "win32" or os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _give_back(path: Path, handle: int) -> None:
    if sys.platform == "win32":
        os.close(handle)
    with suppress(OSError if sys.platform == "win32" else FileNotFoundError):
        path.unlink()
    if sys.platform != "win32":
        os.close(handle)
