"""Products of n x n numbers, in which what is equal stays so to the last bit."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from byzopt import kernels

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Index: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"
Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

WHOLE = 256  # rows up to which n x n numbers fit the cache, and are best worked on at once
_ROWS = 32  # of more, worked on at a time
_LARGE = 1e30  # products up to which float32 holds sums of them


def chained(left: Array, right: Array) -> Array:
    """`left @ right`, `[m, k], [k, n] -> [m, n]`: for up to `WHOLE` rows each number is summed alike."""
    few = max(right.shape) <= WHOLE and kernels.decides(max(right.shape))
    return kernels.matrix_product(left, right) if few else left @ right


def congruent(mixing: Array, gram: Array, single: bool = False) -> Array:
    """mixing @ gram @ mixing^T, symmetric, with rows that are mixed alike made equal to the last bit.

    A product may be summed in another order for another place, and rounding must not set twins apart. `gram`
    is finite. Where its numbers are of `single` precision, sums of them may be too (`_by_deviations`).
    """
    if mixing.ndim == 2 and len(mixing) > WHOLE:
        return _congruent_many(mixing, gram, single)
    product = mixing @ gram @ mixing.swapaxes(-1, -2)
    first = _first_alike(mixing)
    if (first != np.arange(first.shape[-1])).any():
        product = np.take_along_axis(product, first[..., :, None], axis=-2)
        product = np.take_along_axis(product, first[..., None, :], axis=-1)
    symmetric: Array = (product + product.swapaxes(-1, -2)) / 2
    return symmetric


def mixed_ways(mixing: Array, ways: Array) -> Array:
    """`mixing @ ways`, `[m, n], [n, d] -> [m, d]`, of rows that are mixed alike equal to the last bit."""
    product = (torch.from_numpy(mixing) @ torch.from_numpy(ways)).numpy()
    chosen = _even_shares(mixing)
    first, same = twins(mixing if chosen is None else np.packbits(chosen, axis=1))
    product[same] = product[first[same]]
    return product


def _congruent_many(mixing: Array, gram: Array, single: bool) -> Array:
    """As above, for many rows."""
    fitting = len(gram) > WHOLE and kernels.supports(torch.from_numpy(gram))
    chosen = _even_shares(mixing) if fitting else None
    if chosen is None:
        product = _mirrored(torch.from_numpy(mixing), torch.from_numpy(gram))
    else:
        product = _by_deviations(chosen, gram, float(mixing.max()), single and gram.diagonal().max() < _LARGE)
    first, same = twins(mixing if chosen is None else np.packbits(chosen, axis=1))
    return _as_first(product, first) if len(same) else product


def _as_first(product: Array, first: Index) -> Array:
    """`product` with what stands for the row `first[i]` in the place of row i, and of column i."""
    out = np.empty_like(product)

    def part(start: int, stop: int) -> None:
        for i in range(start, stop, _ROWS):
            rows = slice(i, min(i + _ROWS, stop))
            out[rows] = product[first[rows]].take(first, axis=1)

    kernels.parallel_for(len(out), out.size, _ROWS, part)
    return out


def twins(mixing: Any) -> tuple[Index, Index]:
    """For each row of `mixing` `[m, n]` the place of the first that equals it, and the places where that is
    another one."""
    first = _first_alike(mixing)
    return first, (first != np.arange(len(first))).nonzero()[0]


def _even_shares(mixing: Array) -> Mask | None:
    """Which entries of `mixing` are not 0, where all these are equal: its rows are sums of even shares."""
    share: float = mixing.max()
    chosen: Mask = mixing != 0
    blocks = (slice(i, i + _ROWS) for i in range(0, len(mixing), _ROWS))
    return chosen if all(np.array_equal(mixing[rows], chosen[rows] * share) for rows in blocks) else None


def _by_deviations(chosen: Mask, gram: Array, share: float, single: bool) -> Array:
    """`share`² `chosen @ gram @ chosen^T` for bools, by where each row differs from what most rows choose.

    With u that choice and chosen = 1 u^T + D, D of 1, -1 and mostly 0, the product is D G D^T + 1 (D G u)^T +
    (D G u) 1^T + u^T G u: rows are seen from the sum of the usual ones, which is of the bulk. As in the full
    product, what a row does not choose and is not usual has no part in its numbers, however huge it is. What
    two rows share is not summed at all.

    Products that were multiplied in a `single` precision, 256 columns at a time, are off by up to 256 of its
    roundings of the rows' lengths. So are sums of them, and adding 256 of them at a time in that precision,
    twice, makes it three times as much at most.
    """
    usual = 2 * np.add.reduce(chosen, axis=0, dtype=np.int32) > len(chosen)
    dtype = torch.float32 if single else torch.float64
    moved, product = kernels.signed_products(chosen ^ usual, usual, gram, dtype)
    shares = usual.astype(np.float64)
    lean, level = moved @ shares, shares @ gram @ shares

    def part(start: int, stop: int) -> None:
        for i in range(start, stop, _ROWS):
            rows = slice(i, min(i + _ROWS, stop))
            product[rows] += lean[rows, None] + lean
            product[rows] += level
            product[rows] *= share**2

    kernels.parallel_for(len(product), product.size, _ROWS, part)
    return product


def _mirrored(mixing: Tensor, gram: Tensor) -> Array:
    """The full product: of two blocks of it that mirror each other one is taken."""
    left = mixing @ gram
    out = torch.empty(len(left), len(left), dtype=torch.float64, device="cpu")
    for start in range(0, len(left), WHOLE):
        block = slice(start, start + WHOLE)
        tile = left[start:] @ mixing[block].T
        tile[:WHOLE] = (tile[:WHOLE] + tile[:WHOLE].T) / 2
        out[start:, block] = tile
        out[block, start:] = tile.T
    return out.numpy()


def _first_alike(mixing: Any) -> Index:
    """For each row of `mixing` `[..., m, n]` the place of the first row that equals it."""
    if mixing.ndim > 2:
        alike = (mixing[..., :, None, :] == mixing[..., None, :, :]).all(axis=-1)
        return cast(Index, alike.argmax(axis=-1))
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(row.tobytes(), i) for i, row in enumerate(mixing + 0.0)])  # no -0.0
