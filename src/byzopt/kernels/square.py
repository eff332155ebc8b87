"""What decisions ask of a few rows' n x n numbers, each in one call: distances and their order, who is
nearest, products after mixing, and Weiszfeld's steps.

An operation of NumPy on so few numbers takes a microsecond whatever it does, and a decision needs dozens.
Symmetric matrices are worked on by columns, one in each lane of a vector, so that all sums are taken in the
order of the rows, whatever the vectors' width: rows that agree in all their numbers get equal results.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, compiled, lanes, switched
from byzopt.kernels.networks import Places, pruned

FEW = 256  # rows up to which n x n numbers fit the cache, and one thread is the fastest
EXTREME = 1e-200  # squared lengths of float64 rows beyond this and its inverse ask for another unit
TIE = 1e-9  # squared radii that differ by less, relatively, are equal but for rounding
_TILE = 4  # rows of a product at a time


def decides(n: int) -> bool:
    """Whether kernels work on n x n numbers."""
    return n <= FEW and switched("cpu") and lanes(torch.float64) > 0


class Ranked(NamedTuple):
    """Squared distances `[n, n]`, and in each column of `ranked` the same in ascending order.

    They mean nothing unless all products are `finite`. Squared lengths about the row that products are about
    are `ordinary` where they are finite, may be squared, and those of half of the rows do not vanish.
    """

    dists: Array
    ranked: Array
    finite: bool
    ordinary: bool


def ranked_distances(gram: Array) -> Ranked:
    """Distances by products `gram` `[n, n]` about any row, and their order."""
    n, gram = len(gram), np.ascontiguousarray(gram)
    width, places, _ = _sorting(n)
    out, room = np.empty((2, n, n)), np.empty(n * (width + 1) + 3)
    first, spare = address(out), address(room)
    where = (address(gram), first, first + 8 * n * n, spare + 8 * (n + 3), spare)
    _ranked(width)(*where, *places, n)
    trace, sane, large = room[n : n + 3].tolist()
    return Ranked(out[0], out[1], trace == 0, sane == n and large >= n - n // 2)


def nearest_shares(dists: Array, ranked: Array, count: int) -> Array:
    """In column i the weights `[n, n]` of the mean of the `count` rows nearest to row i, first of all itself;
    of equally near ones the first. `dists`, `ranked`: see `ranked_distances`."""
    n, out = len(dists), np.empty(dists.shape)
    _nearest(_width(n))(address(dists), address(ranked[count - 1]), address(out), n, count)
    return out


def mixed_products(shares: Array, gram: Array) -> Array:
    """`shares^T gram shares`, `[n, m], [n, n] -> [m, m]`, symmetric. Equal columns give equal products."""
    (n, m), shares, gram = shares.shape, np.ascontiguousarray(shares), np.ascontiguousarray(gram)
    lean, out = np.empty((n, m)), np.empty((m, m))
    height = _TILE if min(n, m) >= _TILE else 1
    _mixed(_width(m), height)(address(shares), address(gram), address(lean), address(out), n, m)
    return out


def bulk_weights(gram: Array, dists: Array, radii: Array) -> tuple[Array, Array]:
    """Weights `[n]` of the mean of all rows within `radii` `[n]` (squared) of one that has a small one; of
    several such means their mean. With them the squared distances `[n]` of the rows to it.

    Small radii are those that are smallest but for rounding, and distances are compared in the same way.
    """
    n, gram, out = len(gram), np.ascontiguousarray(gram), np.empty((2, len(gram)))
    first = address(out)
    _bulk(_width(n))(address(gram), address(dists), address(radii), first, first + 8 * n, n)
    return out[0], out[1]


def weiszfeld_steps(gram: Array, row_weights: Array, squares: Array, floor: float, steps: int) -> Array:
    """`steps` times weights `[n]` proportional to `row_weights` / max(√`squares`, `floor`), where `squares`
    `[n]` then become the squared distances of the rows to their mean with these weights."""
    n, gram, out = len(gram), np.ascontiguousarray(gram), np.empty((4, len(gram)))
    out[1], out[2], out[3] = squares, row_weights, floor
    first = address(out)
    _weiszfeld(_width(n))(address(gram), first + 16 * n, first + 24 * n, first, first + 8 * n, n, steps)
    weights: Array = out[0]
    return weights


def _width(n: int) -> int:
    """The widest vector that n columns fill."""
    return min(lanes(torch.float64), 1 << (n.bit_length() - 1))


@lru_cache(maxsize=FEW)
def _sorting(n: int) -> tuple[int, tuple[int, int], Places]:
    """The widest vector that n columns fill, and the comparators `[k, 2]` that sort n wires: where they lie,
    how many they are, and they themselves."""
    places = np.ascontiguousarray(pruned(n, 0, n)[0])
    return _width(n), (address(places), len(places)), places


def _body(name: str, arguments: str, width: int, write: Callable[..., None]) -> Run:
    """A kernel on vectors of `width` doubles, whose body `write(k, *arguments)` writes."""

    def emit(builder: Any, function: Any) -> None:
        write(Body(builder, function, torch.float64, width), *function.args)

    return compiled(f"{name}_{width}", arguments, emit)


@cache
def _ranked(width: int) -> Run:
    def write(
        k: Body, gram: Any, dists: Any, ranked: Any, room: Any, own: Any, places: Any, count: Any, n: Any
    ) -> None:
        trace, zero = k.zeros(), k.const(0.0)
        counts = [k.local(k.double, k.double(0.0)) for _ in range(2)]
        with k.loop(0, n) as i:
            square = k.number_at(gram, k.times(i, k.add(n, 1)))
            k.put(square, own, i)
            bounds = ("<", 1 / EXTREME), (">", EXTREME)
            for place, (sign, bound) in zip(counts, bounds, strict=True):
                fits = k.b.fcmp_ordered(sign, square, k.double(bound))
                k.b.store(k.b.fadd(k.b.load(place), k.b.uitofp(fits, k.double)), place)
        with k.tiles(n, width) as c:
            mine, columns = k.load(own, c), _columns(k, c)
            with k.loop(0, n) as i:
                product = k.load(gram, k.add(k.times(i, n), c))
                k.b.store(k.fma(product, zero, k.b.load(trace)), trace)
                apart = k.b.fsub(k.b.fadd(k.spread(own, i), mine), k.b.fadd(product, product))
                itself = k.b.fcmp_ordered("==", columns, k.number(i))
                apart = k.b.select(itself, zero, k.greater(apart, zero))
                k.store(apart, dists, k.add(k.times(i, n), c))
                k.store(apart, room, k.times(i, width))
            with k.loop(0, count) as p:
                i, j = (k.times(k.index(places, k.add(k.times(p, 2), side)), width) for side in (0, 1))
                x, y = k.load(room, i), k.load(room, j)
                less = k.b.fcmp_ordered("<", y, x)
                k.store(k.b.select(less, y, x), room, i)
                k.store(k.b.select(less, x, y), room, j)
            with k.loop(0, n) as i:
                k.store(k.load(room, k.times(i, width)), ranked, k.add(k.times(i, n), c))
        for i, number in enumerate((k.total(k.b.load(trace)), *map(k.b.load, counts))):
            k.put(number, own, k.add(n, i))

    return _body("ranked", "ppppppii", width, write)


def _columns(k: Body, c: Any) -> Any:
    """The places of a tile's columns, as numbers."""
    return k.b.fadd(k.number(c), k.ir.Constant(k.vector, [float(lane) for lane in range(k.lanes)]))


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

    return _body("nearest", "pppii", width, write)


