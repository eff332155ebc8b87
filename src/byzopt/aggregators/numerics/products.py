"""Products of n x n numbers, in which what is equal stays so to the last bit."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from byzopt import kernels
from byzopt.kernels import FEW

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Index: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"


def chained(left: Array, right: Array) -> Array:
    """`left @ right`, `[m, k], [k, n] -> [m, n]`: for up to `FEW` rows each number is summed alike."""
    return kernels.matrix_product(left, right) if kernels.decides(max(right.shape)) else left @ right


def congruent(mixing: Array, gram: Array) -> Array:
    """mixing @ gram @ mixing^T, symmetric, with rows that are mixed alike made equal to the last bit.

    A product may be summed in another order for another place, and rounding must not set twins apart.
    """
    if mixing.ndim == 2 and len(mixing) > FEW:
        product = _mirrored(torch.from_numpy(mixing), torch.from_numpy(gram)).numpy()
    else:
        product = mixing @ gram @ mixing.swapaxes(-1, -2)
    first = _first_alike(mixing)
    if (first != np.arange(first.shape[-1])).any():
        product = np.take_along_axis(product, first[..., :, None], axis=-2)
        product = np.take_along_axis(product, first[..., None, :], axis=-1)
    symmetric: Array = (product + product.swapaxes(-1, -2)) / 2
    return symmetric


def _mirrored(mixing: Tensor, gram: Tensor) -> Tensor:
    """As above, for many rows: of two blocks of the product that mirror each other one is taken."""
    left = mixing @ gram
    out = torch.empty(len(left), len(left), dtype=torch.float64, device="cpu")
    for start in range(0, len(left), FEW):
        block = slice(start, start + FEW)
        out[block, start:] = left[block] @ mixing[start:].T
        out[start:, block] = out[block, start:].T
    return out


def _first_alike(mixing: Array) -> Index:
    """For each row of `mixing` `[..., m, n]` the place of the first row that equals it."""
    if mixing.ndim > 2:
        alike = (mixing[..., :, None, :] == mixing[..., None, :, :]).all(axis=-1)
        return cast(Index, alike.argmax(axis=-1))
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(row.tobytes(), i) for i, row in enumerate(mixing + 0.0)])  # no -0.0
