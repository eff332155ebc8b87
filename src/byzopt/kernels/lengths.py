"""Squared lengths of rows, and their products with a pivot, in one pass over the rows."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Run, compiled, lanes, parallel_for

_BLOCK = 4096  # columns that are summed in the rows' dtype


def fused_lengths(rows: Tensor, pivot: Tensor) -> tuple[Tensor, Tensor]:
    """`<x_i - p, p>` and `<x_i, x_i>`, `[n]` float64 each, of usable rows.

    Blocks are summed in the rows' dtype, then in float64: what overflows there shows as NaN or Inf.
    """
    n, d = rows.shape
    if pivot.shape != (d,):  # machine code reads beyond the end of a shorter one
        raise ValueError(f"A pivot should be [{d}], as rows are. Found {list(pivot.shape)}.")
    aligned = d - d % lanes(rows.dtype)
    run, pivot = _kernel(rows.dtype), pivot.contiguous()
    sums: dict[int, Tensor] = {}

    def piece(start: int, stop: int) -> None:
        sums[start] = torch.zeros(2, n, dtype=torch.float64, device="cpu")
        run(rows.data_ptr(), rows.stride(0), pivot.data_ptr(), sums[start].data_ptr(), n, start, stop)

    parallel_for(aligned, rows.numel(), _BLOCK, piece)
    total = torch.zeros(2, n, dtype=torch.float64, device="cpu")
    for start in sorted(sums):  # in the same order however threads are scheduled
        total += sums[start]
    tail, p = rows[:, aligned:].double(), pivot[aligned:].double()
    return total[0] + ((tail - p) * p).sum(dim=1), total[1] + tail.square().sum(dim=1)


@cache
def _kernel(dtype: torch.dtype) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, dtype)
        rows, stride, pivot, sums, n, start, stop = function.args
        with k.loop(start, stop, _BLOCK) as column:
            end = k.least(k.add(column, _BLOCK), stop)
            with k.loop(0, n) as i:
                cross, square = k.zeros(), k.zeros()
                with k.loop(column, end, k.lanes) as c:
                    value, p = k.load(rows, k.add(k.times(i, stride), c)), k.load(pivot, c)
                    k.b.store(k.fma(k.b.fsub(value, p), p, k.b.load(cross)), cross)
                    k.b.store(k.fma(value, value, k.b.load(square)), square)
                k.increase(sums, i, k.total(k.b.load(cross)))
                k.increase(sums, k.add(n, i), k.total(k.b.load(square)))

    return compiled(f"lengths_{dtype.itemsize}", "pippiii", emit)
