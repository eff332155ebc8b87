"""Checkpoints: states as plain nested tuples in a file that is written at once and read with its checksum.

A state's structure (which named tuple stands where, each tensor's shape and dtype) is not in the file: it is
that of a template, the state after round 1 of the same run. What does not fit the template is refused.
"""

from __future__ import annotations

import io
import os
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from byzopt.errors import InvalidInput
from byzopt.states import freeze, thaw

__all__ = ["freeze", "load", "save", "thaw", "write_atomically"]

_MAGIC = b"byzopt checkpoint 1\n"
_DIGEST = 32


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` (plain data and tensors) to `path`, at once or not at all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getvalue()
    write_atomically(path, _MAGIC + sha256(body).digest() + body)


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote; only plain data and tensors are ever loaded. Errors: `InvalidInput` for damage."""
    raw = path.read_bytes()
    start = len(_MAGIC) + _DIGEST
    body = raw[start:]
    if not raw.startswith(_MAGIC) or sha256(body).digest() != raw[len(_MAGIC) : start]:
        raise InvalidInput(
            f"Checkpoint {path} should be as byzopt wrote it. Found damage: its checksum is wrong. "
            "Remove the file to start the run again."
        )
    content: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file by way of a temporary one beside it: readers see the old content or the new."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a file that a power cut left half written would have the right name
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
