"""Data sets in memory: whoever asks for one that somebody holds gets the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec
from weakref import WeakValueDictionary

from torch import Tensor

from byzopt.tasks.data.store import roots

P = ParamSpec("P")
Tensors = tuple[Tensor, ...]


def share_while_used(load: Callable[P, Tensors]) -> Callable[P, Tensors]:
    """`load`, called once for equal arguments as long as all its tensors are in use somewhere.

    They must not be written to. Nothing is kept alive for its own sake; in another data directory the data
    are loaded anew.
    """
    held: WeakValueDictionary[tuple[object, ...], Tensor] = WeakValueDictionary()
    lengths: dict[tuple[object, ...], int] = {}

    @wraps(load)
    def once(*args: P.args, **kwargs: P.kwargs) -> Tensors:
        key = (*args, *sorted(kwargs.items()), *roots())
        tensors = [held.get((key, i)) for i in range(lengths.get(key, 0))]
        there = tuple(part for part in tensors if part is not None)
        if not there or len(there) < len(tensors):
            there = load(*args, **kwargs)
            lengths[key] = len(there)
            for i, part in enumerate(there):
                held[key, i] = part
        return there

    return once
