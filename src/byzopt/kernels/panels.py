"""Centred inner products of many rows, by panels: rows side by side, a vector of them for each column.

Past some hundred rows a block of them does not stay in cache for as many columns as sums along rows need. So
some columns at a time are first laid out anew, about the pivot: a vector holds one column of as many rows as
it has lanes. A product of three such vectors with the numbers of some rows then needs no sum over lanes, and
what is loaded once is used many times. Of products that mirror each other one is taken.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, aligned, compiled, lanes, parallel_for, parts

_WIDE = 3  # vectors of a tile: with 8 rows their 24 sums and what they are made of fill 32 registers
_DEPTH = 256  # columns at a time: a panel of them stays in the second-level cache
_ADDED = 8  # rows with which a number is multiplied in the time that it takes to be added
_HELD = 1 << 20  # sums of all parts of the columns together, where there are several


def products_by_panels(rows: Tensor, pivot: Tensor, dtype: torch.dtype) -> Tensor:
    """`<x_i - p, x_j - p>`, `[n, n]` float64, of usable rows, multiplied in `dtype`.

    256 columns are summed in `dtype`, one after the other, then in float64, all products in one order. NaN or
    Inf shows on the diagonal. The result may be a part of a larger matrix.
    """
    (n, d), width, run = rows.shape, lanes(dtype), _kernel(rows.dtype, dtype)
    groups = -(-n // (_WIDE * width)) * _WIDE
    tall, threads = groups * width, torch.get_num_threads()
    work = n * d * (n // _ADDED)

    bounds = parts(d, work, _DEPTH, _HELD // (tall * tall))
    each, shares = np.zeros((len(bounds), tall, tall)), -(-threads // len(bounds))

    def some(first: int, last: int) -> None:  # tiles of a part of the columns
        for i in range(first, last):
            (start, stop), sums = bounds[i // shares], each[i // shares]
            room = aligned(_DEPTH * tall * dtype.itemsize // 8)
            where = rows.data_ptr(), rows.stride(0), pivot.data_ptr(), address(room), address(sums)
            run(*where, n, groups, i % shares, shares, start, stop)

    parallel_for(len(each) * shares, work, 1, some)
    sums = each[0]
    for part in each[1:]:
        sums += part
    _mirror(sums, _WIDE * width)
    return torch.from_numpy(sums)[:n, :n]


def _mirror(sums: Array, step: int) -> None:
    """Fills in what is below the diagonal's blocks of `step`."""

    def part(start: int, stop: int) -> None:
        for i in range(start * step, stop * step, step):
            sums[i : i + step, :i] = sums[:i, i : i + step].T

    parallel_for(len(sums) // step, sums.size, 1, part)


@cache
def _kernel(given: torch.dtype, dtype: torch.dtype) -> Run:
    """Adds the products over columns start .. stop to `sums`: of each `_WIDE` groups of rows with all rows up
    to their last, of which each `threads`-th tile, from the one named `own` on."""

    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, dtype)
        rows, stride, pivot, room, sums, n, groups, own, threads, start, stop = function.args
        with k.loop(start, stop, _DEPTH) as column:
            depth = k.least(k.whole(_DEPTH), k.b.sub(stop, column))
            with k.loop(0, groups) as group:
                _lay(k, given, rows, stride, pivot, room, n, group, column, depth)
            _multiply(k, room, sums, groups, own, threads, depth)

    return compiled(f"panels_{given.itemsize}_{dtype.itemsize}", "pipppiiiiii", emit)


def _lay(
    k: Body,
    given: torch.dtype,
    rows: Any,
    stride: Any,
    pivot: Any,
    room: Any,
    n: Any,
    group: Any,
    column: Any,
    depth: Any,
) -> None:
    """A vector for each of `depth` columns from `column` on into `room`: a group of rows of the `given` dtype
    about the pivot. The last group is filled up with the last row."""
    first, line = k.times(group, k.lanes), k.times(group, _DEPTH * k.lanes)
    places = [k.add(k.times(k.least(k.add(first, i), k.add(n, -1)), stride), column) for i in range(k.lanes)]
    full = k.b.and_(depth, k.whole(-k.lanes))

    def centred(place: Any, c: Any, width: int) -> Any:
        source, target = (Body(k.b, k.function, kind, width) for kind in (given, k.dtype))
        values = source.load(rows, k.add(place, c)), source.load(pivot, k.add(column, c))
        return k.b.fsub(*(source.widened(value, target) for value in values))

    with k.loop(0, full, k.lanes) as c:
        for i, vector in enumerate(k.transposed([centred(place, c, k.lanes) for place in places])):
            k.store(vector, room, k.add(line, k.times(k.add(c, i), k.lanes)))
    one = Body(k.b, k.function, k.dtype, 1)
    with k.loop(full, depth) as c:
        for i, place in enumerate(places):
            one.store(centred(place, c, 1), room, k.add(line, k.times(c, k.lanes), i))


def _multiply(k: Body, room: Any, sums: Any, groups: Any, own: Any, threads: Any, depth: Any) -> None:
    """Adds the products over `depth` columns that are laid out in `room`: see `_kernel`."""
    height = 8 if lanes(torch.float32) == 16 else 4  # by the number of registers
    wide = Body(k.b, k.function, torch.float64, k.lanes)
    tall, line = k.times(groups, k.lanes), _DEPTH * k.lanes
    with k.loop(0, groups, _WIDE) as group:
        right = [k.at(room, k.times(k.add(group, v), line), k.scalar) for v in range(_WIDE)]
        tiles = k.times(k.add(group, _WIDE), k.lanes // height)
        with k.loop(own, tiles, threads) as tile:
            row = k.times(tile, height)
            inside = k.b.and_(row, k.whole(k.lanes - 1))
            left = k.at(room, k.add(k.times(k.b.sub(row, inside), _DEPTH), inside), k.scalar)
            held = [[k.zeros() for _ in range(_WIDE)] for _ in range(height)]
            with k.loop(0, depth) as c:
                place = k.times(c, k.lanes)
                values = [k.load(each, place) for each in right]
                for a, places in enumerate(held):
                    one = k.spread(left, k.add(place, a))
                    for value, at in zip(values, places, strict=True):
                        k.b.store(k.fma(one, value, k.b.load(at)), at)
            for a, places in enumerate(held):
                to = k.add(k.times(k.add(row, a), tall), k.times(group, k.lanes))
                for v, at in enumerate(places):
                    where = k.add(to, v * k.lanes)
                    total = k.b.fadd(wide.load(sums, where), k.widened(k.b.load(at), wide))
                    wide.store(total, sums, where)