@cache
def _mixed(width: int, height: int) -> Run:
    def write(k: Body, shares: Any, gram: Any, lean: Any, out: Any, n: Any, m: Any) -> None:
        _product(k, height, (gram, n, 1), (shares, n), lean, n, m)
        _product(k, height, (shares, 1, m), (lean, n), out, m, m)
        half = k.double(0.5)
        with k.loop(0, m) as i, k.loop(0, i) as j:
            upper, lower = k.add(k.times(i, m), j), k.add(k.times(j, m), i)
            both = k.b.fmul(k.b.fadd(k.number_at(out, upper), k.number_at(out, lower)), half)
            k.put(both, out, upper)
            k.put(both, out, lower)

    return _body(f"mixed_{height}", "ppppii", width, write)


def _product(k: Body, height: int, left: Any, right: Any, out: Any, rows: Any, columns: Any) -> None:
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


@cache
def _bulk(width: int) -> Run:
    def write(k: Body, gram: Any, dists: Any, radii: Any, weights: Any, squares: Any, n: Any) -> None:
        loose, one = k.double(1 + TIE), k.double(1.0)
        least, means = k.local(k.double, k.number_at(radii, 0)), k.local(k.double, k.double(0.0))
        with k.loop(0, n) as i:
            radius = k.number_at(radii, i)
            smaller = k.b.fcmp_ordered("<", radius, k.b.load(least))
            k.b.store(k.b.select(smaller, radius, k.b.load(least)), least)
            k.put(k.double(0.0), weights, i)
        limit = k.b.fmul(k.b.fmul(k.b.load(least), loose), loose)
        with k.loop(0, n) as i:
            radius = k.b.fmul(k.number_at(radii, i), loose)
            with k.b.if_then(k.b.fcmp_ordered("<=", radius, limit)):

                def near(j: Any, i: Any = i, radius: Any = radius) -> Any:
                    inside = k.b.fcmp_ordered("<=", k.number_at(dists, k.add(k.times(i, n), j)), radius)
                    return k.b.uitofp(inside, k.double)

                count = k.local(k.double, k.double(0.0))
                with k.loop(0, n) as j:
                    k.b.store(k.b.fadd(k.b.load(count), near(j)), count)
                with k.loop(0, n) as j:
                    k.increase(weights, j, k.b.fdiv(near(j), k.b.load(count)))
                k.b.store(k.b.fadd(k.b.load(means), one), means)
        with k.loop(0, n) as j:
            k.put(k.b.fdiv(k.number_at(weights, j), k.b.load(means)), weights, j)
        _squares_to(k, gram, weights, squares, n)

    return _body("bulk", "pppppi", width, write)


