"""What the edges of a graph need of long rows: squared distances of pairs, and rows moved along differences.

A block of columns of all rows stays in the second-level cache while every edge is taken in it, so that rows
are read once from memory, however many edges there are. Differences are taken as such: nothing cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, compiled, lanes, parallel_for

_DEEP = 4  # vectors at a time: as many sums that do not wait for one another
_BLOCK_BYTES = 1 << 19  # of all rows at a time, at most
_PARTS = 64  # sums that are added up in the end, whatever the number of threads

Index: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


def pair_squares(stacks: Sequence[Tensor], left: Index, right: Index) -> Array:
    """‖y_a - y_b‖², `[e]`, for pairs a = left[k], b = right[k] of the rows of all `stacks` `[., d]`, numbered
    through in order. Blocks of columns are summed in the rows' dtype, then in float64: NaN, Inf and what
    overflows there show as NaN or Inf."""
    rows, d, dtype = _rows(stacks)
    a, b = (np.ascontiguousarray(rows[which]) for which in (left, right))
    block, run = _block(len(rows), d, dtype), _pairs(dtype)
    part = -(-d // (block * _PARTS)) * block
    sums = np.zeros((-(-d // part) if d else 0, len(a)))

    def piece(start: int, stop: int) -> None:
        for first in range(start, stop, part):
            last = min(first + part, stop)
            run(address(a), address(b), address(sums[first // part]), len(a), block, first, last)

    if len(a):
        parallel_for(d, len(a) * d, part, piece)
    total: Array = np.zeros(len(a))
    for one in sums:
        total += one
    return total


def moved_rows(stacks: Sequence[Tensor], count: int, starts: Index, senders: Index, weights: Array) -> Tensor:
    """x_i + Σ w_e (y_e - x_i), `[count, d]`, for the first `count` rows x_i of the `stacks` and the edges
    starts[i] .. starts[i + 1] - 1 of each, to rows y_e = senders[e], of weights w_e."""
    rows, d, dtype = _rows(stacks)
    out = torch.empty(count, d, dtype=dtype, device="cpu")
    own, told, outs = (np.ascontiguousarray(each) for each in (rows[:count], rows[senders], _places(out)))
    starts, weights = np.ascontiguousarray(starts), np.ascontiguousarray(weights)
    block, run = _block(len(rows), d, dtype), _moves(dtype)
    where = [address(each) for each in (own, outs, starts, told, weights)]
    work = (len(senders) + count) * d
    parallel_for(d, work, block, lambda start, stop: run(*where, count, block, start, stop))
    return out


def _rows(stacks: Sequence[Tensor]) -> tuple[Index, int, torch.dtype]:
    """Where every row begins, how long it is, and of which dtype."""
    (_, d), dtype = stacks[0].shape, stacks[0].dtype
    for stack in stacks:  # machine code reads beyond the end of shorter ones
        if stack.shape[1:] != (d,) or stack.dtype != dtype or stack.stride(1) != 1:
            raise ValueError(
                f"All rows should be {dtype} [., {d}] that lie in one piece. Found {stack.shape}."
            )
    return np.concatenate([_places(stack) for stack in stacks]), d, dtype


def _places(rows: Tensor) -> Index:
    return rows.data_ptr() + rows.stride(0) * rows.element_size() * np.arange(len(rows), dtype=np.int64)


def _block(rows: int, d: int, dtype: torch.dtype) -> int:
    """Columns of a block, a multiple of what is taken at a time. Of several blocks there is an even number:
    two threads have equally much to do."""
    step = _DEEP * lanes(dtype)
    most = max(1, _BLOCK_BYTES // (rows * dtype.itemsize) // step) * step
    if d <= most:
        return most
    blocks = 2 * -(-d // (2 * most))
    return -(-d // (blocks * step)) * step


class _Columns:
    """The columns of a block: whole steps of vectors, and single numbers behind them."""

    def __init__(self, k: Body, one: Body, column: Any, block: Any, stop: Any) -> None:
        self.k, self.one, self.column = k, one, column
        self.end = k.least(k.add(column, block), stop)
        width = k.b.sub(self.end, column)
        self.whole = k.add(column, k.b.and_(width, k.whole(-_DEEP * k.lanes)))

    def steps(self) -> list[tuple[Body, Any, Any, int]]:
        """(how wide, first, last, how many at a time)."""
        return [(self.k, self.column, self.whole, _DEEP), (self.one, self.whole, self.end, 1)]


@cache
def _pairs(dtype: torch.dtype) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k, one = Body(builder, function, dtype), Body(builder, function, dtype, 1)
        left, right, sums, count, block, start, stop = function.args
        with k.loop(start, stop, block) as column:
            columns = _Columns(k, one, column, block, stop)
            with k.loop(0, count) as e:
                a, b = k.row(left, e), k.row(right, e)
                for body, first, last, deep in columns.steps():
                    held = [body.zeros() for _ in range(deep)]
                    with body.loop(first, last, deep * body.lanes) as c:
                        for u, place in enumerate(held):
                            at = body.add(c, u * body.lanes)
                            away = body.b.fsub(body.load(a, at), body.load(b, at))
                            body.b.store(body.fma(away, away, body.b.load(place)), place)
                    total = body.b.load(held[0])
                    for place in held[1:]:
                        total = body.b.fadd(total, body.b.load(place))
                    body.increase(sums, e, body.total(total))

    return compiled(f"pairs_{dtype.itemsize}", "pppiiii", emit)


@cache
def _moves(dtype: torch.dtype) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k, one = Body(builder, function, dtype), Body(builder, function, dtype, 1)
        own, outs, starts, told, weights, count, block, start, stop = function.args
        with k.loop(start, stop, block) as column:
            columns = _Columns(k, one, column, block, stop)
            with k.loop(0, count) as i:
                x, out = k.row(own, i), k.row(outs, i)
                ends = [k.b.load(k.at(starts, at, k.i64)) for at in (i, k.add(i, 1))]
                for body, first, last, deep in columns.steps():
                    with body.loop(first, last, deep * body.lanes) as c:
                        places = [body.add(c, u * body.lanes) for u in range(deep)]
                        here = [body.load(x, at) for at in places]
                        held = [body.local(body.vector, value) for value in here]
                        with body.loop(*ends) as e:
                            y = body.row(told, e)
                            share = body.everywhere(body.narrowed(body.number_at(weights, e)))
                            for at, value, place in zip(places, here, held, strict=True):
                                away = body.b.fsub(body.load(y, at), value)
                                body.b.store(body.fma(share, away, body.b.load(place)), place)
                        for at, place in zip(places, held, strict=True):
                            body.store(body.b.load(place), out, at)

    return compiled(f"moves_{dtype.itemsize}", "pppppiiii", emit)
