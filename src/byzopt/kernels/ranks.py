"""Of many rows, each row's distance of a rank to all rows, and who lies within: selected, not sorted.

A row's distances stay in the first-level cache while those at most a pivot are counted (`selecting`).
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch

from byzopt.kernels.centres import TIE
from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, aligned, compiled, lanes, parallel_for, switched
from byzopt.kernels.selecting import DEEP, count_within, raise_to, select

Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"


def selects() -> bool:
    """Whether kernels select among n x n numbers."""
    return switched("cpu") and lanes(torch.float64) > 0


def reaches(gram: Array, rank: int) -> Array:
    """Squared distances `[n]` of rows to their `rank`-th nearest (0: themselves), by finite products `gram`
    `[n, n]` about any row."""
    found = np.empty(len(gram))
    _select_from(gram, rank, "reach", found)
    return found


def tightest(gram: Array, rank: int) -> Array:
    """As `reaches`, of the rows where it is least, within a share of `TIE`; Inf of others, which one count
    shows to reach further."""
    own = gram.diagonal()
    first, found = int(own.argmin()), np.empty(len(gram))
    _select_from(gram, rank, "reach", found, first, first + 1)
    found[:] = found[first]
    _select_from(gram, rank, "tight", found)
    return found


def nearest_sums(gram: Array, count: int) -> Array:
    """Σ `[n]` of each row's squared distances to the `count` rows nearest to it, itself the first of them.

    It is as good as exact, and so the same for rows that have the same distances in another order: see
    `_total`.
    """
    found = np.empty(len(gram))
    _select_from(gram, count - 1, "sum", found)
    return found


def nearest_rows(gram: Array, count: int) -> Mask:
    """Which `count` rows lie nearest to each row, `[n, n]`: itself, and of equally near ones the first."""
    chosen = np.empty(gram.shape, dtype=np.bool_)
    _select_from(gram, count - 1, "marks", chosen)
    return chosen


def _select_from(
    gram: Array, rank: int, what: str, out: Any, first: int = 0, last: int | None = None
) -> None:
    """Writes to `out` what is asked of the first rank + 1 distances of all rows, or of first .. last - 1."""
    n = len(gram)
    last = n if last is None else last
    gram = gram if gram.strides[1] == gram.itemsize else np.ascontiguousarray(gram)
    own, run, step = np.ascontiguousarray(gram.diagonal()), _kernel(what), DEEP * lanes(torch.float64)
    where = address(gram), gram.strides[0] // gram.itemsize, address(own)

    def part(start: int, stop: int) -> None:
        room = aligned(-(-n // step) * step)
        run(*where, address(room), address(out), n, rank, first + start, first + stop)

    parallel_for(last - first, (last - first) * n, 1, part)


@cache
def _kernel(what: str) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, torch.float64)
        gram, stride, own, room, out, n, rank, start, stop = function.args
        step = DEEP * k.lanes
        full = k.b.and_(k.add(n, step - 1), k.whole(-step))
        with k.loop(n, full) as j:  # beyond the last row there is nobody near
            k.put(k.double(float("inf")), room, j)
        bound = k.local(k.double, k.number_at(out, start) if what == "tight" else k.double(0.0))
        with k.loop(start, stop) as i:
            top = _measure(k, k.at(gram, k.times(i, stride), k.double), own, room, i, n)
            if what == "tight":
                tighten(k, room, full, n, rank, bound, k.at(out, i, k.double))
            else:
                _write(k, what, room, full, n, rank, top, out, i)

    return compiled(f"ranks_{what}", "pipppiiii", emit)


def _write(k: Body, what: str, room: Any, full: Any, n: Any, rank: Any, top: Any, out: Any, i: Any) -> None:
    """Writes what is asked of row i, whose distances are in `room`."""
    limit, within = select(k, room, full, n, rank, top)
    if what == "marks":
        _mark(k, room, limit, within, k.at(out, k.times(i, n), k.ir.IntType(8)), i, n, rank)
    else:
        k.put(limit if what == "reach" else _total(k, room, full, limit, n, rank), out, i)


def _measure(k: Body, products: Any, own: Any, room: Any, i: Any, n: Any) -> Any:
    """Row i's squared distances to all n rows into `room`, and the largest."""
    most, full = k.zeros(), k.b.and_(n, k.whole(-k.lanes))
    one = Body(k.b, k.function, torch.float64, 1)
    for body, start, stop in ((k, k.whole(0), full), (one, full, n)):
        mine, nothing = body.spread(own, i), body.const(0.0)
        with k.loop(start, stop, body.lanes) as j:
            product = body.load(products, j)
            apart = k.b.fsub(k.b.fadd(mine, body.load(own, j)), k.b.fadd(product, product))
            body.store(body.greater(apart, nothing), room, j)
    k.put(k.double(0.0), room, i)
    with k.loop(0, full, k.lanes) as j:
        k.b.store(k.greater(k.load(room, j), k.b.load(most)), most)
    top, found = k.local(k.double, k.double(0.0)), k.b.load(most)
    for lane in range(k.lanes):
        raise_to(k, top, k.b.extract_element(found, k.ir.Constant(k.ir.IntType(32), lane)))
    with k.loop(full, n) as j:
        raise_to(k, top, k.number_at(room, j))
    return k.b.load(top)


