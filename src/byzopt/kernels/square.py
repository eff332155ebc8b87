"""What decisions ask of a few rows' n x n numbers, each in one call: distances and their order, who is
nearest, products after mixing.

An operation of NumPy on so few numbers takes a microsecond whatever it does, and a decision needs dozens.
Symmetric matrices are worked on by columns, one in each lane of a vector, so that all sums are taken in the
order of the rows, whatever the vectors' width: rows that agree in all their numbers get equal results.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, compiled, lanes, switched
from byzopt.kernels.networks import Places, pruned

FEW = 256  # rows up to which one thread measures n x n numbers faster than selections by several do
EXTREME = 1e-200  # squared lengths of float64 rows beyond this and its inverse ask for another unit
_TILE = 4  # rows of a product at a time
_FLAGS = 5  # numbers that say what distances are worth


def decides(n: int) -> bool:
    """Whether kernels work on n x n numbers."""
    return n <= FEW and switched("cpu") and lanes(torch.float64) > 0


class Measured:
    """What is known of n rows, one piece of memory: products `gram` `[n, n]` about a row, squared distances
    `dists` `[n, n]`, and in each column of `ranked` the same in ascending order.

    They mean nothing unless all products are `finite`. Squared lengths about the row that products are about
    are `ordinary` where they are finite, may be squared, and those of half of the rows do not vanish. The
    majority nearest to the row `best`, the first such one, lies within the least squared `radius`.
    """

    finite: bool
    ordinary: bool
    best: int
    radius: float

    def __init__(self, n: int, behind: int = 0) -> None:
        """Room for it, and for `behind` more doubles from the address `end` on."""
        self.n, self.square = n, n * n
        self.flags = 3 * self.square + n
        size = self.flags + _FLAGS + n * widest(n)
        self.work = np.empty(size + behind)
        self.first = address(self.work)
        self.end = self.first + 8 * size

    def seen(self) -> Measured:
        """This, once a kernel has written it."""
        trace, sane, large, best, self.radius = self.work[self.flags : self.flags + _FLAGS].tolist()
        self.finite, self.best = trace == 0, int(best)
        self.ordinary = sane == self.n and large >= self.n - self.n // 2
        return self

    @property
    def gram(self) -> Array:
        return self._part(0)

    @property
    def dists(self) -> Array:
        return self._part(1)

    @property
    def ranked(self) -> Array:
        return self._part(2)

    def _part(self, i: int) -> Array:
        return self.work[i * self.square : (i + 1) * self.square].reshape(self.n, self.n)


def measured_products(gram: Array) -> Measured:
    """What is known by products `gram` `[n, n]` about any row."""
    found = Measured(len(gram))
    found.gram[:] = gram
    run, places = _ranked(widest(found.n)), sorting(found.n)
    run(found.first, *places[:2], found.n)
    return found.seen()


def nearest_shares(found: Measured, count: int) -> Array:
    """In column i the weights `[n, n]` of the mean of the `count` rows nearest to row i, first of all itself;
    of equally near ones the first."""
    n, out = found.n, np.empty((found.n, found.n))
    limit = found.first + 8 * (2 * found.square + (count - 1) * n)
    _nearest(widest(n))(found.first + 8 * found.square, limit, address(out), n, count)
    return out


def mixed_products(shares: Array, before: Measured) -> Measured:
    """What is known by products `shares^T gram shares`, symmetric, for `shares` `[n, m]` and the products
    `gram` `[n, n]` known `before`. Equal columns give equal products."""
    (n, m), shares = shares.shape, np.ascontiguousarray(shares)
    found, places = Measured(m, behind=n * m), sorting(m)
    run = _mixed(widest(m), _TILE if min(n, m) >= _TILE else 1)
    run(address(shares), before.first, found.end, found.first, *places[:2], n, m)
    return found.seen()


def matrix_product(left: Array, right: Array) -> Array:
    """`left @ right`, `[m, k], [k, n] -> [m, n]`, each number summed alike wherever it stands."""
    (m, depth), n = left.shape, right.shape[1]
    left, right, out = np.ascontiguousarray(left), np.ascontiguousarray(right), np.empty((m, n))
    run = _multiplied(widest(n), _TILE if m >= _TILE else 1)
    run(address(left), address(right), address(out), m, depth, n)
    return out


def widest(n: int) -> int:
    """The widest vector that n columns fill."""
    return min(lanes(torch.float64), 1 << (n.bit_length() - 1))


@lru_cache(maxsize=FEW)
def sorting(n: int) -> tuple[int, int, Places]:
    """The comparators `[k, 2]` that sort n wires: where they lie, how many they are, and they themselves."""
    places = np.ascontiguousarray(pruned(n, 0, n)[0])
    return address(places), len(places), places


def body(name: str, arguments: str, width: int, write: Callable[..., None]) -> Run:
    """A kernel on vectors of `width` doubles, whose body `write(k, *arguments)` writes."""

    def emit(builder: Any, function: Any) -> None:
        write(Body(builder, function, torch.float64, width), *function.args)

    return compiled(f"{name}_{width}", arguments, emit)


@cache
def _ranked(width: int) -> Run:
    return body("ranked", "ppii", width, write_measured)


def write_measured(k: Body, gram: Any, places: Any, count: Any, n: Any) -> None:
    """The body of a kernel: what a `Measured` that begins at `gram` holds beside its products."""
    square = k.times(n, n)
    dists, ranked, own = (k.at(gram, k.times(i, square), k.double) for i in (1, 2, 3))
    flags = k.at(own, n, k.double)
    room = k.at(flags, _FLAGS, k.double)
    trace, zero = k.zeros(), k.const(0.0)
    counts = [k.local(k.double, k.double(0.0)) for _ in range(2)]
    with k.loop(0, n) as i:
        square = k.number_at(gram, k.times(i, k.add(n, 1)))
        k.put(square, own, i)
        bounds = ("<", 1 / EXTREME), (">", EXTREME)
        for place, (sign, bound) in zip(counts, bounds, strict=True):
            fits = k.b.fcmp_ordered(sign, square, k.double(bound))
            k.b.store(k.b.fadd(k.b.load(place), k.b.uitofp(fits, k.double)), place)
    with k.tiles(n, k.lanes) as c:
        mine, columns = k.load(own, c), _columns(k, c)
        with k.loop(0, n) as i:
            product = k.load(gram, k.add(k.times(i, n), c))
            k.b.store(k.fma(product, zero, k.b.load(trace)), trace)
            apart = k.b.fsub(k.b.fadd(k.spread(own, i), mine), k.b.fadd(product, product))
            itself = k.b.fcmp_ordered("==", columns, k.number(i))
            apart = k.b.select(itself, zero, k.greater(apart, zero))
            k.store(apart, dists, k.add(k.times(i, n), c))
            k.store(apart, room, k.times(i, k.lanes))
        with k.loop(0, count) as p:
            i, j = (k.times(k.index(places, k.add(k.times(p, 2), side)), k.lanes) for side in (0, 1))
            x, y = k.load(room, i), k.load(room, j)
            less = k.b.fcmp_ordered("<", y, x)
            k.store(k.b.select(less, y, x), room, i)
            k.store(k.b.select(less, x, y), room, j)
        with k.loop(0, n) as i:
            k.store(k.load(room, k.times(i, k.lanes)), ranked, k.add(k.times(i, n), c))
    best, least = k.local(k.i64, k.whole(0)), k.local(k.double, k.double(np.inf))
    with k.loop(0, n) as i:
        radius = k.number_at(ranked, k.add(k.times(k.b.lshr(n, k.whole(1)), n), i))
        smaller = k.b.fcmp_ordered("<", radius, k.b.load(least))
        k.b.store(k.b.select(smaller, i, k.b.load(best)), best)
        k.b.store(k.b.select(smaller, radius, k.b.load(least)), least)
    first = k.b.sitofp(k.b.load(best), k.double)
    for i, number in enumerate((k.total(k.b.load(trace)), *map(k.b.load, counts), first, k.b.load(least))):
        k.put(number, flags, i)


def _columns(k: Body, c: Any) -> Any:
    """The places of a tile's columns, as numbers."""
    return k.b.fadd(k.number(c), k.ir.Constant(k.vector, [float(lane) for lane in range(k.lanes)]))


