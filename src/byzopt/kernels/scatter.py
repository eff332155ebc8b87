"""Count sketches of rows: every number is added, with its sign, to one of a few sums of its row.

Rows lie side by side, as many as a vector has lanes: a column is added to the sums of all of them at once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, aligned, compiled, lanes, parts_of

_ADDED = 4  # times that adding a number takes to scale, centre, sign and place one
_BLOCK = 1 << 8  # columns that are scaled, centred and signed at a time


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
    about, side = 0 if centre is None else centre.data_ptr(), lanes(torch.float64)
    groups = -(-n // side)

    def part(start: int, stop: int) -> Array:
        own, room = aligned(groups * k * side), aligned(_BLOCK * side)
        own.fill(0)
        where = rows.data_ptr(), rows.stride(0), address(factors), about, places.data_ptr(), signs.data_ptr()
        run(*where, address(room), address(own), k, n, start, stop)
        return own

    parts = parts_of(d, rows.numel() * _ADDED, lanes(rows.dtype), part)
    total: Array = sum(parts, np.zeros(groups * k * side))
    by_row = total.reshape(groups, k, side).swapaxes(1, 2).reshape(groups * side, k)
    return torch.from_numpy(by_row[:n])


@cache
def _kernel(dtype: torch.dtype, centred: bool) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, torch.float64)
        rows, stride, factors, centre, places, signs, room, sums, count, n, start, stop = function.args
        one = Body(builder, function, torch.float64, 1)
        given = {width: Body(builder, function, dtype, width) for width in (1, k.lanes)}

        def signed(row: Any, column: Any, width: int) -> Any:
            """Some columns of a row, as they are added."""
            body, wide = given[width], Body(builder, function, torch.float64, width)
            factor = k.number_at(factors, row)
            scaled = k.b.fmul(
                body.load(rows, k.add(k.times(row, stride), column)), body.everywhere(body.narrowed(factor))
            )
            there = k.b.fcmp_ordered("!=", factor, k.double(0.0))
            value = k.b.select(there, scaled, body.const(0.0))
            if centred:
                value = k.b.fsub(value, body.load(centre, column))
            return body.widened(k.b.fmul(value, body.load(signs, column)), wide)

        with k.loop(start, stop, _BLOCK) as column, k.loop(0, n, k.lanes) as first:
            width = k.least(k.whole(_BLOCK), k.b.sub(stop, column))
            full = k.b.and_(width, k.whole(-k.lanes))
            group = [
                k.least(k.add(first, i), k.add(n, -1)) for i in range(k.lanes)
            ]  # filled up with the last
            with k.loop(0, full, k.lanes) as c:
                vectors = [signed(row, k.add(column, c), k.lanes) for row in group]
                for i, vector in enumerate(k.transposed(vectors)):
                    k.store(vector, room, k.times(k.add(c, i), k.lanes))
            with k.loop(full, width) as c:
                for i, row in enumerate(group):
                    one.store(signed(row, k.add(column, c), 1), room, k.add(k.times(c, k.lanes), i))
            own = k.at(sums, k.times(first, count), k.double)
            with k.loop(0, width) as c:
                at = k.times(k.index(places, k.add(column, c)), k.lanes)
                k.store(k.b.fadd(k.load(own, at), k.load(room, k.times(c, k.lanes))), own, at)

    return compiled(f"scatter_{dtype.itemsize}", "pippppppiiii", emit)
