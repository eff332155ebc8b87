"""States as plain data and back: nested tuples of tensors and numbers, whose structure a template knows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from byzopt.errors import InvalidInput
from byzopt.layout import Layout


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


def _misfit(like: Any, found: Any) -> InvalidInput:
    return InvalidInput(
        f"A checkpoint should fit the run it continues. Found {_kind(found)} in place of {_kind(like)}. "
        "Remove the checkpoint to start the run again."
    )


def _kind(part: Any) -> str:
    if isinstance(part, Tensor):
        return f"a tensor {list(part.shape)} of {part.dtype}"
    return f"a tuple of {len(part)}" if isinstance(part, tuple) else type(part).__name__