def rank_of(k: Body, values: Any, i: Any, n: Any) -> Any:
    """How many of n doubles come before the i-th in order, equal ones as they come, as an int64. NaN comes
    before nothing."""
    value, rank = k.number_at(values, i), k.local(k.i64, k.whole(0))
    with k.loop(0, n) as j:
        other = k.number_at(values, j)
        tied = k.b.and_(k.b.fcmp_ordered("==", other, value), k.b.icmp_signed("<", j, i))
        before = k.b.or_(k.b.fcmp_ordered("<", other, value), tied)
        k.b.store(k.add(k.b.load(rank), k.b.zext(before, k.i64)), rank)
    return k.b.load(rank)


@cache
def _nearest(width: int) -> Run:
    def write(k: Body, dists: Any, limit: Any, out: Any, n: Any, count: Any) -> None:
        one, nothing = k.const(1.0), k.const(0.0)
        share = k.b.fdiv(one, k.number(count))
        with k.tiles(n, width) as c:
            far, own = k.load(limit, c), _columns(k, c)
            used = k.local(k.vector, nothing)

            def near(j: Any) -> Any:
                """Distances of row j to the rows of these columns; a row is nearest to itself."""
                here = k.load(dists, k.add(k.times(j, n), c))
                return k.b.select(k.b.fcmp_ordered("==", own, k.number(j)), k.const(-1.0), here)

            with k.loop(0, n) as j:
                inside = k.b.fcmp_ordered("<", near(j), far)
                k.b.store(k.b.fadd(k.b.load(used), k.b.select(inside, one, nothing)), used)
            with k.loop(0, n) as j:
                apart = near(j)
                inside = k.b.fcmp_ordered("<", apart, far)
                spare = k.b.fcmp_ordered("<", k.b.load(used), k.number(count))
                rim = k.b.and_(k.b.fcmp_ordered("==", apart, far), spare)
                k.b.store(k.b.fadd(k.b.load(used), k.b.select(rim, one, nothing)), used)
                chosen = k.b.select(k.b.or_(inside, rim), share, nothing)
                k.store(chosen, out, k.add(k.times(j, n), c))

    return body("nearest", "pppii", width, write)


