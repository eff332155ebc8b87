"""Order statistics of a few columns of many rows, one column after the other.

Where columns are too few to fill vectors side by side, a vector holds numbers of one column. One or two of
its order statistics are selected by counting, as distances are in `ranks`. More are a sort's, which NumPy has
vectors for too. Answers have the bits of networks.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.answers import RankWindow
from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Run, address, aligned, all_finite, compiled, lanes, parallel_for
from byzopt.kernels.selecting import DEEP, select

_TALL = 128  # rows beyond which a sort takes less than a network, where that has
_SORTED = 8  # times as many columns at a time
_MANY = 256  # rows beyond which selecting takes less, of
_FEW = 12  # columns, or of more
_TALLER = 512  # beyond so many rows
_WORK = 16  # numbers elsewhere that take as long as one here


def by_columns(n: int, d: int, step: int, plan: RankWindow) -> bool:
    """Whether it is the fastest way for d columns of n numbers, of which networks take `step` at a time."""
    if plan.around is not None:
        return False
    sorts = n > _TALL and d * _SORTED <= step
    return sorts or (_selects(n, plan) and d < step and (d <= _FEW or n > _TALLER))


def _selects(n: int, plan: RankWindow) -> bool:
    return n > _MANY and plan.last - plan.first <= 2


def reduce_few_columns(rows: Tensor, plan: RankWindow, out: Tensor) -> bool:
    """The plan's answer, without `around`, for every column of usable `rows` `[n, d]`, into `out` `[d]`.
    Returns whether all rows and answers are finite."""
    if not _selects(len(rows), plan):
        return _sort(rows.numpy(), plan, out.numpy())
    (n, d), run = rows.shape, _kernel(rows.dtype)
    step, spoilt = DEEP * lanes(torch.float64), np.zeros(d)
    where = rows.data_ptr(), rows.stride(0), out.data_ptr(), address(spoilt)

    def part(start: int, stop: int) -> None:
        room = aligned(-(-n // step) * step)
        run(*where, address(room), n, plan.first, plan.last, start, stop)

    parallel_for(d, _WORK * n * d, 1, part)
    return all_finite([spoilt])


def _sort(rows: Any, plan: RankWindow, out: Any) -> bool:
    with np.errstate(all="ignore"):  # what is not finite is told
        columns = np.array(rows.T, order="C")  # a copy, of a single column too
        columns.sort(axis=1)
        kept = columns[:, plan.first : plan.last]
        np.divide(np.add.accumulate(kept, axis=1)[:, -1], kept.shape[1], out=out)
    return all_finite([columns[:, 0], columns[:, -1], out])


@cache
def _kernel(given: torch.dtype) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k, one = (Body(builder, function, torch.float64, width) for width in (0, 1))
        source = Body(builder, function, given, 1)
        rows, stride, out, spoilt, room, n, first, last, start, stop = function.args
        step = DEEP * k.lanes
        full = k.b.and_(k.add(n, step - 1), k.whole(-step))
        with k.loop(n, full) as j:  # beyond the last row there is nobody
            k.put(k.double(np.inf), room, j)
        with k.loop(start, stop) as column:
            line = k.at(rows, column, source.scalar)
            with k.loop(0, n) as j:
                one.store(source.widened(source.load(line, k.times(j, stride)), one), room, j)
            low, high, trace = _ends(k, room, n)
            answer = _answer(k, room, full, n, first, last, low, high)
            k.put(k.b.fadd(trace, k.b.fmul(answer, k.double(0.0))), spoilt, column)
            k.b.store(source.narrowed(answer), k.at(out, column, source.scalar))

    return compiled(f"few_columns_{given.itemsize}", "pipppiiiii", emit)


def _ends(k: Body, room: Any, n: Any) -> tuple[Any, Any, Any]:
    """The least and the greatest of n numbers, and 0 if all are finite."""
    low, high, trace = (k.local(k.double, k.double(value)) for value in (np.inf, -np.inf, 0.0))
    full = k.b.and_(n, k.whole(-k.lanes))
    vectors = k.local(k.vector, k.const(np.inf)), k.local(k.vector, k.const(-np.inf)), k.zeros()
    with k.loop(0, full, k.lanes) as j:
        value = k.load(room, j)
        least, most, seen = (k.b.load(place) for place in vectors)
        k.b.store(k.b.select(k.b.fcmp_ordered("<", value, least), value, least), vectors[0])
        k.b.store(k.greater(value, most), vectors[1])
        k.b.store(k.fma(value, k.const(0.0), seen), vectors[2])

    def take(least: Any, most: Any, seen: Any) -> None:
        before = k.b.load(low), k.b.load(high), k.b.load(trace)
        k.b.store(k.b.select(k.b.fcmp_ordered("<", least, before[0]), least, before[0]), low)
        k.b.store(k.b.select(k.b.fcmp_ordered(">", most, before[1]), most, before[1]), high)
        k.b.store(k.b.fadd(before[2], seen), trace)

    for lane in range(k.lanes):
        at = k.ir.Constant(k.ir.IntType(32), lane)
        take(*(k.b.extract_element(k.b.load(place), at) for place in vectors))
    with k.loop(full, n) as j:
        value = k.number_at(room, j)
        take(value, value, k.b.fmul(value, k.double(0.0)))
    return k.b.load(low), k.b.load(high), k.b.load(trace)


def _answer(k: Body, room: Any, full: Any, n: Any, first: Any, last: Any, low: Any, high: Any) -> Any:
    """The mean of the numbers of ranks first and last - 1, which are neighbours or the same."""
    begin, _ = select(k, room, full, n, first, high, low)
    end = k.local(k.double, begin)
    with k.b.if_then(k.b.icmp_signed(">", last, k.add(first, 1))):
        value, _ = select(k, room, full, n, k.add(last, -1), high, begin)
        k.b.store(value, end)
    both = k.b.fmul(k.b.fadd(begin, k.b.load(end)), k.double(0.5))
    return k.b.select(k.b.fcmp_ordered("==", begin, k.b.load(end)), begin, both)
