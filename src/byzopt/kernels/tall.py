"""Order statistics of tall columns: the network is data that one kernel reads, for any number of rows.

Beyond some sixty rows a network no longer fits the registers, and code for it takes longer to make than it
saves. One kernel, made in milliseconds, walks over the list of its comparators instead, with a few columns of
all rows at hand in the cache.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.answers import RankWindow
from byzopt.kernels.emit import Body
from byzopt.kernels.jit import NUMPY, Array, Run, address, all_finite, compiled, lanes, parallel_for
from byzopt.kernels.networks import Places, pruned

Lines: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
_DEEP = 4  # vectors of columns at a time
_LINE = 64  # bytes of a cache line, which is as much as the widest vector
_ADDED = 8  # times that adding a number takes to sort one
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
    walk, where = _Walk(m, d, rows.dtype, plan, n if mixing is not None else 0), _lines(rows)
    sources: tuple[Any, ...] = ()
    if mixing is not None:
        places = np.arange(n) if order is None else order
        where = where[places]
        sources = (np.ascontiguousarray(mixing, dtype=NUMPY[rows.dtype]),)

    def piece(start: int, stop: int) -> None:
        walk.run(where, out.data_ptr(), start, stop, *sources)

    parallel_for(d, m * d * _ADDED, walk.step, piece)
    return walk.finite


def reduce_tall_sets(rows: Tensor, sets: Lines, plan: RankWindow, out: Tensor) -> bool:
    """The plan's answers for k sets of m of the usable `rows` `[., d]`, d >= `tall_step`, into `out` `[k,
    d]`. `sets` `[k, m]` says which rows, that are read where they lie.

    Returns whether all rows and answers are finite.
    """
    (k, m), d = sets.shape, rows.shape[1]
    walk, lines = _Walk(m, d, rows.dtype, plan, 0), _lines(rows)[sets]

    def piece(first: int, last: int) -> None:
        for i in range(first, last):
            walk.run(lines[i], out[i].data_ptr(), 0, d)

    parallel_for(k, k * m * d * _ADDED, 1, piece)
    return walk.finite


class _Walk:
    """The kernel for columns of m values, of rows as they lie or of `mixed` rows mixed, with its list of
    comparators, and what its calls have seen."""

    def __init__(self, m: int, d: int, dtype: torch.dtype, plan: RankWindow, mixed: int) -> None:
        width, deep = lanes(dtype), _DEEP
        if 0 < d < width * deep:
            width, deep = min(width, 1 << (d.bit_length() - 1)), 1
        self.m, self.mixed, self.plan, self.step = m, mixed, plan, width * deep
        self.width, self.number = width, NUMPY[dtype]
        self.kernel, self.pairs = _kernel(dtype, width, deep, mixed > 0), _places(m, plan, self.step)
        self.spoilt: list[Array] = []

    def run(self, lines: Lines, out: int, start: int, stop: int, mixing: Any = None) -> None:
        """Columns start .. stop - 1 of the rows at the addresses `lines`, their answers from `out` on."""
        spoilt = np.zeros(self.width, dtype=self.number)
        size = (self.m + (self.m >> _SKEW) + self.mixed) * self.step
        room = np.empty(size + _LINE, dtype=self.number)
        aligned = address(room) + -address(room) % _LINE
        around = -1 if self.plan.around is None else self.plan.around
        where = (address(lines), self.m, address(self.pairs), len(self.pairs), out)
        window = (self.plan.first, self.plan.last, around, aligned, address(spoilt))
        sources = () if mixing is None else (address(mixing), self.mixed)
        self.kernel(*where, *window, *sources, start, stop)
        self.spoilt.append(spoilt)

    @property
    def finite(self) -> bool:
        """Whether all values and answers so far are."""
        return all_finite(self.spoilt)


def _lines(rows: Tensor) -> Lines:
    """Where every row begins, `[n]`."""
    return rows.data_ptr() + rows.stride(0) * rows.element_size() * np.arange(len(rows), dtype=np.int64)


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
        lines, n, pairs, count, out, first, last, around, room, spoilt, *mixed = function.args
        *sources, start, stop = mixed
        trace = k.local(k.vector, k.load(spoilt, 0))
        step = deep * width
        with k.pieces(start, stop, step) as column:
            if mixes:
                _mix(k, lines, sources, n, deep, column, room, trace)
            else:
                with k.loop(0, n) as i:
                    row = k.row(lines, i)
                    for a in range(deep):
                        value = k.load(row, k.add(column, a * width))
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
        return compiled(f"{name}_mixed", "pipipiiipppiii", emit)
    return compiled(name, "pipipiiippii", emit)


def _mix(
    k: Body, lines: Any, sources: list[Any], m: Any, deep: int, column: Any, room: Any, trace: Any
) -> None:
    """The `m` mixed rows of a step's columns, into the room; the rows are gathered behind them first, since
    rows as they lie may share a set of the cache."""
    (mixing, n), step = sources, deep * k.lanes
    gathered = k.at(room, _place(k, m, step), k.scalar)
    with k.loop(0, n) as j:
        row = k.row(lines, j)
        for a in range(deep):
            value = k.load(row, k.add(column, a * k.lanes))
            k.store(value, gathered, k.add(k.times(j, step), a * k.lanes))
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