@cache
def _mixed(width: int, height: int) -> Run:
    def write(
        k: Body, shares: Any, gram: Any, lean: Any, out: Any, places: Any, count: Any, n: Any, m: Any
    ) -> None:
        write_product(k, height, (gram, n, 1), (shares, n), lean, n, m)
        write_product(k, height, (shares, 1, m), (lean, n), out, m, m)
        half = k.double(0.5)
        with k.loop(0, m) as i, k.loop(0, i) as j:
            upper, lower = k.add(k.times(i, m), j), k.add(k.times(j, m), i)
            both = k.b.fmul(k.b.fadd(k.number_at(out, upper), k.number_at(out, lower)), half)
            k.put(both, out, upper)
            k.put(both, out, lower)
        write_measured(k, out, places, count, m)

    return body(f"mixed_{height}", "pppppiii", width, write)


@cache
def _multiplied(width: int, height: int) -> Run:
    def write(k: Body, left: Any, right: Any, out: Any, m: Any, depth: Any, n: Any) -> None:
        write_product(k, height, (left, depth, 1), (right, depth), out, m, n)

    return body(f"product_{height}", "pppiii", width, write)


def write_product(k: Body, height: int, left: Any, right: Any, out: Any, rows: Any, columns: Any) -> None:
    """`out` `[rows, columns]` = A B; `left`: A with its strides, `right`: B and its number of rows."""
    (a, down, across), (b, depth) = left, right
    with k.tiles(rows, height) as i, k.tiles(columns, k.lanes) as c:
        held = [k.zeros() for _ in range(height)]
        with k.loop(0, depth) as j:
            value = k.load(b, k.add(k.times(j, columns), c))
            for row, place in enumerate(held):
                share = k.spread(a, k.add(k.times(k.add(i, row), down), k.times(j, across)))
                k.b.store(k.fma(share, value, k.b.load(place)), place)
        for row, place in enumerate(held):
            k.store(k.b.load(place), out, k.add(k.times(k.add(i, row), columns), c))
