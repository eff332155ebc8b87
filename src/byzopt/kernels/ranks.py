"""Of many rows, each row's distance of a rank to all rows, and who lies within: selected, not sorted.

Doubles that are not negative are in the order of their bits. So the number of a rank is found by counting how
many are at most a pivot: that is one comparison for each, a vector at a time, of a row that stays in the
first-level cache. Pivots are where the rank would be were the numbers spread evenly between two known ones,
and in every fourth pass halfway by their bits, so that there are never more than four passes for each bit.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, aligned, compiled, lanes, parallel_for, switched

Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

_DEEP = 4  # vectors at a time, whose counts are apart
_EVERY = 4  # of so many passes one halves the bits that are in question


def selects() -> bool:
    """Whether kernels select among n x n numbers."""
    return switched("cpu") and lanes(torch.float64) > 0


def reaches(gram: Array, rank: int) -> Array:
    """Squared distances `[n]` of rows to their `rank`-th nearest (0: themselves), by finite products `gram`
    `[n, n]` about any row."""
    found = np.empty(len(gram))
    _select_from(gram, rank, "reach", found)
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


def _select_from(gram: Array, rank: int, what: str, out: Any) -> None:
    """Writes to `out` what is asked of each row's first rank + 1 distances."""
    n = len(gram)
    gram = gram if gram.strides[1] == gram.itemsize else np.ascontiguousarray(gram)
    own, run, step = np.ascontiguousarray(gram.diagonal()), _kernel(what), _DEEP * lanes(torch.float64)
    where = address(gram), gram.strides[0] // gram.itemsize, address(own)

    def part(start: int, stop: int) -> None:
        room = aligned(-(-n // step) * step)
        run(*where, address(room), address(out), n, rank, start, stop)

    parallel_for(n, n * n, 1, part)


@cache
def _kernel(what: str) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, torch.float64)
        gram, stride, own, room, out, n, rank, start, stop = function.args
        step = _DEEP * k.lanes
        full = k.b.and_(k.add(n, step - 1), k.whole(-step))
        with k.loop(n, full) as j:  # beyond the last row there is nobody near
            k.put(k.double(float("inf")), room, j)
        with k.loop(start, stop) as i:
            top = _measure(k, k.at(gram, k.times(i, stride), k.double), own, room, i, n)
            limit, within = _select(k, room, full, n, rank, top)
            if what == "marks":
                _mark(k, room, limit, within, k.at(out, k.times(i, n), k.ir.IntType(8)), i, n, rank)
            else:
                k.put(limit if what == "reach" else _total(k, room, full, limit, n, rank), out, i)

    return compiled(f"ranks_{what}", "pipppiiii", emit)


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
        _raise(k, top, k.b.extract_element(found, k.ir.Constant(k.ir.IntType(32), lane)))
    with k.loop(full, n) as j:
        _raise(k, top, k.number_at(room, j))
    return k.b.load(top)


def _raise(k: Body, place: Any, value: Any) -> None:
    before = k.b.load(place)
    k.b.store(k.b.select(k.b.fcmp_ordered(">", value, before), value, before), place)


def _select(k: Body, room: Any, full: Any, n: Any, rank: Any, top: Any) -> tuple[Any, Any]:
    """The number of that rank among those in `room`, none of which is above `top`, and how many are at most
    that.

    It lies from `low` to `high`; so many numbers are `below` the one, and at most the other: `within`.
    """
    low, high = k.local(k.i64, k.whole(0)), k.local(k.i64, k.b.bitcast(top, k.i64))
    below, within, turn = (k.local(k.i64, value) for value in (k.whole(0), n, k.whole(0)))
    head, body, end = (k.function.append_basic_block(part) for part in ("head", "body", "end"))
    k.b.branch(head)
    k.b.position_at_end(head)
    apart = k.b.icmp_signed("<", k.b.load(low), k.b.load(high))
    several = k.b.icmp_signed(">", k.b.load(within), k.add(rank, 1))
    k.b.cbranch(k.b.and_(apart, several), body, end)
    k.b.position_at_end(body)
    ends = [k.b.load(each) for each in (low, high, below, within)]
    pivot = _pivot(k, ends, k.b.load(turn), rank)
    count = _count(k, room, full, k.b.bitcast(pivot, k.double))
    reached = k.b.icmp_signed(">", count, rank)
    for place, value in ((high, pivot), (within, count)):
        k.b.store(k.b.select(reached, value, k.b.load(place)), place)
    for place, value in ((low, k.add(pivot, 1)), (below, count)):
        k.b.store(k.b.select(reached, k.b.load(place), value), place)
    k.b.store(k.add(k.b.load(turn), 1), turn)
    k.b.branch(head)
    k.b.position_at_end(end)
    return _greatest(k, room, full, k.b.bitcast(k.b.load(high), k.double)), k.b.load(within)


def _pivot(k: Body, ends: list[Any], turn: Any, rank: Any) -> Any:
    """Bits from `low` on and below `high`; first 0, as far apart as many rows are behind a stage."""
    low, high, below, within = ends
    half = k.b.add(low, k.b.lshr(k.b.sub(high, low), k.whole(1)))
    first, last = (k.b.bitcast(each, k.double) for each in (low, high))
    many = k.b.sitofp(k.b.sub(within, below), k.double)
    # In turns a little above and below, by as much as a rank among so many strays: soon both ends are near.
    up = k.b.icmp_signed("==", k.b.and_(turn, k.whole(1)), k.whole(0))
    one = Body(k.b, k.function, torch.float64, 1)
    stray = k.b.extract_element(one.root(one.everywhere(many)), k.ir.Constant(k.ir.IntType(32), 0))
    stray = k.b.fmul(stray, k.b.select(up, k.double(0.5), k.double(-0.5)))
    aimed = k.b.fadd(k.b.sitofp(k.b.sub(rank, below), k.double), k.b.fadd(stray, k.double(0.5)))
    least = k.double(0.5)
    share = k.b.fdiv(k.b.select(k.b.fcmp_ordered("<", aimed, least), least, aimed), many)
    at = k.b.bitcast(k.b.fadd(first, k.b.fmul(k.b.fsub(last, first), share)), k.i64)
    fits = k.b.and_(k.b.icmp_signed(">=", at, low), k.b.icmp_signed("<", at, high))
    evenly = k.b.icmp_signed("<", k.b.and_(turn, k.whole(_EVERY - 1)), k.whole(_EVERY - 1))
    begun = k.b.icmp_signed(">", turn, k.whole(0))
    return k.b.select(begun, k.b.select(k.b.and_(fits, evenly), at, half), low)


def _count(k: Body, room: Any, full: Any, pivot: Any) -> Any:
    """How many of the numbers in `room` are at most the pivot."""
    kind, spread = k.ir.VectorType(k.i64, k.lanes), k.everywhere(pivot)
    held = [k.local(kind, k.ir.Constant(kind, None)) for _ in range(_DEEP)]
    with k.loop(0, full, _DEEP * k.lanes) as j:
        for v, place in enumerate(held):
            near = k.b.fcmp_ordered("<=", k.load(room, k.add(j, v * k.lanes)), spread)
            k.b.store(k.b.add(k.b.load(place), k.b.zext(near, kind)), place)
    total, count = k.b.load(held[0]), k.whole(0)
    for place in held[1:]:
        total = k.b.add(total, k.b.load(place))
    for lane in range(k.lanes):
        count = k.add(count, k.b.extract_element(total, k.ir.Constant(k.ir.IntType(32), lane)))
    return count


def _greatest(k: Body, room: Any, full: Any, bound: Any) -> Any:
    """The greatest of the numbers in `room` that are at most the bound."""
    most, spread, nothing = k.zeros(), k.everywhere(bound), k.const(0.0)
    with k.loop(0, full, k.lanes) as j:
        value = k.load(room, j)
        inside = k.b.select(k.b.fcmp_ordered("<=", value, spread), value, nothing)
        k.b.store(k.greater(inside, k.b.load(most)), most)
    top, found = k.local(k.double, k.double(0.0)), k.b.load(most)
    for lane in range(k.lanes):
        _raise(k, top, k.b.extract_element(found, k.ir.Constant(k.ir.IntType(32), lane)))
    return k.b.load(top)


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