def _squares_to(k: Body, gram: Any, weights: Any, squares: Any, n: Any) -> None:
    """Squared distances of the rows to their mean with `weights`."""
    with k.tiles(n, k.lanes) as c:
        lean = k.zeros()
        with k.loop(0, n) as i:
            value = k.load(gram, k.add(k.times(i, n), c))
            k.b.store(k.fma(value, k.spread(weights, i), k.b.load(lean)), lean)
        k.store(k.b.load(lean), squares, c)
    square, zero = k.local(k.double, k.double(0.0)), k.double(0.0)
    with k.loop(0, n) as i:
        part = k.b.fmul(k.number_at(weights, i), k.number_at(squares, i))
        k.b.store(k.b.fadd(k.b.load(square), part), square)
    with k.loop(0, n) as i:
        own, lean = k.number_at(gram, k.times(i, k.add(n, 1))), k.number_at(squares, i)
        apart = k.b.fadd(k.b.fsub(own, k.b.fadd(lean, lean)), k.b.load(square))
        k.put(k.b.select(k.b.fcmp_ordered(">", apart, zero), apart, zero), squares, i)


@cache
def _weiszfeld(width: int) -> Run:
    def write(
        k: Body, gram: Any, row_weights: Any, floor: Any, weights: Any, squares: Any, n: Any, steps: Any
    ) -> None:
        with k.loop(0, steps):
            with k.tiles(n, width) as c:
                bounded = k.greater(k.root(k.load(squares, c)), k.load(floor, c))
                k.store(k.b.fdiv(k.load(row_weights, c), bounded), weights, c)
            whole = k.local(k.double, k.double(0.0))
            with k.loop(0, n) as i:
                k.b.store(k.b.fadd(k.b.load(whole), k.number_at(weights, i)), whole)
            with k.loop(0, n) as i:
                k.put(k.b.fdiv(k.number_at(weights, i), k.b.load(whole)), weights, i)
            _squares_to(k, gram, weights, squares, n)

    return _body("weiszfeld", "pppppii", width, write)
