"""Count sketches of rows: every number is added, with its sign, to one of a few sums of its row."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, compiled, lanes, parallel_for

_BLOCK = 1 << 10  # columns that are scaled, centred and signed at a time


def fused_scatter(
    rows: Tensor, factors: Array, places: Tensor, signs: Tensor, k: int, centre: Tensor | None = None
) -> Tensor:
    """`[n, k]` float64: Σ_c signs[c] (factors[i] rows[i, c] - centre[c]) over the columns c with places[c].

    `rows` `[n, d]` are usable; those of factor 0 count as 0, unread. `places` `[d]` are int32 below k,
    `signs` and `centre` `[d]` of the rows' dtype, in which differences are taken.
    """
    n, d = rows.shape
    shapes_fit = all(one.shape == (d,) and one.is_contiguous() for one in (places, signs))
    if not shapes_fit or places.dtype != torch.int32 or signs.dtype != rows.dtype:
        raise ValueError(f"Places [d] should be int32, and signs [d] {rows.dtype}, for rows [n, d].")
    if centre is not None and (centre.shape != (d,) or centre.dtype != rows.dtype):
        raise ValueError(f"A centre should be [{d}] of {rows.dtype}, as rows are.")
    centre = None if centre is None else centre.contiguous()
    run, factors = _kernel(rows.dtype, centre is not None), np.ascontiguousarray(factors, dtype=np.float64)
    about = 0 if centre is None else centre.data_ptr()
    sums: dict[int, Array] = {}

    def piece(start: int, stop: int) -> None:
        sums[start], room = np.zeros((n, k)), np.empty(_BLOCK + lanes(torch.float64))
        where = rows.data_ptr(), rows.stride(0), address(factors), about, places.data_ptr(), signs.data_ptr()
        run(*where, address(room), address(sums[start]), k, n, start, stop)

    parallel_for(d, rows.numel(), lanes(rows.dtype), piece)
    total = np.zeros((n, k))
    for start in sorted(sums):  # in the same order however threads are scheduled
        total += sums[start]
    return torch.from_numpy(total)


@cache
def _kernel(dtype: torch.dtype, centred: bool) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, dtype)
        rows, stride, factors, centre, places, signs, room, sums, count, n, start, stop = function.args

        def signed(i: Any, column: Any, first: Any, last: Any, read: bool, width: int) -> None:
            """Columns first .. last of the block, as they are added, into the room."""
            body, wide = Body(builder, function, dtype, width), Body(builder, function, torch.float64, width)
            factor = body.everywhere(body.narrowed(body.number_at(factors, i)))
            with body.loop(first, last, width) as c:
                place, value = k.add(column, c), body.const(0.0)
                if read:
                    value = k.b.fmul(body.load(rows, k.add(k.times(i, stride), place)), factor)
                if centred:
                    value = k.b.fsub(value, body.load(centre, place))
                wide.store(body.widened(k.b.fmul(value, body.load(signs, place)), wide), room, c)

        with k.loop(start, stop, _BLOCK) as column:
            width = k.least(k.whole(_BLOCK), k.b.sub(stop, column))
            full = k.b.and_(width, k.whole(-k.lanes))
            with k.loop(0, n) as i:
                own = k.at(sums, k.times(i, count), k.double)
                there = k.b.fcmp_ordered("!=", k.number_at(factors, i), k.ir.Constant(k.double, 0.0))
                with k.b.if_else(there) as branches:
                    for branch, read in zip(branches, (True, False), strict=True):
                        with branch:
                            signed(i, column, 0, full, read, k.lanes)
                            signed(i, column, full, width, read, 1)
                with k.loop(0, width) as c:
                    k.increase(own, k.index(places, k.add(column, c)), k.number_at(room, c))

    return compiled(f"scatter_{dtype.itemsize}", "pippppppiiii", emit)
