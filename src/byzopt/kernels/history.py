"""Sums of rows round after round, and all that tests on them ask for, in one pass over rows and sums.

A block of columns at a time: rows are scaled, centred and multiplied, added to the sums, and these centred
and multiplied in turn, all while the block is in the cache. Large sums are written past it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from byzopt.kernels.gram import TILE, block_width
from byzopt.kernels.history_pass import Parts, history_pass
from byzopt.kernels.jit import Array, address, lanes, parallel_for

_PAST = 1 << 22  # numbers of sums that would not stay in the cache until the next round
_BLOCK_BYTES = 1 << 18  # of rows at a time: the sums pass through the cache too


class Walk(NamedTuple):
    """Points `[d]` of the rows' dtype: where workers were asked, and where the sums began."""

    x: Tensor
    home: Tensor


class Grown(NamedTuple):
    """What one pass found, in float64; zeros where it was not asked for.

    `rows`: products `[n, n]` of scaled rows about the centre; `lengths` `[n]`: their squared lengths about
    the origin. `sums`: products of the new sums about one of them; `sizes`: their squared lengths. `along`:
    products of centred rows with the walk x - home; `path`: its squared length.
    """

    rows: Array
    lengths: Array
    sums: Array
    sizes: Array
    along: Array
    path: float


def fused_history(
    rows: Tensor,
    factors: Array,
    centre: Tensor | None = None,
    walk: Walk | None = None,
    weights: Array | None = None,
    mixed: Tensor | None = None,
    old: Tensor | None = None,
    out: Tensor | None = None,
    pivot: int = 0,
    moved: bool = False,
) -> Grown:
    """One pass over usable `rows` `[n, d]`: row i times `factors[i]`. Rows of factor 0 count as 0, unread.

    With `weights` `[n]`: Σ weights[i] rows[i], unscaled, of the rows that are read, into `mixed` `[d]`. With
    `out` `[n, d]`: `old` (None: 0) + rows there, these about `centre` `[d]` if `moved`, and products about
    sum `pivot`. All are of the rows' dtype. Blocks are summed in it, then in float64, all products in one
    order: equal rows have equal products. What is not finite shows in `lengths`, `sizes` and on diagonals.
    """
    n, d = rows.shape
    points = [one for one in (centre, mixed, *(walk or ())) if one is not None]
    tables = [one for one in (old, out) if one is not None]
    if any(one.shape != (d,) for one in points) or any(one.shape != (n, d) for one in tables):
        raise ValueError(
            "Points should be [d] and sums [n, d], as rows are."
        )  # machine code reads beyond them
    if any(one.dtype != rows.dtype or one.stride(-1) != 1 for one in (*points, *tables)):
        raise ValueError(f"Points and sums should be {rows.dtype} of unit stride, as rows are.")
    factors = np.ascontiguousarray(factors, dtype=np.float64)
    shares = np.zeros(n) if weights is None else np.ascontiguousarray(weights, dtype=np.float64)
    summed, past = out is not None, rows.numel() >= _PAST
    centred, older = centre is not None, summed and old is not None
    parts = Parts(centred, centred and moved, walk is not None, mixed is not None, summed, older, past)
    run, tall, size = history_pass(rows.dtype, parts), -(-n // TILE) * TILE, rows.element_size()
    found: dict[int, tuple[Array, Array]] = {}

    def piece(start: int, stop: int) -> None:
        block = block_width(tall, rows.dtype, stop - start, _BLOCK_BYTES)
        # A line more than there are rows: the sum that others are about. And the walk, in float64.
        room = np.empty((tall + 1) * block * size // 8 + block)
        products, numbers = np.zeros((2, tall, tall)), np.zeros((3, n + 1))
        found[start] = products, numbers
        points = _place(centre), *(_place(one) for one in walk or (None, None))
        where = (rows.data_ptr(), rows.stride(0), address(factors), *points, address(shares), _place(mixed))
        sums = (
            _place(old),
            0 if old is None else old.stride(0),
            _place(out),
            0 if out is None else out.stride(0),
        )
        results = address(room), address(products[0]), address(products[1]), address(numbers)
        run(*where, *sums, pivot, *results, n, tall, block, start, stop)

    parallel_for(d, rows.numel(), lanes(rows.dtype), piece)
    products, numbers = np.zeros((2, tall, tall)), np.zeros((3, n + 1))
    for start in sorted(found):  # in the same order however threads are scheduled
        products += found[start][0]
        numbers += found[start][1]
    of_rows, of_sums = products[:, :n, :n].copy()
    lengths, sizes, along = numbers[:, :n]
    return Grown(of_rows, lengths, of_sums, sizes, along, float(numbers[2, n]))


def _place(one: Tensor | None) -> int:
    return 0 if one is None else one.data_ptr()
