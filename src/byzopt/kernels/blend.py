"""Weighted sums of rows: every row is read once, the sum is written once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Run, compiled, lanes, parallel_for

_DEEP = 4  # vectors at a time


def blends(rows: Tensor) -> bool:
    """Whether usable `rows` `[n, d]` are wide enough for `blend`."""
    return rows.shape[1] >= _DEEP * lanes(rows.dtype)


def fused_blend(rows: Tensor, chosen: Sequence[int], weights: Sequence[float], out: Tensor) -> None:
    """Σ weights[j] rows[chosen[j]] of usable rows into `out` `[d]`, of their dtype, in the order given."""
    step = _DEEP * lanes(rows.dtype)
    kind: Any = np.float64 if rows.dtype == torch.float64 else np.float32
    offsets = np.asarray(chosen, dtype=np.int64) * rows.stride(0)
    shares = np.asarray(weights, dtype=kind)
    run = _kernel(rows.dtype)
    where = (rows.data_ptr(), offsets.ctypes.data, shares.ctypes.data, len(offsets), out.data_ptr())

    def piece(start: int, stop: int) -> None:
        aligned = start + (stop - start) // step * step
        run(*where, start, aligned)
        if aligned < stop:  # columns in the overlap are written twice, with the same values
            run(*where, stop - step, stop)

    parallel_for(len(out), len(offsets) * len(out), step, piece)


@cache
def _kernel(dtype: torch.dtype) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, dtype)
        rows, offsets, weights, count, out, start, stop = function.args
        with k.loop(start, stop, _DEEP * k.lanes) as column:
            held = [k.zeros() for _ in range(_DEEP)]
            with k.loop(0, count) as j:
                place = k.add(k.b.load(k.at(offsets, j, k.i64)), column)
                share = k.spread(weights, j)
                for a in range(_DEEP):
                    value = k.load(rows, k.add(place, a * k.lanes))
                    k.b.store(k.fma(share, value, k.b.load(held[a])), held[a])
            for a in range(_DEEP):
                k.store(k.b.load(held[a]), out, k.add(column, a * k.lanes))

    return compiled(f"blend_{dtype.itemsize}", "pppipii", emit)
