"""Products of a matrix that holds 1, -1 and mostly 0: sums and differences of columns, nothing multiplied."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, aligned, compiled, lanes, parallel_for

Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

_WIDE = 24  # columns of the result at a time: as many rows of the other matrix stay in second-level cache
_NEAR = 384  # rows of the other matrix at a time: most of these columns of them stay in first-level cache
_SUMS = 256  # rows of the result, whose sums lie beside them while they do


def signed_products(plus: Mask, minus: Mask, gram: Array) -> tuple[Array, Array]:
    """`S @ gram` `[m, n]` and `S @ gram @ S.T` `[m, m]`, symmetric, of S = plus - minus with bools `[m, n]`
    and of a symmetric `gram` `[n, n]`; m and n are 32 or more.

    Each number is a sum over the rows that `plus` names less those of `minus`, some after the other. What
    stands where both are False is not read: it may be huge, or not finite.
    """
    m, n = plus.shape
    lists = [part for chosen in (plus, minus) for part in _listed(chosen)]
    moved, product = np.empty((m, n)), np.empty((m, m))
    _times(lists, np.ascontiguousarray(gram), moved, 0)
    _times(lists, moved, product, 1)

    def mirror(start: int, stop: int) -> None:
        for i in range(start, stop, _WIDE):
            tile = product[i:, i : i + _WIDE]
            tile[:_WIDE] = np.tril(tile[:_WIDE]) + np.tril(tile[:_WIDE], -1).T
            product[i : i + _WIDE, i + _WIDE :] = tile[_WIDE:].T

    parallel_for(m, m * m, _WIDE, mirror)
    return moved, product


def _times(lists: list[Any], right: Array, out: Array, half: int) -> None:
    """`S @ right.T` into `out`; with `half` = 1 no more than what is on or below the diagonal."""
    (m, width), n = out.shape, right.shape[1]
    run, where = _kernel(), [address(part) for part in lists]

    def part(start: int, stop: int) -> None:
        room = aligned((n + _SUMS) * _WIDE)
        run(*where, address(right), address(room), address(out), m, n, width, half, start, stop)

    parallel_for(-(-width // _WIDE), m * n, 1, part)


def _listed(chosen: Mask) -> tuple[Any, Any]:
    """The places of each row, one row after the other, and where in them those from each `_NEAR` columns on
    begin, `[k + 1, m]`; the last are the ends of the rows."""
    m, n = chosen.shape
    starts = np.zeros((-(-n // _NEAR) + 1, m), dtype=np.int64)

    def count(start: int, stop: int) -> None:
        for i in range(start, stop, _WIDE):
            rows = slice(i, min(i + _WIDE, stop))
            each = np.add.reduceat(chosen[rows].view(np.int8), range(0, n, _NEAR), axis=1, dtype=np.int64)
            starts[1:, rows] = each.cumsum(axis=1).T

    parallel_for(m, chosen.size, _WIDE, count)
    begun = np.concatenate([[0], starts[-1].cumsum()])
    starts += begun[:-1]
    places = np.zeros(begun[-1] + 1, dtype=np.int32)  # one more: there is an address

    def part(start: int, stop: int) -> None:
        for i in range(start, stop, _WIDE):
            rows = slice(i, min(i + _WIDE, stop))
            places[begun[i] : begun[rows.stop]] = chosen[rows].nonzero()[1]

    parallel_for(m, chosen.size, _WIDE, part)
    return starts, places


@cache
def _kernel() -> Run:
    vectors = range(0, _WIDE, lanes(torch.float64))

    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, torch.float64)
        *lists, right, room, out, m, n, width, half, start, stop = function.args
        with k.loop(start, stop) as tile:
            first = k.least(k.times(tile, _WIDE), k.add(width, -_WIDE))
            lines = [k.times(k.add(first, i), n) for i in range(_WIDE)]
            with k.loop(0, n) as j:
                for i, line in enumerate(lines):
                    k.put(k.number_at(right, k.add(line, j)), room, k.add(k.times(j, _WIDE), i))
            sums = k.at(room, k.times(n, _WIDE), k.double)
            with k.loop(k.times(first, half), m, _SUMS) as top:
                bottom = k.least(k.add(top, _SUMS), m)
                count = k.times(k.b.sub(bottom, top), _WIDE)
                with k.loop(0, count, k.lanes) as at:
                    k.store(k.const(0.0), sums, at)
                with k.loop(0, n, _NEAR) as near, k.loop(top, bottom) as row:
                    begin = k.add(k.times(k.b.udiv(near, k.whole(_NEAR)), m), row)
                    line = k.times(k.b.sub(row, top), _WIDE)
                    held = [k.local(k.vector, k.load(sums, k.add(line, v))) for v in vectors]
                    for add, starts, places in ((k.b.fadd, *lists[:2]), (k.b.fsub, *lists[2:])):
                        ends = (k.b.load(k.at(starts, at, k.i64)) for at in (begin, k.add(begin, m)))
                        with k.loop(*ends) as p:
                            other = k.times(k.index(places, p), _WIDE)
                            for v, at in zip(vectors, held, strict=True):
                                k.b.store(add(k.b.load(at), k.load(room, k.add(other, v))), at)
                    for v, at in zip(vectors, held, strict=True):
                        k.store(k.b.load(at), sums, k.add(line, v))
                with k.loop(top, bottom) as row:
                    for v in vectors:
                        value = k.load(sums, k.add(k.times(k.b.sub(row, top), _WIDE), v))
                        k.store(value, out, k.add(k.times(row, width), first, v))

    return compiled("signed", "pppppppiiiiii", emit)
