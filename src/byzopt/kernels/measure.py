"""Rows measured in one call: their order by value, products about one of them, distances, in what order."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.gram import scratch_of, write_products
from byzopt.kernels.jit import Array, Run, address, compiled
from byzopt.kernels.keys import write_sums
from byzopt.kernels.square import Measured, rank_of, sorting, widest, write_measured

Index: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"


def measured_rows(
    rows: Tensor, dtype: torch.dtype, by: tuple[Index, Array] | None
) -> tuple[Index | None, Measured]:
    """What is known of few usable `rows` `[n, d]` by products in `dtype` about one of them.

    With columns and factors to go `by` (`row_sums`) rows are put in the order of these sums, which comes
    first, and products are about the row in the middle. Else they are about the first row.
    """
    n, d = rows.shape
    tall, block, size = scratch_of(n, d, dtype)
    found = Measured(n, behind=3 * n + size)
    columns, factors, count = (0, 0, 0) if by is None else (address(by[0]), address(by[1]), len(by[0]))
    where = rows.data_ptr(), rows.stride(0), columns, factors, count, *sorting(n)[:2]
    _kernel(rows.dtype, dtype, widest(n))(*where, found.first, found.end, n, d, tall, block)
    start = (found.end - found.first) // 8
    return None if by is None else found.work[start : start + n].view(np.int64), found.seen()


@cache
def _kernel(given: torch.dtype, dtype: torch.dtype, width: int) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, torch.float64, width)
        rows, stride, columns, factors, count, places, pairs, gram, order, n, d, tall, block = function.args
        offsets, keys = (k.at(order, k.times(i, n), k.double) for i in (1, 2))
        room = k.at(order, k.times(3, n), k.double)
        ordered = k.b.icmp_signed(">", count, k.whole(0))
        write_sums(k, given, rows, stride, columns, factors, keys, n, count)
        spoilt = _write_order(k, keys, order, n)
        with k.loop(0, n) as i:
            k.b.store(k.times(k.b.load(k.at(order, i, k.i64)), stride), k.at(offsets, i, k.i64))
        middle = k.b.select(ordered, k.b.lshr(n, k.whole(1)), k.whole(0))
        source = Body(builder, function, given)
        pivot = k.at(rows, k.b.load(k.at(offsets, middle, k.i64)), source.scalar)
        write_products(
            Body(builder, function, dtype), given, rows, offsets, pivot, room, gram, n, tall, block, 0, d
        )
        k.put(k.b.fadd(k.number_at(gram, 0), spoilt), gram, 0)
        write_measured(k, gram, places, pairs, n)

    return compiled(f"measured_{given.itemsize}_{dtype.itemsize}_{width}", "pippipippiiii", emit)


def _write_order(k: Body, keys: Any, order: Any, n: Any) -> Any:
    """Writes the places of rows in the order of their keys, equal ones as they come; gives a number that is
    not finite where a key is not, and the order means nothing."""
    spoilt = k.local(k.double, k.double(0.0))
    with k.loop(0, n) as i:
        none = k.b.fmul(k.number_at(keys, i), k.double(0.0))
        k.b.store(k.b.fadd(k.b.load(spoilt), none), spoilt)
        k.b.store(i, k.at(order, i, k.i64))
    with k.loop(0, n) as i:
        k.b.store(i, k.at(order, rank_of(k, keys, i, n), k.i64))
    return k.b.load(spoilt)
