"""States: nested tuples of tensors and numbers, walked in one place; as plain data and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from byzopt.errors import InvalidInput
from byzopt.layout import Layout


class StructureError(Exception):
    """States of different structures: where one has `expected`, another has `found`."""

    def __init__(self, expected: Any, found: Any) -> None:
        super().__init__(f"{_kind(found)} in place of {_kind(expected)}")
        self.expected, self.found = expected, found


def map_leaves(change: Callable[..., Any], state: Any, *others: Any) -> Any:
    """`state` with `change(leaf, *leaves of the others)` in place of every leaf: of all that is no tuple.

    Named tuples stay what they are in `state`. The others have its structure, as named or as plain tuples.
    Errors: `StructureError` where they have not.
    """
    if not isinstance(state, tuple):
        return change(state, *others)
    for other in others:
        if not isinstance(other, tuple) or len(other) != len(state):
            raise StructureError(state, other)
    parts = [map_leaves(change, *part) for part in zip(state, *others, strict=True)]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


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
    try:
        return map_leaves(_thawed, like, frozen)
    except StructureError as error:
        raise InvalidInput(
            f"A checkpoint should fit the run it continues. Found {error}. "
            "Remove the checkpoint to start the run again."
        ) from None


def _thawed(like: Any, frozen: Any) -> Any:
    if isinstance(like, Layout) or callable(like):
        return like
    if type(frozen) is not type(like):
        raise StructureError(like, frozen)
    if not isinstance(like, Tensor):
        return frozen
    if (frozen.shape, frozen.dtype) != (like.shape, like.dtype):
        raise StructureError(like, frozen)
    return frozen.to(like.device)


def _kind(part: Any) -> str:
    if isinstance(part, Tensor):
        return f"a tensor {list(part.shape)} of {part.dtype}"
    return f"a tuple of {len(part)}" if isinstance(part, tuple) else type(part).__name__