def tighten(k: Body, room: Any, full: Any, n: Any, rank: Any, bound: Any, place: Any) -> None:
    """Writes the number of that rank in `room`, if it is not above the bound but for rounding, which it then
    becomes; else Inf."""
    limit = k.local(k.double, k.double(np.inf))
    loose = k.b.fmul(k.b.load(bound), k.double(1 + 2 * TIE))
    with k.b.if_then(k.b.icmp_signed(">", count_within(k, room, full, loose), rank)):
        value, _ = select(k, room, full, n, rank, loose)
        k.b.store(value, limit)
        k.b.store(k.b.select(k.b.fcmp_ordered("<", value, k.b.load(bound)), value, k.b.load(bound)), bound)
    k.put(k.b.load(limit), place, 0)


def _mark(k: Body, room: Any, limit: Any, within: Any, chosen: Any, i: Any, n: Any, rank: Any) -> None:
    """Writes which of the numbers in `room` are the first rank + 1: those below the limit, number i, and of
    others that equal the limit the first; `within` are at most the limit."""
    byte, spread, full = k.ir.IntType(8), k.everywhere(limit), k.b.and_(n, k.whole(-k.lanes))
    kind = k.ir.VectorType(byte, k.lanes)
    with k.loop(0, full, k.lanes) as j:
        near = k.b.zext(k.b.fcmp_ordered("<=", k.load(room, j), spread), kind)
        k.b.store(near, k.b.bitcast(k.at(chosen, j, byte), kind.as_pointer()), align=1)
    with k.loop(full, n) as j:
        near = k.b.fcmp_ordered("<=", k.number_at(room, j), limit)
        k.b.store(k.b.zext(near, byte), k.at(chosen, j, byte))
    with k.b.if_then(k.b.icmp_signed(">", within, k.add(rank, 1))):
        spare = k.local(k.i64, k.add(rank, 1))

        def take(taken: Any) -> None:
            k.b.store(k.b.sub(k.b.load(spare), k.b.zext(taken, k.i64)), spare)

        def inside(j: Any) -> Any:
            near = k.b.fcmp_ordered("<", k.number_at(room, j), limit)
            return k.b.or_(near, k.b.icmp_signed("==", j, i))

        with k.loop(0, n) as j:
            take(inside(j))
        with k.loop(0, n) as j:
            near = k.b.fcmp_ordered("==", k.number_at(room, j), limit)
            there = inside(j)
            rim = k.b.and_(k.b.and_(near, k.b.not_(there)), k.b.icmp_signed(">", k.b.load(spare), k.whole(0)))
            take(rim)
            k.b.store(k.b.zext(k.b.or_(there, rim), byte), k.at(chosen, j, byte))


def _total(k: Body, room: Any, full: Any, limit: Any, n: Any, rank: Any) -> Any:
    """The sum of the rank + 1 least numbers in `room`, the last of which is the limit.

    A number is cut in two by adding and subtracting a power of two above twice all sums: what is left of it
    then are multiples of one last place, whose sums are exact in any order. The rest is cut in the same way.
    """
    many, top = k.b.sitofp(n, k.double), k.ir.Constant(k.i64, 0x7FF << 52)

    def above(value: Any) -> Any:
        """A power of two that is more than twice a number."""
        floor = k.b.bitcast(k.b.and_(k.b.bitcast(value, k.i64), top), k.double)
        return k.b.fmul(floor, k.double(4.0))

    coarse = above(k.b.fmul(many, limit))
    fine = above(k.b.fmul(many, k.b.fmul(coarse, k.double(2.0**-52))))
    sums, counts, bound = [k.zeros(), k.zeros()], k.zeros(), k.everywhere(limit)
    with k.loop(0, full, k.lanes) as j:
        value = k.load(room, j)
        inside = k.b.fcmp_ordered("<", value, bound)
        rest = k.b.select(inside, value, k.const(0.0))
        for cut, place in zip((coarse, fine), sums, strict=True):
            level = k.everywhere(cut)
            piece = k.b.fsub(k.b.fadd(rest, level), level)
            rest = k.b.fsub(rest, piece)
            k.b.store(k.b.fadd(k.b.load(place), piece), place)
        one = k.b.select(inside, k.const(1.0), k.const(0.0))
        k.b.store(k.b.fadd(k.b.load(counts), one), counts)
    left = k.b.fsub(k.b.sitofp(k.add(rank, 1), k.double), k.total(k.b.load(counts)))
    high, low = (k.total(k.b.load(place)) for place in sums)
    return k.b.fadd(k.b.fadd(high, low), k.b.fmul(left, limit))
