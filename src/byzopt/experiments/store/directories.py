"""Directories that a user names for output: checked before any work, and what to say when writing fails."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from byzopt.errors import InvalidInput

FULL = (errno.ENOSPC, errno.EDQUOT)
AGAIN = "Free some space and run the same command again."
_INSIDE = 64  # bytes of the longest name of a file in it
_USUAL = 255  # bytes of a name, where the system does not say


def check_directory(path: Path, option: str) -> None:
    """Raise `InvalidInput` unless `path` is a directory that can be written to, or can be made one.

    Nothing is written. The nearest directory that exists is asked, and every name below it is looked at.
    """
    try:
        _asked(path)
    except (OSError, ValueError) as error:
        shown = str(path) if len(str(path)) <= _USUAL else f"{str(path)[:_USUAL]}..."
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(
            f"Directory {shown} should be writable. Found: {reason}. Choose another {option}."
        ) from None


@contextmanager
def explain_refused_writes(
    path: Path,
    remedy: str,
    full: str = AGAIN,
    what: str = "Directory",
    error: type[InvalidInput] = InvalidInput,
) -> Iterator[None]:
    """In here what the system refuses is an `error` with a `remedy`, and another one for a `full` disk."""
    try:
        yield
    except OSError as refused:
        advice = full if refused.errno in FULL else remedy
        reason = refused.strerror or refused
        raise error(f"{what} {path} should be writable. Found: {reason}. {advice}") from None


def _asked(path: Path) -> None:
    above, missing = path, list[str]()
    while not _is_there(above) and above != above.parent:
        missing.append(above.name)
        above = above.parent
    found = above.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise OSError("it is no directory" if above == path else f"{above} is no directory")
    if found.st_nlink == 0:  # the working directory, removed
        raise OSError(os.strerror(errno.ENOENT))
    longest = os.pathconf(above, "PC_NAME_MAX") if hasattr(os, "pathconf") else _USUAL
    if any(len(os.fsencode(name)) > longest for name in missing):
        raise OSError(os.strerror(errno.ENAMETOOLONG))
    _is_there(path / ("x" * _INSIDE))  # says whether the whole path is too long
    if not os.access(above, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        readonly = sys.platform != "win32" and os.statvfs(above).f_flag & os.ST_RDONLY
        raise OSError(os.strerror(errno.EROFS if readonly else errno.EACCES))


def _is_there(path: Path) -> bool:
    """Whether a path leads to something. Errors: `OSError` where the way to it is none."""
    try:
        path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(f"{path} is a link that leads nowhere") from None
        return False
    return True
