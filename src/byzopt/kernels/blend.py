"""Weighted sums of rows: every row is read once, the sum is written once."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, compiled, lanes, parallel_for

_DEEP = 4  # vectors at a time

Index: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"


def fused_blend(rows: Tensor, chosen: Index, weights: Array, out: Tensor) -> None:
    """Σ weights[j] rows[chosen[j]] of usable rows into `out` `[d]`, of their dtype, in the order given."""
    d, width, deep = rows.shape[1], lanes(rows.dtype), _DEEP
    if d == 0:  # a rank's part
        return
    if d < width * deep:
        width, deep = min(width, 1 << (d.bit_length() - 1)), 1
    step, run = width * deep, _kernel(rows.dtype, width, deep)
    offsets, weights = chosen * rows.stride(0), np.asarray(weights, dtype=np.float64)
    where = (rows.data_ptr(), address(offsets), address(weights), len(offsets), out.data_ptr())

    def piece(start: int, stop: int) -> None:
        aligned = start + (stop - start) // step * step
        run(*where, start, aligned)
        if aligned < stop:  # columns in the overlap are written twice, with the same values
            run(*where, stop - step, stop)

    parallel_for(d, len(offsets) * d, step, piece)


@cache
def _kernel(dtype: torch.dtype, width: int, deep: int) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, dtype, width)
        rows, offsets, weights, count, out, start, stop = function.args
        with k.loop(start, stop, deep * width) as column:
            held = [k.zeros() for _ in range(deep)]
            with k.loop(0, count) as j:
                place = k.add(k.b.load(k.at(offsets, j, k.i64)), column)
                share = k.everywhere(k.narrowed(k.number_at(weights, j)))
                for a in range(deep):
                    value = k.load(rows, k.add(place, a * width))
                    k.b.store(k.fma(share, value, k.b.load(held[a])), held[a])
            for a in range(deep):
                k.store(k.b.load(held[a]), out, k.add(column, a * width))

    return compiled(f"blend_{dtype.itemsize}_{width}_{deep}", "pppipii", emit)
