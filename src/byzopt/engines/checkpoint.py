"""Checkpoints: states as plain nested tuples in a file that is written at once and read with its checksum.

A state's structure (which named tuple stands where, each tensor's shape and dtype) is not in the file: it is
that of a template, the state after round 1 of the same run. What does not fit the template is refused.
"""

from __future__ import annotations

import io
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from byzopt.errors import InvalidInput
from byzopt.files import write_atomically
from byzopt.states import freeze, thaw

__all__ = ["freeze", "load", "save", "thaw"]

_MAGIC = b"byzopt checkpoint 1\n"
_DIGEST = 32


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` (plain data and tensors) to `path`, at once or not at all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getbuffer()
    write_atomically(path, _MAGIC, sha256(body).digest(), body)


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
