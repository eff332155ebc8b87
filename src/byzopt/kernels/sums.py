"""Means of many rows: each is read once, in the order of rows, with nothing between memory and the sums."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import NUMPY, Array, Run, address, all_finite, compiled, lanes, parallel_for

_DEEP = 8  # vectors of columns at a time


def mean_rows(rows: Tensor, out: Tensor) -> bool:
    """The mean of usable rows `[n, d]` into `out` `[d]`, by a plain sum in the order of rows. Returns whether
    it is finite, as it is not where a row is not."""
    (n, d), width, deep = rows.shape, lanes(rows.dtype), _DEEP
    if 0 < d < width * deep:
        width, deep = min(width, 1 << (d.bit_length() - 1)), 1
    run, where, spoilt = (
        _kernel(rows.dtype, width, deep),
        (rows.data_ptr(), rows.stride(0)),
        dict[int, Array](),
    )

    def piece(start: int, stop: int) -> None:
        trace = spoilt[start] = np.zeros(width, dtype=NUMPY[rows.dtype])
        run(*where, out.data_ptr(), address(trace), n, start, stop)

    parallel_for(d, n * d, width * deep, piece)
    return all_finite(spoilt.values())


@cache
def _kernel(dtype: torch.dtype, width: int, deep: int) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, dtype, width)
        rows, stride, out, spoilt, n, start, stop = function.args
        trace, vectors = k.local(k.vector, k.load(spoilt, 0)), [a * width for a in range(deep)]
        with k.pieces(start, stop, deep * width) as column:
            held = [k.local(k.vector, k.load(rows, k.add(column, a))) for a in vectors]
            with k.loop(1, n) as i:
                place = k.add(k.times(i, stride), column)
                for a, sum_ in zip(vectors, held, strict=True):
                    k.b.store(k.b.fadd(k.b.load(sum_), k.load(rows, k.add(place, a))), sum_)
            for a, sum_ in zip(vectors, held, strict=True):
                mean = k.b.fdiv(k.b.load(sum_), k.number(n))
                k.b.store(k.fma(mean, k.const(0.0), k.b.load(trace)), trace)
                k.store(mean, out, k.add(column, a))
        k.store(k.b.load(trace), spoilt, 0)

    return compiled(f"mean_{dtype.itemsize}_{width}_{deep}", "pippiii", emit)
