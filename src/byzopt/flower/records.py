"""Flower's records and byzopt's vectors: a model as an ArrayRecord and as one vector with a layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor, nn

from byzopt.errors import require
from byzopt.layout import Layout

ARRAYS, METRICS, CONFIG, ORDERS = "arrays", "metrics", "config", "byzopt"  # records in messages
DTYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}


class Point(NamedTuple):
    """A vector `[d]` and the names and shapes of what it holds."""

    x: Tensor
    layout: Layout


def arrays_of(module: nn.Module) -> ArrayRecord:
    """A module's parameters for `initial_arrays`. Buffers are no part of what is learned, and left out."""
    return ArrayRecord({name: _array(p.detach()) for name, p in module.named_parameters()})


def written(x: Tensor, layout: Layout) -> ArrayRecord:
    """`x` `[d]` as named arrays."""
    return ArrayRecord({name: _array(view) for name, view in layout.views(x).items()})


def read(arrays: ArrayRecord, names: Sequence[str] | None = None) -> Point:
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


def _array(tensor: Tensor) -> Array:
    return Array(np.ascontiguousarray(tensor.cpu().numpy()).reshape(tensor.shape))
