"""Copies of rows that lie in memory column by column, squares of numbers at a time."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import NUMPY, Run, compiled, lanes, parallel_for, switched

_BLOCK = 256  # columns whose lines stay in the cache until all their rows are written


def turns(rows: Tensor) -> bool:
    """Whether `turned_rows` can read `rows` `[n, d]`: on the CPU, the values of a column side by side."""
    plain = rows.is_cpu and rows.dtype in NUMPY and rows.stride(0) == 1 and min(rows.shape) > 1
    return plain and switched("cpu") and lanes(rows.dtype) > 0


def turned_rows(rows: Tensor) -> Tensor:
    """The same `rows` `[n, d]`, one after the other in memory."""
    n, d = rows.shape
    width = min(lanes(rows.dtype), 1 << (min(n, d).bit_length() - 1))
    out, run = torch.empty(n, d, dtype=rows.dtype, device="cpu"), _kernel(rows.dtype, width)
    where, whole = (rows.data_ptr(), rows.stride(1), out.data_ptr(), n, d), d - d % width
    parallel_for(whole, 2 * n * d, width, lambda start, stop: run(*where, start, stop))
    if whole < d:  # the last square, part of which is there
        run(*where, d - width, d)
    return out


@cache
def _kernel(dtype: torch.dtype, width: int) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, dtype, width)
        rows, stride, out, n, d, start, stop = function.args
        with k.loop(start, stop, _BLOCK) as first, k.loop(0, n, width) as near:
            row = k.least(near, k.b.sub(n, k.whole(width)))  # the last rows once more
            last = k.least(k.add(first, _BLOCK), stop)
            with k.loop(first, last, width) as column:
                square = [k.load(rows, k.add(k.times(k.add(column, i), stride), row)) for i in range(width)]
                for i, vector in enumerate(k.transposed(square)):
                    k.store(vector, out, k.add(k.times(k.add(row, i), d), column))

    return compiled(f"turned_{dtype.itemsize}_{width}", "pipiiii", emit)
