"""A state of tensors and numbers in a Context's records, where it stays with the client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from byzopt.states import freeze, thaw

TENSORS, NUMBERS = "byzopt-tensors", "byzopt-numbers"


def save_state(records: RecordDict, state: Any) -> None:
    """Write `state`; its leaves are numbered in order, and which kind each is follows from its record."""
    tensors, numbers = {}, {}
    for place, leaf in enumerate(_leaves(freeze(state))):
        if isinstance(leaf, Tensor):
            tensors[str(place)] = Array(np.array(leaf.detach().cpu().numpy()))
        elif leaf is not None:
            numbers[str(place)] = leaf
    records[TENSORS] = ArrayRecord(tensors)
    records[NUMBERS] = ConfigRecord(numbers)


def load_state(records: RecordDict, like: Any) -> Any | None:
    """The state that `save_state` wrote, in the structure of `like`; None where there is none.

    Errors: `InvalidInput` when it does not fit, for instance because the method has changed.
    """
    if TENSORS not in records or NUMBERS not in records:
        return None
    tensors, numbers = records[TENSORS], records[NUMBERS]

    def leaf(place: int) -> Any:
        if str(place) in tensors:
            return torch.from_numpy(np.array(tensors[str(place)].numpy()))
        return numbers.get(str(place))

    count = iter(range(len(list(_leaves(freeze(like))))))
    return thaw(_rebuilt(freeze(like), count, leaf), like)


def _leaves(frozen: Any) -> Iterator[Any]:
    if isinstance(frozen, tuple):
        for part in frozen:
            yield from _leaves(part)
    else:
        yield frozen


def _rebuilt(frozen: Any, places: Iterator[int], leaf: Any) -> Any:
    if isinstance(frozen, tuple):
        return tuple(_rebuilt(part, places, leaf) for part in frozen)
    return leaf(next(places))
