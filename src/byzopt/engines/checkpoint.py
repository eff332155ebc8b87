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
from torch import Tensor

from byzopt.errors import InvalidInput
from byzopt.layout import Layout

_MAGIC = b"byzopt checkpoint 1\n"
_DIGEST = 32


def freeze(state: Any) -> Any:
    """`state` as plain tuples, tensors, numbers and None; a Layout and a function are part of the template
    and left out."""
    if isinstance(state, Layout) or callable(state):
        return None
    if isinstance(state, tuple):
        return tuple(freeze(part) for part in state)
    return state.detach() if isinstance(state, Tensor) else state


def thaw(frozen: Any, like: Any) -> Any:
    """The inverse of `freeze`, in the structure of `like` and on its devices.

    Errors: `InvalidInput` where a part has another kind, length, shape or dtype than in `like`.
    """
    if isinstance(like, Layout) or callable(like):
        return like
    if isinstance(like, tuple):
        if not isinstance(frozen, tuple) or len(frozen) != len(like):
            raise _misfit(like, frozen)
        parts = [thaw(part, model) for part, model in zip(frozen, like, strict=True)]
        return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)
    if type(frozen) is not type(like):
        raise _misfit(like, frozen)
    if not isinstance(like, Tensor):
        return frozen
    if (frozen.shape, frozen.dtype) != (like.shape, like.dtype):
        raise _misfit(like, frozen)
    return frozen.to(like.device)


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


def _misfit(like: Any, found: Any) -> InvalidInput:
    return InvalidInput(
        f"A checkpoint should fit the run it continues. Found {_kind(found)} in place of {_kind(like)}. "
        "Remove the checkpoint to start the run again."
    )


def _kind(part: Any) -> str:
    if isinstance(part, Tensor):
        return f"a tensor {list(part.shape)} of {part.dtype}"
    return f"a tuple of {len(part)}" if isinstance(part, tuple) else type(part).__name__
