"""The number of a rank among numbers at hand, by counting.

Doubles are in the order of their bits, but that those of negative ones are turned round. So the number of a
rank is found by counting how many are at most a pivot: that is one comparison for each, a vector at a time,
of numbers that stay in the first-level cache. Pivots are where the rank would be were the numbers spread
evenly between two known ones, and in every fourth pass halfway by their bits, so that there are never more
than four passes for each bit.

Numbers lie in a `room` that is filled up with Inf to `full`, a multiple of `DEEP` vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from byzopt.kernels.emit import Body

DEEP = 4  # vectors at a time, whose counts are apart
_EVERY = 4  # of so many passes one halves the bits that are in question
_SNAP = 16  # of so many one is preceded by a look at which numbers the ends are


def select(k: Body, room: Any, full: Any, n: Any, rank: Any, top: Any, least: Any = None) -> tuple[Any, Any]:
    """The number of that rank among those in `room`, none of which is above `top`, nor below the `least` (0
    if it is not given), and how many are at most that.

    It lies from `low` to `high`; so many numbers are `below` the one, and at most the other: `within`.
    """
    first = k.whole(0) if least is None else _place(k, least)
    low, high = k.local(k.i64, first), k.local(k.i64, _place(k, top))
    below, within, turn = (k.local(k.i64, value) for value in (k.whole(0), n, k.whole(0)))
    head, body, end = (k.function.append_basic_block(part) for part in ("head", "body", "end"))
    k.b.branch(head)
    k.b.position_at_end(head)
    apart = k.b.icmp_signed("<", k.b.load(low), k.b.load(high))
    several = k.b.icmp_signed(">", k.b.load(within), k.add(rank, 1))
    k.b.cbranch(k.b.and_(apart, several), body, end)
    k.b.position_at_end(body)
    late = k.b.icmp_signed("==", k.b.and_(k.b.load(turn), k.whole(_SNAP - 1)), k.whole(_SNAP - 1))
    with k.b.if_then(late):  # where many numbers are equal the ends soon are such
        for place, found in ((low, least_from), (high, greatest)):
            k.b.store(_place(k, found(k, room, full, _number(k, k.b.load(place)))), place)
    ends = [k.b.load(each) for each in (low, high, below, within)]
    pivot = k.least(_pivot(k, ends, k.b.load(turn), rank), ends[1])
    count = count_within(k, room, full, _number(k, pivot))
    reached = k.b.icmp_signed(">", count, rank)
    for place, value in ((high, pivot), (within, count)):
        k.b.store(k.b.select(reached, value, k.b.load(place)), place)
    for place, value in ((low, k.add(pivot, 1)), (below, count)):
        k.b.store(k.b.select(reached, k.b.load(place), value), place)
    k.b.store(k.add(k.b.load(turn), 1), turn)
    k.b.branch(head)
    k.b.position_at_end(end)
    return greatest(k, room, full, _number(k, k.b.load(high))), k.b.load(within)


def _place(k: Body, number: Any) -> Any:
    """A double as an int64, in the same order: its bits, but that those of negative ones are turned round."""
    bits = k.b.bitcast(number, k.i64)
    negative = k.b.icmp_signed("<", bits, k.whole(0))
    return k.b.select(negative, k.b.xor(bits, k.whole((1 << 63) - 1)), bits)


def _number(k: Body, place: Any) -> Any:
    """The double that has this place."""
    negative = k.b.icmp_signed("<", place, k.whole(0))
    return k.b.bitcast(k.b.select(negative, k.b.xor(place, k.whole((1 << 63) - 1)), place), k.double)


def _pivot(k: Body, ends: list[Any], turn: Any, rank: Any) -> Any:
    """A place from `low` on and below `high`; first the lowest: 0, as far apart as many rows are behind a
    stage."""
    low, high, below, within = ends
    half = k.b.add(low, k.b.lshr(k.b.sub(high, low), k.whole(1)))
    first, last = (_number(k, each) for each in (low, high))
    many = k.b.sitofp(k.b.sub(within, below), k.double)
    # In turns a little above and below, by as much as a rank among so many strays: soon both ends are near.
    up = k.b.icmp_signed("==", k.b.and_(turn, k.whole(1)), k.whole(0))
    one = Body(k.b, k.function, torch.float64, 1)
    stray = k.b.extract_element(one.root(one.everywhere(many)), k.ir.Constant(k.ir.IntType(32), 0))
    stray = k.b.fmul(stray, k.b.select(up, k.double(0.5), k.double(-0.5)))
    aimed = k.b.fadd(k.b.sitofp(k.b.sub(rank, below), k.double), k.b.fadd(stray, k.double(0.5)))
    least = k.double(0.5)
    share = k.b.fdiv(k.b.select(k.b.fcmp_ordered("<", aimed, least), least, aimed), many)
    at = _place(k, k.b.fadd(first, k.b.fmul(k.b.fsub(last, first), share)))
    fits = k.b.and_(k.b.icmp_signed(">=", at, low), k.b.icmp_signed("<", at, high))
    evenly = k.b.icmp_signed("<", k.b.and_(turn, k.whole(_EVERY - 1)), k.whole(_EVERY - 1))
    begun = k.b.icmp_signed(">", turn, k.whole(0))
    return k.b.select(begun, k.b.select(k.b.and_(fits, evenly), at, half), low)


def count_within(k: Body, room: Any, full: Any, pivot: Any) -> Any:
    """How many of the numbers in `room` are at most the pivot."""
    kind, spread = k.ir.VectorType(k.i64, k.lanes), k.everywhere(pivot)
    held = [k.local(kind, k.ir.Constant(kind, None)) for _ in range(DEEP)]
    with k.loop(0, full, DEEP * k.lanes) as j:
        for v, place in enumerate(held):
            near = k.b.fcmp_ordered("<=", k.load(room, k.add(j, v * k.lanes)), spread)
            k.b.store(k.b.add(k.b.load(place), k.b.zext(near, kind)), place)
    total, count = k.b.load(held[0]), k.whole(0)
    for place in held[1:]:
        total = k.b.add(total, k.b.load(place))
    for lane in range(k.lanes):
        count = k.add(count, k.b.extract_element(total, k.ir.Constant(k.ir.IntType(32), lane)))
    return count


def greatest(k: Body, room: Any, full: Any, bound: Any) -> Any:
    """The greatest of the numbers in `room` that are at most the bound."""
    return _furthest(k, room, full, bound, "<=", -np.inf)


def least_from(k: Body, room: Any, full: Any, bound: Any) -> Any:
    """The least of the numbers in `room` that are at least the bound."""
    return _furthest(k, room, full, bound, ">=", np.inf)


def _furthest(k: Body, room: Any, full: Any, bound: Any, side: str, worst: float) -> Any:
    """The number in `room` on one side of the bound that is next to it."""
    better, spread, nothing = ">" if side == "<=" else "<", k.everywhere(bound), k.const(worst)
    held, best = k.local(k.vector, nothing), k.local(k.double, k.double(worst))
    with k.loop(0, full, k.lanes) as j:
        value, before = k.load(room, j), k.b.load(held)
        nearer = k.b.and_(k.b.fcmp_ordered(side, value, spread), k.b.fcmp_ordered(better, value, before))
        k.b.store(k.b.select(nearer, value, before), held)
    for lane in range(k.lanes):
        value, before = (
            k.b.extract_element(k.b.load(held), k.ir.Constant(k.ir.IntType(32), lane)),
            k.b.load(best),
        )
        k.b.store(k.b.select(k.b.fcmp_ordered(better, value, before), value, before), best)
    return k.b.load(best)


def raise_to(k: Body, place: Any, value: Any) -> None:
    before = k.b.load(place)
    k.b.store(k.b.select(k.b.fcmp_ordered(">", value, before), value, before), place)
