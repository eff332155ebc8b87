"""Flower's records and byzopt's vectors: a model as an ArrayRecord and as one vector with a layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord
from torch import Tensor, nn

from byzopt.errors import require
from byzopt.layout import Layout

ARRAYS, METRICS, CONFIG = "arrays", "metrics", "config"  # Flower's own names of records in messages
BYZOPT = (
    "byzopt"  # the record by which requests and replies between `RobustStrategy` and `client_app` are known
)
PROTOCOL = 1  # its version: raised whenever requests or replies of older releases would be misread
GRADIENTS = "gradients"  # what a reply of `client_app` says that it holds
DTYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}


class Point(NamedTuple):
    """A vector `[d]` and the names and shapes of what it holds."""

    x: Tensor
    layout: Layout


def arrays_of(module: nn.Module) -> ArrayRecord:
    """A module's parameters for `initial_arrays` of `RobustStrategy`. Buffers have no gradient, and are left
    out; `RobustFedAvg` takes the whole `ArrayRecord(module.state_dict())`.

    Args:
        module: The model.

    Returns:
        Its parameters by name.

    Examples:
        >>> import torch
        >>> from byzopt.flower import arrays_of
        >>> list(arrays_of(torch.nn.Linear(2, 1)))
        ['weight', 'bias']
    """
    return ArrayRecord({name: as_array(p.detach()) for name, p in module.named_parameters()})


def to_arrays(x: Tensor, layout: Layout) -> ArrayRecord:
    """`x` `[d]` as named arrays."""
    return ArrayRecord({name: as_array(view) for name, view in layout.views(x).items()})


def to_point(arrays: ArrayRecord, names: Sequence[str] | None = None) -> Point:
    """The vector that trusted arrays hold, in the order of `names` (default: their own).

    Errors: `InvalidInput` for no arrays, several dtypes, or one other than float16, float32 or float64.
    """
    names = list(arrays) if names is None else names
    kinds = sorted({arrays[name].dtype for name in names})
    require(
        len(kinds) == 1 and kinds[0] in DTYPES,
        "The arrays of a model",
        "be float16, float32 or float64, all the same",
        kinds,
        "Leave out buffers and counters, as `byzopt.flower.arrays_of(module)` does.",
    )
    tensors = {name: torch.from_numpy(np.array(arrays[name].numpy())) for name in names}
    layout = Layout.of(tensors)
    return Point(layout.flatten(tensors), layout)


def as_array(tensor: Tensor) -> Array:
    """A tensor as Flower's array, with its shape also where it is a number."""
    return Array(np.ascontiguousarray(tensor.cpu().numpy()).reshape(tensor.shape))


def protocol_mark() -> ConfigRecord:
    """What makes a reply one of `client_app`."""
    return ConfigRecord({"protocol": PROTOCOL, "content": GRADIENTS})
