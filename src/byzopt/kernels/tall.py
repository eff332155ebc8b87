"""Order statistics of tall columns: the network is data that one kernel reads, for any number of rows.

Beyond some sixty rows a network no longer fits the registers, and code for it takes longer to make than it
saves. One kernel, made in milliseconds, walks over the list of its comparators instead, with a few columns of
all rows at hand in the cache.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.answers import RankWindow
from byzopt.kernels.emit import Body
from byzopt.kernels.jit import NUMPY, Array, Run, address, all_finite, compiled, lanes, parallel_for
from byzopt.kernels.networks import Places, pruned

_DEEP = 4  # vectors of columns at a time
_LINE = 64  # bytes of a cache line, which is as much as the widest vector
_TILE = 4  # mixed rows at a time
_SKEW = 5  # every 32 rows one place is left free: else rows that are compared often share a set of the cache


def reduce_tall_columns(
    rows: Tensor, plan: RankWindow, out: Tensor, mixing: Array | None = None, order: Any = None
) -> bool:
    """The plan's answer for every column of usable `rows` `[n, d]`, or of `mixing @ rows`, into `out` `[d]`,
    as `reduce_columns`.

    Returns whether all rows and answers are finite.
    """
    n, d = rows.shape
    m = n if mixing is None else len(mixing)
    width, deep = lanes(rows.dtype), _DEEP
    if d == 0:  # a rank's part
        return True
    if d < width * deep:
        width, deep = min(width, 1 << (d.bit_length() - 1)), 1
    step = width * deep
    run, pairs = _kernel(rows.dtype, width, deep, mixing is not None), _places(m, plan, step)
    spoilt: dict[int, Array] = {}
    around = -1 if plan.around is None else plan.around
    held: tuple[Any, ...] = ()
    if mixing is not None:
        places = np.arange(n) if order is None else order
        held = places * rows.stride(0), np.ascontiguousarray(mixing, dtype=NUMPY[rows.dtype])
    where = (rows.data_ptr(), rows.stride(0), m, address(pairs), len(pairs), out.data_ptr())
    sources = (*map(address, held), n) if held else ()
    size = (m + (m >> _SKEW)) * step

    def piece(start: int, stop: int) -> None:
        spoilt[start] = np.zeros(width, dtype=NUMPY[rows.dtype])
        room = np.empty(size + (n * step if held else 0) + _LINE, dtype=NUMPY[rows.dtype])
        aligned = address(room) + -address(room) % _LINE
        window = (plan.first, plan.last, around, aligned, address(spoilt[start]))
        run(*where, *window, *sources, start, stop)

    parallel_for(d, m * d, step, piece)
    return all_finite(spoilt.values())


def tall_step(dtype: torch.dtype) -> int:
    """How many columns the kernel takes at a time."""
    return _DEEP * lanes(dtype)


@lru_cache(maxsize=32)
def _places(n: int, plan: RankWindow, step: int) -> Places:
    """Where in the room each comparator finds its two rows, `[k, 2]`."""
    if plan.around is None and (plan.first, plan.last) == (0, n):
        return np.empty((0, 2), dtype=np.int32)
    pairs, _ = pruned(n, *((plan.first, plan.last) if plan.around is None else (0, n)))
    return np.ascontiguousarray((pairs + (pairs >> _SKEW)) * step)


@cache
def _kernel(dtype: torch.dtype, width: int, deep: int, mixes: bool) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, dtype, width)
        rows, stride, n, pairs, count, out, first, last, around, room, spoilt, *mixed = function.args
        *sources, start, stop = mixed
        trace = k.local(k.vector, k.load(spoilt, 0))
        step = deep * width
        with k.pieces(start, stop, step) as column:
            if mixes:
                _mix(k, rows, sources, n, deep, column, room, trace)
            else:
                with k.loop(0, n) as i:
                    for a in range(deep):
                        value = k.load(rows, k.add(k.times(stride, i), column, a * width))
                        k.b.store(k.fma(value, k.const(0.0), k.b.load(trace)), trace)
                        k.store(value, room, k.add(_place(k, i, step), a * width))
            with k.loop(0, count) as c:
                i, j = (k.index(pairs, k.add(k.times(c, 2), side)) for side in (0, 1))
                for a in range(deep):
                    x, y = k.load(room, k.add(i, a * width)), k.load(room, k.add(j, a * width))
                    less = k.b.fcmp_ordered("<", y, x)
                    k.store(k.b.select(less, y, x), room, k.add(i, a * width))
                    k.store(k.b.select(less, x, y), room, k.add(j, a * width))
            for a in range(deep):

                def ordered(i: Any, a: int = a) -> Any:
                    return k.load(room, k.add(_place(k, i, step), a * width))

                _answer(k, ordered, n, first, last, around, out, k.add(column, a * width), trace)
        k.store(k.b.load(trace), spoilt, 0)

    name = f"tall_{dtype.itemsize}_{width}_{deep}"
    if mixes:
        return compiled(f"{name}_mixed", "piipipiiippppiii", emit)
    return compiled(name, "piipipiiippii", emit)


def _mix(
    k: Body, rows: Any, sources: list[Any], m: Any, deep: int, column: Any, room: Any, trace: Any
) -> None:
    """The `m` mixed rows of a step's columns, into the room; the rows are gathered behind them first, since
    rows as they lie may share a set of the cache."""
    (offsets, mixing, n), step = sources, deep * k.lanes
    gathered = k.at(room, _place(k, m, step), k.scalar)
    with k.loop(0, n) as j:
        place = k.add(k.b.load(k.at(offsets, j, k.i64)), column)
        for a in range(deep):
            k.store(k.load(rows, k.add(place, a * k.lanes)), gathered, k.add(k.times(j, step), a * k.lanes))
    with k.tiles(m, _TILE) as first:
        held = [[k.zeros() for _ in range(deep)] for _ in range(_TILE)]
        with k.loop(0, n) as j:
            values = [k.load(gathered, k.add(k.times(j, step), a * k.lanes)) for a in range(deep)]
            for i, sums in enumerate(held):
                share = k.spread(mixing, k.add(k.times(k.add(first, i), n), j))
                for value, sum_ in zip(values, sums, strict=True):
                    k.b.store(k.fma(share, value, k.b.load(sum_)), sum_)
        for i, sums in enumerate(held):
            for a, sum_ in enumerate(sums):
                value = k.b.load(sum_)
                k.b.store(k.fma(value, k.const(0.0), k.b.load(trace)), trace)
                k.store(value, room, k.add(_place(k, k.add(first, i), step), a * k.lanes))


def _answer(
    k: Body, ordered: Any, n: Any, first: Any, last: Any, around: Any, out: Any, column: Any, trace: Any
) -> None:
    """Writes the answer for a vector of columns; `ordered(i)` is its row i, in order where that matters."""
    total = k.local(k.vector, ordered(first))
    with k.loop(k.add(first, 1), last) as i:
        k.b.store(k.b.fadd(k.b.load(total), ordered(i)), total)
    answer = k.local(k.vector, k.b.fdiv(k.b.load(total), k.number(k.b.sub(last, first))))
    with k.b.if_then(k.b.icmp_signed(">=", around, k.whole(0))):
        centre, spare = k.b.load(answer), k.b.sub(n, around)
        held = k.zeros()
        with k.loop(0, n) as j:
            value = ordered(j)
            # Value j is in the window once value j + around is farther, and while value j - around is not.
            here = k.local(k.vector, value)
            with k.b.if_then(k.b.icmp_signed(">=", j, around)):
                moved = _moved(k, centre, ordered(k.b.sub(j, around)), value)
                k.b.store(k.b.select(moved, value, k.const(0.0)), here)
            with k.b.if_then(k.b.icmp_signed("<", j, spare)):
                moved = _moved(k, centre, value, ordered(k.add(j, around)))
                k.b.store(k.b.select(moved, k.const(0.0), k.b.load(here)), here)
            k.b.store(k.b.fadd(k.b.load(held), k.b.load(here)), held)
        k.b.store(k.b.fdiv(k.b.load(held), k.number(around)), answer)
    found = k.b.load(answer)
    k.b.store(k.fma(found, k.const(0.0), k.b.load(trace)), trace)
    k.store(found, out, column)


def _place(k: Body, i: Any, step: int) -> Any:
    """Where row i stands in the room."""
    return k.times(k.add(i, k.b.lshr(i, k.whole(_SKEW))), step)


def _moved(k: Body, centre: Any, low: Any, high: Any) -> Any:
    """Whether the window around the centre loses `low` and gains `high`."""
    return k.b.fcmp_ordered(">", k.b.fsub(centre, low), k.b.fsub(high, centre))
