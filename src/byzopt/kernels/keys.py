"""Weighted sums over some columns of each row, all taken in one order: equal rows have equal sums."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, compiled

_DEEP = 4  # sums of a row at a time, which are added in the end


def row_sums(rows: Tensor, columns: Any, factors: Array) -> Array:
    """Σ factors[c] rows[:, columns[c]] of usable `rows` `[n, d]`, `[n]` float64; `columns` are int64."""
    n = rows.shape[0]
    out = np.empty(n)
    where = (rows.data_ptr(), rows.stride(0), address(columns), address(factors), address(out))
    _kernel(rows.dtype)(*where, n, len(columns))
    return out


@cache
def _kernel(dtype: torch.dtype) -> Run:
    def emit(builder: Any, function: Any) -> None:
        write_sums(Body(builder, function, torch.float64, 1), dtype, *function.args)

    return compiled(f"keys_{dtype.itemsize}", "pipppii", emit)


def write_sums(
    k: Body,
    dtype: torch.dtype,
    rows: Any,
    stride: Any,
    columns: Any,
    factors: Any,
    out: Any,
    n: Any,
    count: Any,
) -> None:
    """The body of a kernel: what `row_sums` gives of rows of `dtype`, into `out`."""
    k, source = (Body(k.b, k.function, kind, 1) for kind in (torch.float64, dtype))
    whole = k.b.and_(count, k.whole(-_DEEP))
    with k.loop(0, n) as i:
        held, row = [k.zeros() for _ in range(_DEEP)], k.times(i, stride)
        for first, last, step in ((0, whole, _DEEP), (whole, count, 1)):
            with k.loop(first, last, step) as c:
                for a, total in enumerate(held[:step]):
                    place = k.b.load(k.at(columns, k.add(c, a), k.i64))
                    value = source.widened(source.load(rows, k.add(row, place)), k)
                    k.b.store(k.fma(value, k.load(factors, k.add(c, a)), k.b.load(total)), total)
        total = k.b.load(held[0])
        for part in held[1:]:
            total = k.b.fadd(total, k.b.load(part))
        k.store(total, out, i)
