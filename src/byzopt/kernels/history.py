"""Sums of rows round after round, and all that tests on them ask for, in one pass over rows and sums.

A block of columns at a time: rows are scaled, centred and multiplied, added to the sums, and these centred
and multiplied in turn, all while the block is in the cache. Large sums are written past it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from torch import Tensor

from byzopt.kernels.gram import TILE, block_width
from byzopt.kernels.history_pass import Parts, history_pass
from byzopt.kernels.jit import Array, address, lanes, parts_of

_PAST = 1 << 22  # numbers of sums that would not stay in the cache until the next round
_ADDED = 8  # rows with which a number is multiplied in the time that it takes to be added
_BLOCK_BYTES = 1 << 18  # of rows at a time: the sums pass through the cache too


class Walk(NamedTuple):
    """Points `[d]` of the rows' dtype: where workers were asked, and where the sums began."""

    x: Tensor
    home: Tensor


class Sums(NamedTuple):
    """Sums `[n, d]` before the rows, None where they begin, and memory for those after."""

    old: Tensor | None
    out: Tensor


class Grown(NamedTuple):
    """What one pass found, in float64; zeros where it was not asked for.

    `rows`: products `[n, n]` of scaled rows about the centre; `lengths` `[n]`: their squared lengths about
    the origin. Of each table of sums: `sums`, products of the new ones about one of them; `sizes`, their
    squared lengths. `along`: products of centred rows with the walk x - home; `path`: its squared length.
    """

    rows: Array
    lengths: Array
    sums: tuple[Array, ...]
    sizes: tuple[Array, ...]
    along: Array
    path: float


def fused_history(
    rows: Tensor,
    factors: Array,
    centre: Tensor | None = None,
    walk: Walk | None = None,
    weights: Array | None = None,
    mixed: Tensor | None = None,
    sums: Sequence[Sums] = (),
    pivot: int = 0,
    moved: bool = False,
) -> Grown:
    """One pass over usable `rows` `[n, d]`: row i times `factors[i]`. Rows of factor 0 count as 0, unread.

    With `weights` `[n]`: Σ weights[i] rows[i], unscaled, of the rows that are read, into `mixed` `[d]`. For
    each of `sums`: `old` + rows into `out`, and products about sum `pivot`. Rows that are `moved` enter them,
    one table at most, about `centre` `[d]`. All are of the rows' dtype. Blocks are summed in it, then in
    float64, all products in one order: equal rows have equal products. What is not finite shows in
    `lengths`, `sizes` and on diagonals.
    """
    n, d = rows.shape
    points = [one for one in (centre, mixed, *(walk or ())) if one is not None]
    tables = [one for each in sums for one in each if one is not None]
    if any(one.shape != (d,) for one in points) or any(one.shape != (n, d) for one in tables):
        raise ValueError(
            "Points should be [d] and sums [n, d], as rows are."
        )  # machine code reads beyond them
    if any(one.dtype != rows.dtype or one.stride(-1) != 1 for one in (*points, *tables)):
        raise ValueError(f"Points and sums should be {rows.dtype} of unit stride, as rows are.")
    if moved and len(sums) > 1:
        raise ValueError("Rows that are moved should enter one table of sums, in whose making they are lost.")
    factors = np.ascontiguousarray(factors, dtype=np.float64)
    shares = np.zeros(n) if weights is None else np.ascontiguousarray(weights, dtype=np.float64)
    past, centred, older = (
        rows.numel() >= _PAST,
        centre is not None,
        tuple(one.old is not None for one in sums),
    )
    parts = Parts(centred, centred and moved, walk is not None, mixed is not None, older, past)
    run, tall, size = history_pass(rows.dtype, parts), -(-n // TILE) * TILE, rows.element_size()

    def part(start: int, stop: int) -> tuple[Array, Array]:
        block = block_width(tall, rows.dtype, stop - start, _BLOCK_BYTES)
        # A line more than there are rows: the sum that others are about. And the walk, in float64.
        room = np.empty((tall + 1) * block * size // 8 + block)
        products, numbers = np.zeros((1 + len(sums), tall, tall)), np.zeros((2 + len(sums), n + 1))
        points = _place(centre), *(_place(one) for one in walk or (None, None))
        where = (rows.data_ptr(), rows.stride(0), address(factors), *points, address(shares), _place(mixed))
        tables = [
            (*_table(one.old), *_table(one.out), address(held))
            for one, held in zip(sums, products[1:], strict=True)
        ]
        results = address(room), address(products[0]), address(numbers)
        run(*where, *chain(*tables), pivot, *results, n, tall, block, start, stop)
        return products, numbers

    work = rows.numel() * (1 + len(sums)) * (1 + n // _ADDED)
    products, numbers = np.zeros((1 + len(sums), tall, tall)), np.zeros((2 + len(sums), n + 1))
    for one in parts_of(d, work, lanes(rows.dtype), part):
        products += one[0]
        numbers += one[1]
    of_rows, *of_sums = products[:, :n, :n].copy()
    lengths, along, *sizes = numbers[:, :n]
    return Grown(of_rows, lengths, tuple(of_sums), tuple(sizes), along, float(numbers[1, n]))


def _place(one: Tensor | None) -> int:
    return 0 if one is None else one.data_ptr()


def _table(one: Tensor | None) -> tuple[int, int]:
    return (0, 0) if one is None else (one.data_ptr(), one.stride(0))
