"""Products of a matrix that holds mostly 0, and in each column either 1 or -1: sums of rows."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, aligned, compiled, lanes, parallel_for

Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

_WIDE = 4  # vectors of columns of the result at a time
_NEAR = 256  # rows of the other matrix at a time: these columns of them stay near
_SUMS = 256  # rows of the result, whose sums lie beside them while they do


def signed_products(
    there: Mask, negative: Mask, gram: Array, dtype: torch.dtype = torch.float64
) -> tuple[Array, Array]:
    """`S @ gram` `[m, n]` and `S @ gram @ S.T` `[m, m]`, symmetric, of a symmetric `gram` `[n, n]` and the
    matrix S `[m, n]` that is not 0 where `there` says so: then it is -1 in the `negative` columns `[n]` and 1
    in others. m and n are 64 or more.

    Each number is a sum of those of some rows, of up to 256 one after the other in `dtype`, then in float64.
    What stands where S is 0 is not read: it may be huge, or not finite.
    """
    m, n = there.shape
    lists = _listed(there)
    signs = np.where(negative, -1.0, 1.0)
    moved, product = np.empty((m, n)), np.empty((m, m))
    _times(lists, signs, np.ascontiguousarray(gram), moved, 0, dtype)
    _times(lists, signs, moved, product, 1, dtype)
    step = _WIDE * lanes(dtype)

    def mirror(start: int, stop: int) -> None:
        for i in range(start, stop, step):
            tile = product[i:, i : i + step]
            tile[:step] = np.tril(tile[:step]) + np.tril(tile[:step], -1).T
            product[i : i + step, i + step :] = tile[step:].T

    parallel_for(m, m * m, step, mirror)
    return moved, product


def _times(lists: Any, signs: Array, right: Array, out: Array, half: int, dtype: torch.dtype) -> None:
    """`S @ right.T` into `out`; with `half` = 1 no more than what is on or below the diagonal."""
    (m, width), n, wide = out.shape, right.shape[1], _WIDE * lanes(dtype)
    run, where = _kernel(dtype), [address(part) for part in (*lists, signs, right)]
    tiles, threads = -(-width // wide), torch.get_num_threads()

    def part(start: int, stop: int) -> None:
        room, sums = aligned(n * wide * dtype.itemsize // 8), aligned(_SUMS * wide)
        for own in range(start, stop):  # later tiles are shorter: every thread takes some of each length
            run(*where, address(room), address(sums), address(out), m, n, width, half, own, tiles, threads)

    parallel_for(threads, m * n * (wide // 8), 1, part)


def _listed(there: Mask) -> tuple[Any, Any]:
    """The places of each row, one row after the other, and where in them those from each `_NEAR` columns on
    begin, `[k + 1, m]`; the last are the ends of the rows."""
    m, n = there.shape
    there, counts = np.ascontiguousarray(there), np.empty(m, dtype=np.int64)

    def count(start: int, stop: int) -> None:
        counts[start:stop] = np.count_nonzero(there[start:stop], axis=1)

    parallel_for(m, there.size, 1, count)
    ends = (counts + 1).cumsum()  # one place more in each row: that beyond its last
    begun = ends - counts - 1
    places, starts = np.empty(ends[-1], dtype=np.int32), np.empty((-(-n // _NEAR) + 1, m), dtype=np.int64)
    run, where = _lister(), [address(each) for each in (there, begun, places, starts)]
    parallel_for(m, there.size, 1, lambda start, stop: run(*where, m, n, start, stop))
    return places, starts


@cache
def _lister() -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, torch.float64)
        there, begun, places, starts, m, n, start, stop = function.args
        byte, i32 = k.ir.IntType(8), k.ir.IntType(32)
        with k.loop(start, stop) as row:
            end, line = k.local(k.i64, k.b.load(k.at(begun, row, k.i64))), k.times(row, n)
            block = k.local(k.i64, row)

            def mark(end: Any = end, block: Any = block) -> None:
                k.b.store(k.b.load(end), k.at(starts, k.b.load(block), k.i64))
                k.b.store(k.add(k.b.load(block), m), block)

            with k.loop(0, n, _NEAR) as near:
                mark()
                with k.loop(near, k.least(k.add(near, _NEAR), n)) as j:
                    k.b.store(k.b.trunc(j, i32), k.at(places, k.b.load(end), i32))
                    more = k.b.zext(k.b.load(k.at(there, k.add(line, j), byte)), k.i64)
                    k.b.store(k.add(k.b.load(end), more), end)
            mark()

    return compiled("signed_lists", "ppppiiii", emit)


@cache
def _kernel(dtype: torch.dtype) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, dtype)
        double = Body(builder, function, torch.float64, k.lanes)
        places, starts, signs, right, room, sums, out, m, n, width, half, own, tiles, threads = function.args
        wide, vectors = _WIDE * k.lanes, [v * k.lanes for v in range(_WIDE)]
        with k.loop(own, tiles, threads) as tile:
            first = k.least(k.times(tile, wide), k.add(width, -wide))
            lines = [k.times(k.add(first, i), n) for i in range(wide)]
            with k.loop(0, n) as j:
                sign = k.number_at(signs, j)
                for i, line in enumerate(lines):
                    value = k.b.fmul(k.number_at(right, k.add(line, j)), sign)
                    k.b.store(k.narrowed(value), k.at(room, k.add(k.times(j, wide), i), k.scalar))
            with k.loop(k.times(first, half), m, _SUMS) as top:
                bottom = k.least(k.add(top, _SUMS), m)
                with k.loop(0, k.times(k.b.sub(bottom, top), wide), k.lanes) as at:
                    double.store(double.const(0.0), sums, at)
                with k.loop(0, n, _NEAR) as near, k.loop(top, bottom) as row:
                    begin = k.add(k.times(k.b.udiv(near, k.whole(_NEAR)), m), row)
                    line = k.times(k.b.sub(row, top), wide)
                    held = [k.zeros() for _ in vectors]
                    ends = (k.b.load(k.at(starts, at, k.i64)) for at in (begin, k.add(begin, m)))
                    with k.loop(*ends) as p:
                        other = k.times(k.index(places, p), wide)
                        for v, at in zip(vectors, held, strict=True):
                            k.b.store(k.b.fadd(k.b.load(at), k.load(room, k.add(other, v))), at)
                    for v, at in zip(vectors, held, strict=True):
                        before = double.load(sums, k.add(line, v))
                        double.store(k.b.fadd(before, k.widened(k.b.load(at), double)), sums, k.add(line, v))
                with k.loop(top, bottom) as row:
                    for v in vectors:
                        value = double.load(sums, k.add(k.times(k.b.sub(row, top), wide), v))
                        double.store(value, out, k.add(k.times(row, width), first, v))

    return compiled(f"signed_{dtype.itemsize}", "pppppppiiiiiii", emit)
