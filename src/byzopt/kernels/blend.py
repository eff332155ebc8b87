"""Weighted sums of rows: every row is read once, the sum is written once."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, compiled, lanes, parallel_for
from byzopt.kernels.square import body

_DEEP = 4  # vectors at a time
_SHORT = 1 << 14  # numbers that are read before it is known which rows have weight
_TILE = 4  # rows at a time whose weights are carried, or that are read side by side
_PAST = 1 << 24  # bytes of rows that come from memory, which gives most where rows are read far along
_LONG = 2048  # columns whose sums stay in the first cache meanwhile
_STREAMS = 16  # rows that are read as fast side by side

Index: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"


def fused_blend(rows: Tensor, chosen: Index, weights: Array, out: Tensor) -> None:
    """Σ weights[j] rows[chosen[j]] of usable rows into `out` `[d]`, of their dtype, in the order given."""
    offsets, weights = chosen * rows.stride(0), np.asarray(weights, dtype=np.float64)
    _blend(rows, address(offsets), address(weights), len(offsets), out)


def mixed_blend(weights: Array, shares: Array | None, rows: Tensor, order: Index | None) -> Tensor:
    """`weights @ shares^T @ rows` of usable rows, summed in their `order`, for weights `[m]` and `shares`
    `[n, m]` of rows in that order (None: those weights). Rows that get no weight are not read; one that gets
    all of it is copied."""
    (n, d), weights = rows.shape, np.ascontiguousarray(weights)
    order = np.arange(n) if order is None else order
    held = weights if shares is None else np.ascontiguousarray(shares)
    work = np.empty(2 * n + 1)
    first, height = address(work), 0 if shares is None else min(n, _TILE)
    _sources(height)(address(weights), address(held), address(order), first, n, len(weights), rows.stride(0))
    count = int(work.item(2 * n))
    if count == 1 and work.item(0) == 1.0:
        return rows[work[n:].view(np.int64).item(0) // max(1, rows.stride(0))].clone()
    out = rows.new_empty(d)
    _blend(rows, first + 8 * n, first, count, out)
    return out


def weighted_rows(weights: Array, rows: Tensor) -> Tensor:
    """`weights @ rows` of finite usable rows, in the order of the rows, for weights `[n]`."""
    (n, d), stride = rows.shape, rows.stride(0)
    if n * d > _SHORT or d == 0:
        return mixed_blend(weights, None, rows, None)
    out = rows.new_empty(d)  # what has no weight adds nothing
    _blend(rows, address(_offsets(n, stride)), address(np.ascontiguousarray(weights)), n, out)
    return out


@lru_cache(maxsize=64)
def _offsets(n: int, stride: int) -> Index:
    return np.arange(n) * stride


def mixed_rows(rows: Tensor, mixing: Array, order: Index | None) -> Tensor:
    """`mixing @ rows` `[m, d]` of usable rows, in their dtype. The columns of `mixing` `[m, n]` belong to the
    rows in an `order`, in which they are summed."""
    (n, d), (m, _), width = rows.shape, mixing.shape, lanes(rows.dtype)
    out = rows.new_empty(m, d)
    if d == 0:  # a rank's part
        return out
    width, mixing = min(width, 1 << (d.bit_length() - 1)), np.ascontiguousarray(mixing, dtype=np.float64)
    offsets = (np.arange(n) if order is None else order) * rows.stride(0)
    where = rows.data_ptr(), address(offsets), address(mixing), n, out.data_ptr()
    _mixed(rows.dtype, width)(*where, m, d)
    return out


def _blend(rows: Tensor, offsets: int, weights: int, count: int, out: Tensor) -> None:
    """The sum of `count` rows, at `offsets` in memory, with `weights`."""
    d, width, deep = rows.shape[1], lanes(rows.dtype), _DEEP
    if d == 0:  # a rank's part
        return
    if d < width * deep:
        width, deep = min(width, 1 << (d.bit_length() - 1)), 1
    step, run = width * deep, _kernel(rows.dtype, width, deep)
    where, size = (rows.data_ptr(), offsets, weights, count, out.data_ptr()), count * d
    if count <= _STREAMS or size * rows.element_size() < _PAST or d < _LONG:
        parallel_for(d, size, step, lambda start, stop: run(*where, start, stop))
        return
    along, whole = _streamed(rows.dtype), d - d % step
    parallel_for(whole, size, step, lambda start, stop: along(*where, start, stop))
    if whole < d:
        run(*where, d - step, d)  # the last columns, some of them once more and alike


@cache
def _kernel(dtype: torch.dtype, width: int, deep: int) -> Run:
    def emit(builder: Any, function: Any) -> None:
        rows, offsets, weights, count, out, start, stop = function.args
        k = Body(builder, function, dtype, width)
        _write_sum(k, deep, rows, offsets, weights, count, out, start, stop)

    return compiled(f"blend_{dtype.itemsize}_{width}_{deep}", "pppipii", emit)


@cache
def _streamed(dtype: torch.dtype) -> Run:
    """As `_kernel`, whole vectors alone, to the same bits: some rows are read for many columns at a time."""

    def emit(builder: Any, function: Any) -> None:
        rows, offsets, weights, count, out, start, stop = function.args
        k = Body(builder, function, dtype)
        whole = k.b.and_(count, k.whole(-_TILE))
        with k.loop(start, stop, _LONG) as first:
            last = k.least(k.add(first, _LONG), stop)
            with k.loop(first, last, k.lanes) as c:
                k.store(k.const(0.0), out, c)
            for begin, end, tall in ((0, whole, _TILE), (whole, count, 1)):
                with k.loop(begin, end, tall) as j:
                    some = [k.add(j, a) for a in range(tall)]
                    places = [k.b.load(k.at(offsets, each, k.i64)) for each in some]
                    shares = [k.everywhere(k.narrowed(k.number_at(weights, each))) for each in some]
                    with k.loop(first, last, k.lanes) as c:
                        total = k.load(out, c)
                        for place, share in zip(places, shares, strict=True):
                            total = k.fma(share, k.load(rows, k.add(place, c)), total)
                        k.store(total, out, c)

    return compiled(f"streamed_{dtype.itemsize}", "pppipii", emit)


@cache
def _mixed(dtype: torch.dtype, width: int) -> Run:
    def emit(builder: Any, function: Any) -> None:
        rows, offsets, mixing, n, out, m, d = function.args
        k = Body(builder, function, dtype, width)
        with k.loop(0, m) as i:
            weights, row = k.at(mixing, k.times(i, n), k.double), k.at(out, k.times(i, d), k.scalar)
            _write_sum(k, 1, rows, offsets, weights, n, row, 0, d)

    return compiled(f"mixed_{dtype.itemsize}_{width}", "pppipii", emit)


def _write_sum(
    k: Body, deep: int, rows: Any, offsets: Any, weights: Any, count: Any, out: Any, start: Any, stop: Any
) -> None:
    """The body of a kernel: columns start .. stop of a weighted sum of rows, `deep` vectors at a time."""
    with k.pieces(start, stop, deep * k.lanes) as column:
        held = [k.zeros() for _ in range(deep)]
        with k.loop(0, count) as j:
            place = k.add(k.b.load(k.at(offsets, j, k.i64)), column)
            share = k.everywhere(k.narrowed(k.number_at(weights, j)))
            for a in range(deep):
                value = k.load(rows, k.add(place, a * k.lanes))
                k.b.store(k.fma(share, value, k.b.load(held[a])), held[a])
        for a in range(deep):
            k.store(k.b.load(held[a]), out, k.add(column, a * k.lanes))


@cache
def _sources(height: int) -> Run:
    """Writes the weights that are not 0, where their rows begin, and how many they are. With `height` the
    weights are carried through shares first, so many rows at a time; else there are none."""

    def write(k: Body, weights: Any, shares: Any, order: Any, kept: Any, n: Any, m: Any, stride: Any) -> None:
        offsets, count = (k.at(kept, k.times(n, i), k.double) for i in (1, 2))
        carried = weights
        if height:
            carried = offsets
            with k.tiles(n, height) as j:
                held = [k.zeros() for _ in range(height)]
                with k.loop(0, m) as i:
                    for a, place in enumerate(held):
                        share = k.load(shares, k.add(k.times(k.add(j, a), m), i))
                        k.b.store(k.fma(share, k.load(weights, i), k.b.load(place)), place)
                for a, place in enumerate(held):
                    k.store(k.b.load(place), carried, k.add(j, a))
        found = k.local(k.i64, k.whole(0))
        with k.loop(0, n) as j:
            share = k.number_at(carried, j)
            with k.b.if_then(k.b.fcmp_unordered("!=", share, k.double(0.0))):
                k.put(share, kept, k.b.load(found))
                begin = k.times(k.b.load(k.at(order, j, k.i64)), stride)
                k.b.store(begin, k.at(offsets, k.b.load(found), k.i64))
                k.b.store(k.add(k.b.load(found), 1), found)
        k.put(k.b.sitofp(k.b.load(found), k.double), count, 0)

    return body(f"sources_{height}", "ppppiii", 1, write)
