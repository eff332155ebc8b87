"""Files that appear at once, with the modes that the user's umask gives, and files read with a bound.

A file is written by way of a temporary one beside it. Its writer holds a lock on that one, which the system
drops when the writer dies, however: so `clear_leftovers` tells what a killed writer left from what somebody
is writing now.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from io import BufferedReader
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from filelock import lock_descriptor

_TOKEN = 4  # random bytes, two letters each, that end a temporary name
_LONGEST = 200  # bytes of a name that a temporary one repeats; file systems take 255


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file of these parts, one after the other: readers see the old content or the new.

    Errors: `OSError`; then the old content is there, and nothing else.
    """
    with _temporary(path) as (name, file):
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())  # a file that a power cut left half written would have the right name
        if sys.platform == "win32":
            file.close()  # an open file cannot be renamed there
        os.replace(name, path)


def write_directory(path: Path, contents: Mapping[str, bytes], replace: bool = False) -> None:
    """Make a directory of these files, at once or not at all; with `replace` it takes the place of another.

    Errors: `OSError`; then nothing has changed.
    """
    staged = _new_directory(path)
    try:
        for name, content in contents.items():
            write_atomically(staged / name, content)
        if replace:
            remove_directory(path)
        os.replace(staged, path)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def remove_directory(path: Path) -> None:
    """Remove a directory, at once, if there is one. Errors: `OSError`."""
    if path.exists():
        gone = _new_directory(path)
        os.replace(path, gone / "gone")
        shutil.rmtree(gone)


def clear_directories(path: Path) -> None:
    """Remove what killed writers of a directory left, of whom there is none now. Errors: `OSError`."""
    for old in path.parent.glob(f".{escape(path.name)}.*"):
        shutil.rmtree(old)


def clear_leftovers(folder: Path, name: str) -> None:
    """Remove temporary files of `name` in `folder` whose writers are gone. What cannot be removed stays.
    On Windows everything does: a file being written has no lock there at the moment when it is renamed."""
    for path in folder.glob(f".{escape(name)}.{'?' * 2 * _TOKEN}"):
        with suppress(OSError):
            handle = os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0))
            try:
                if sys.platform != "win32" and _locked(handle, alone=True):
                    path.unlink()
            finally:
                os.close(handle)


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A file to read. Errors: `OSError`, also for what is no regular file: a pipe would be waited for."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def read(path: Path, most: int) -> bytes:
    """The content of a file of at most `most` bytes. Errors: those of `opened`; `ValueError` for more."""
    with opened(path) as file:
        long = os.fstat(file.fileno()).st_size > most
        content = b"" if long else file.read(most + 1)
    if long or len(content) > most:
        raise ValueError(f"it is larger than {most:,} bytes")
    return content


def exists(path: Path) -> bool:
    """Whether there is such a file. Errors: `OSError` where that cannot be told, which is no "no"."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside `path`, locked by us, and removed if it has not been renamed in the end."""
    while True:
        name = _hidden(path)
        # The system's own way of making a file: umask and default access lists hold.
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        if _locked(handle, alone=False) and name.exists():
            break
        os.close(handle)  # somebody took it for a leftover between our two calls
    with os.fdopen(handle, "wb") as file:
        try:
            yield name, file
        except BaseException:
            with suppress(OSError):
                name.unlink()
            raise


def _new_directory(beside: Path) -> Path:
    """A new hidden directory beside `beside`, to be filled and then renamed to it."""
    place = _hidden(beside)
    place.mkdir()
    return place


def _hidden(path: Path) -> Path:
    stem = os.fsdecode(os.fsencode(path.name)[:_LONGEST])
    return path.with_name(f".{stem}.{token_hex(_TOKEN)}")


def _locked(handle: int, alone: bool) -> bool:
    """Whether this file is ours: to write, which any system grants that knows no locks, or to remove."""
    try:
        return lock_descriptor(handle, blocking=False)
    except OSError:  # a file system without locks
        return not alone
