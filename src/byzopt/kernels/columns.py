"""Order statistics of columns, and means around a centre, in registers; mixed on the way if asked."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.answers import RankWindow, column_answer
from byzopt.kernels.blend import mixed_rows
from byzopt.kernels.emit import Body
from byzopt.kernels.few_columns import by_columns, reduce_few_columns
from byzopt.kernels.jit import NUMPY, Array, Run, address, all_finite, compiled, lanes, parallel_for
from byzopt.kernels.sums import mean_rows
from byzopt.kernels.tall import reduce_tall_columns, tall_step

_TILE = 4  # mixed rows at a time
_DEEP = 4  # vectors at a time while mixing
_MANY = 1024  # rows beyond which a network is walked for no less than a step of columns
_ADDED = 10  # rows with which a number is compared in the time that it takes to be added
_QUICK = 64  # rows up to which a network fits the registers, or nearly, and compiles in a tenth of a second


def reduces_columns(rows: Tensor, mixing: Any = None, plan: RankWindow | None = None) -> bool:
    """Whether `reduce_columns` fits usable `rows`. It does not where a sort of few columns takes less.

    Up to 64 rows a kernel is made in the first call for its plan and number of rows, in less than a tenth of
    a second. For more rows, or fewer columns than a vector holds, one kernel reads their network as data
    (`tall`). The `plan` of a mean needs none, nor do few columns of many rows (`few_columns`).
    """
    m = rows.shape[0] if mixing is None else len(mixing)
    mean = mixing is None and plan == (0, m, None)
    few = mixing is None and plan is not None and by_columns(m, rows.shape[1], tall_step(rows.dtype), plan)
    return mean or few or m <= _MANY or rows.shape[1] >= tall_step(rows.dtype)


def reduces_sets(rows: Tensor, m: int) -> bool:
    """Whether `reduce_tall_sets` is the way for sets of m of usable `rows`: too many for the registers."""
    return m > _QUICK and rows.shape[1] >= tall_step(rows.dtype)


def reduce_columns(
    rows: Tensor, plan: RankWindow, mixing: Array | None, out: Tensor, order: Any = None
) -> bool:
    """The plan's answer for every column of usable `rows` `[n, d]`, or of `mixing @ rows`, into `out` `[d]`.

    `mixing` `[m, n]` is taken in the rows' dtype; its columns belong to the rows in the `order` given,
    indices `[n]`, in which sums are taken. Returns whether all rows and answers are finite.
    """
    (n, d), step = rows.shape, _step(rows, mixing)
    if mixing is not None and d < step:
        return reduce_columns(mixed_rows(rows, mixing, order), plan, None, out)
    m = n if mixing is None else len(mixing)
    if mixing is None and plan == (0, n, None):
        return mean_rows(rows, out)
    if mixing is None and by_columns(n, d, tall_step(rows.dtype), plan):
        return reduce_few_columns(rows, plan, out)
    if m > _QUICK or d < step:
        return reduce_tall_columns(rows, plan, out, mixing, order)
    run, offsets, mixed = _kernel(rows.dtype, n, m, mixing is not None, plan), 0, 0
    if mixing is not None:
        places = np.arange(n) if order is None else order
        held = places * rows.stride(0), np.ascontiguousarray(mixing, dtype=NUMPY[rows.dtype])
        offsets, mixed = address(held[0]), address(held[1])
    where = (rows.data_ptr(), rows.stride(0), offsets, mixed, out.data_ptr())
    spoilt: dict[int, Array] = {}

    def piece(start: int, stop: int) -> None:
        trace = spoilt[start] = np.zeros(lanes(rows.dtype), dtype=NUMPY[rows.dtype])
        run(*where, address(trace), start, stop)

    parallel_for(d, m * d * (1 + m // _ADDED), step, piece)
    return all_finite(spoilt.values())


def _step(rows: Tensor, mixing: Any) -> int:
    return lanes(rows.dtype) * (1 if mixing is None else _DEEP)


@lru_cache(maxsize=256)
def _kernel(dtype: torch.dtype, n: int, m: int, mixes: bool, plan: RankWindow) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, dtype)
        rows, stride, offsets, mixing, out, spoilt, start, stop = function.args
        trace = k.local(k.vector, k.load(spoilt, 0))
        with k.pieces(start, stop, k.lanes * (_DEEP if mixes else 1)) as column:
            if mixes:
                mixed = k.array(m * _DEEP)
                for i in range(0, m, _TILE):
                    _mix(k, rows, offsets, mixing, n, range(i, min(i + _TILE, m)), column, mixed)
                with k.loop(0, _DEEP) as a:
                    wires = [k.b.load(k.at(mixed, k.add(a, i * _DEEP), k.vector)) for i in range(m)]
                    _answer(k, wires, plan, out, k.add(column, k.times(a, k.lanes)), trace)
            else:
                wires = [k.load(rows, k.add(k.times(stride, i), column)) for i in range(n)]
                _answer(k, wires, plan, out, column, trace)
        k.store(k.b.load(trace), spoilt, 0)

    return compiled(f"columns_{dtype.itemsize}", "pippppii", emit)


def _mix(k: Body, rows: Any, offsets: Any, mixing: Any, n: int, tile: range, column: Any, mixed: Any) -> None:
    """Mixed rows `tile` of one step's columns, kept in the array `mixed`."""
    held = [[k.zeros() for _ in range(_DEEP)] for _ in tile]
    with k.loop(0, n) as j:
        place = k.add(k.b.load(k.at(offsets, j, k.i64)), column)
        values = [k.load(rows, k.add(place, a * k.lanes)) for a in range(_DEEP)]
        for i, sums in zip(tile, held, strict=True):
            share = k.spread(mixing, k.add(j, i * n))
            for value, place_ in zip(values, sums, strict=True):
                k.b.store(k.fma(share, value, k.b.load(place_)), place_)
    for i, sums in zip(tile, held, strict=True):
        for a, sum_ in enumerate(sums):
            k.b.store(k.b.load(sum_), k.at(mixed, i * _DEEP + a, k.vector))


def _answer(k: Body, values: list[Any], plan: RankWindow, out: Any, column: Any, trace: Any) -> None:
    """Writes the answer for one vector of columns."""
    answer, seen = column_answer(_Vectors(k), values, plan, k.b.load(trace))
    k.b.store(seen, trace)
    k.store(answer, out, column)


class _Vectors:
    """The arithmetic of answers on LLVM's vectors."""

    def __init__(self, k: Body) -> None:
        self.b, self.number, self.fma = k.b, k.const, k.fma
        self.plus, self.minus, self.over, self.choose = k.b.fadd, k.b.fsub, k.b.fdiv, k.b.select

    def pair(self, a: Any, b: Any) -> tuple[Any, Any]:
        less = self.b.fcmp_ordered("<", b, a)
        return self.b.select(less, b, a), self.b.select(less, a, b)

    def above(self, a: Any, b: Any) -> Any:
        return self.b.fcmp_ordered(">", a, b)
