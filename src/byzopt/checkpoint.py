"""Checkpoints: plain nested data in a file that is written at once and read with its checksum.

A state's structure (which named tuple stands where, each tensor's shape and dtype) is not in the file: it is
that of a template, the state after round 1 of the same run (`states.thaw`).
"""

from __future__ import annotations

import io
from hashlib import file_digest, sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from byzopt.errors import InvalidInput, require
from byzopt.files import opened, write_atomically

_MAGIC = b"byzopt checkpoint 1\n"
_DIGEST = 32
_DAMAGE = "damage: its checksum is wrong"
# What torch raises for a pickle of more than plain data, none of which it runs, and for what is no archive.
_REFUSED = (
    UnpicklingError,
    BadZipFile,
    NotImplementedError,
    RuntimeError,
    OSError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` (plain data and tensors) to `path`, at once or not at all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getbuffer()
    write_atomically(path, _MAGIC, sha256(body).digest(), body)


def packed(content: Any) -> bytes:
    """Plain data and tensors as bytes, the same for the same content."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def unpacked(data: bytes) -> Any:
    """The inverse of `packed`; nothing but plain data and tensors is ever loaded."""
    return torch.load(io.BytesIO(data), weights_only=True)


def load(path: Path, remedy: str = "Remove the file to start again.") -> dict[str, Any]:
    """What `save` wrote; only plain data and tensors are ever loaded. Errors: `InvalidInput`, which names the
    file, for damage and for anything else in it."""
    try:
        with opened(path) as file:
            magic, told, body = file.read(len(_MAGIC)), file.read(_DIGEST), file.read()
    except OSError as error:
        raise _unusable(path, error.strerror or error, remedy) from None
    if magic != _MAGIC or sha256(body).digest() != told:
        raise _unusable(path, _DAMAGE, remedy)
    try:
        with ZipFile(io.BytesIO(body)) as archive:
            unfolded = sum(one.file_size for one in archive.infolist())
        require(unfolded <= len(body), "A checkpoint", "hold what it is long for", f"{unfolded:,} bytes")
        content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except _REFUSED as error:
        raise _unusable(path, f"{type(error).__name__} in it, as if others wrote it", remedy) from None
    if not isinstance(content, dict):
        raise _unusable(path, f"a {type(content).__name__}", remedy)
    return content


def check(path: Path, remedy: str = "") -> None:
    """Verify the checksum of what `save` wrote, and load nothing. Errors: `InvalidInput`, as for `load`."""
    try:
        with opened(path) as file:
            magic, told = file.read(len(_MAGIC)), file.read(_DIGEST)
            whole = magic == _MAGIC and file_digest(file, "sha256").digest() == told
    except OSError as error:
        raise _unusable(path, error.strerror or error, remedy) from None
    if not whole:
        raise _unusable(path, _DAMAGE, remedy)


def _unusable(path: Path, found: object, remedy: str) -> InvalidInput:
    return InvalidInput(f"Checkpoint {path} should be as byzopt wrote it. Found {found}. {remedy}".rstrip())
