"""Means of rows, and votes of their signs: each row is read once, with nothing between memory and sums."""

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
    return _summed(rows, out, False)


def vote_rows(rows: Tensor, out: Tensor) -> bool:
    """The sign of the sum of the signs of usable rows `[n, d]` into `out` `[d]`. Returns whether all rows are
    finite."""
    return _summed(rows, out, True)


def _summed(rows: Tensor, out: Tensor, votes: bool) -> bool:
    (n, d), width, deep = rows.shape, lanes(rows.dtype), _DEEP
    if 0 < d < width * deep:
        width, deep = min(width, 1 << (d.bit_length() - 1)), 1
    run, where, spoilt = (
        _kernel(rows.dtype, width, deep, votes),
        (rows.data_ptr(), rows.stride(0)),
        dict[int, Array](),
    )

    def piece(start: int, stop: int) -> None:
        trace = spoilt[start] = np.zeros(width, dtype=NUMPY[rows.dtype])
        run(*where, out.data_ptr(), address(trace), n, start, stop)

    parallel_for(d, n * d, width * deep, piece)
    return all_finite(spoilt.values())


@cache
def _kernel(dtype: torch.dtype, width: int, deep: int, votes: bool) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, dtype, width)
        rows, stride, out, spoilt, n, start, stop = function.args
        trace, vectors = k.local(k.vector, k.load(spoilt, 0)), [a * width for a in range(deep)]

        def look(value: Any) -> Any:
            k.b.store(k.fma(value, k.const(0.0), k.b.load(trace)), trace)
            return value

        def sign(value: Any) -> Any:
            least = k.b.select(k.b.fcmp_ordered("<", value, k.const(0.0)), k.const(-1.0), k.const(0.0))
            return k.b.select(k.b.fcmp_ordered(">", value, k.const(0.0)), k.const(1.0), least)

        def added(value: Any) -> Any:
            return sign(look(value)) if votes else value

        with k.pieces(start, stop, deep * width) as column:
            held = [k.local(k.vector, added(k.load(rows, k.add(column, a)))) for a in vectors]
            with k.loop(1, n) as i:
                place = k.add(k.times(i, stride), column)
                for a, sum_ in zip(vectors, held, strict=True):
                    k.b.store(k.b.fadd(k.b.load(sum_), added(k.load(rows, k.add(place, a)))), sum_)
            for a, sum_ in zip(vectors, held, strict=True):
                total = k.b.load(sum_)
                answer = sign(total) if votes else look(k.b.fdiv(total, k.number(n)))
                k.store(answer, out, k.add(column, a))
        k.store(k.b.load(trace), spoilt, 0)

    return compiled(f"sums_{dtype.itemsize}_{width}_{deep}_{votes:d}", "pippiii", emit)
