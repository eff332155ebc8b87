"""Centres of a few rows from their n x n numbers: the mean of their bulk, and Weiszfeld's steps.

As in `square`, sums are taken in the order of the rows, whatever the vectors' width.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address
from byzopt.kernels.square import Measured, body, rank_of, widest

TIE = 1e-9  # squared radii that differ by less, relatively, are equal but for rounding


def bulk_weights(gram: Array, dists: Array, radii: Array) -> tuple[Array, Array]:
    """Weights `[n]` of the mean of all rows within `radii` `[n]` (squared) of one that has a small one; of
    several such means their mean. With them the squared distances `[n]` of the rows to it.

    Small radii are those that are smallest but for rounding, and distances are compared in the same way.
    """
    n, gram, out = len(gram), np.ascontiguousarray(gram), np.empty((2, len(gram)))
    first = address(out)
    _bulk(widest(n))(address(gram), address(dists), address(radii), first, first + 8 * n, n)
    return out[0], out[1]


def weiszfeld_steps(gram: Array, row_weights: Array, squares: Array, floor: float, steps: int) -> Array:
    """`steps` times weights `[n]` proportional to `row_weights` / max(√`squares`, `floor`), where `squares`
    `[n]` then become the squared distances of the rows to their mean with these weights."""
    n, gram, out = len(gram), np.ascontiguousarray(gram), np.empty((4, len(gram)))
    out[1], out[2], out[3] = squares, row_weights, floor
    first = address(out)
    _weiszfeld(widest(n))(address(gram), first + 16 * n, first + 24 * n, first, first + 8 * n, n, steps)
    weights: Array = out[0]
    return weights


def steps_from_bulk(found: Measured, nu: float, steps: int) -> Array:
    """Weights `[n]` after `weiszfeld_steps` from the mean of `bulk_weights`, no row counting more than
    another, with `nu` times the median distance of rows to it as floor. Where that is 0, half of the rows and
    more are equal, and the first of them gets all weight."""
    n, square = found.n, found.square
    work = np.empty(4 * n + 1)
    work[4 * n] = nu
    where = found.first, found.first + 8 * square, found.first + 8 * (2 * square + n // 2 * n)
    _from_bulk(widest(n))(*where, address(work), n, steps)
    return work[:n]


def best_shares(found: Measured, neighbours: int, count: int) -> Array:
    """Weights `[n]` of the mean of the `count` rows that have the least sums of squared distances to their
    nearest `neighbours` others; of equal ones the first."""
    n, work = found.n, np.empty(2 * found.n)
    first, ranked = address(work), found.first + 8 * (2 * found.square + n)
    _best(widest(n))(ranked, first, first + 8 * n, n, neighbours, count)
    return work[:n]


@cache
def _from_bulk(width: int) -> Run:
    def write(k: Body, gram: Any, dists: Any, radii: Any, work: Any, n: Any, steps: Any) -> None:
        weights, squares, ones, floors, nu = (k.at(work, k.times(n, i), k.double) for i in range(5))
        _write_bulk(k, gram, dists, radii, weights, squares, n)
        one, none = Body(k.b, k.function, k.dtype, 1), k.double(0.0)
        middle, most, first = k.local(k.double, none), k.local(k.double, none), k.local(k.i64, k.whole(0))
        with k.loop(0, n) as i:
            here = k.b.icmp_signed("==", rank_of(k, squares, i, n), k.b.lshr(n, k.whole(1)))
            k.b.store(k.b.select(here, k.number_at(squares, i), k.b.load(middle)), middle)
            more = k.b.fcmp_ordered(">", k.number_at(weights, i), k.b.load(most))
            k.b.store(k.b.select(more, k.number_at(weights, i), k.b.load(most)), most)
            k.b.store(k.b.select(more, i, k.b.load(first)), first)
        floor = k.b.fmul(one.load(nu, 0), one.root(one.everywhere(k.b.load(middle))))
        with k.loop(0, n) as i:
            k.put(k.double(1.0), ones, i)
            one.store(floor, floors, i)
        with k.b.if_else(k.b.fcmp_ordered(">", k.number_at(floors, 0), none)) as (apart, equal):
            with apart:
                _write_weiszfeld(k, gram, ones, floors, weights, squares, n, steps)
            with equal:
                with k.loop(0, n) as i:
                    k.put(none, weights, i)
                k.put(k.double(1.0), weights, k.b.load(first))

    return body("from_bulk", "ppppii", width, write)


@cache
def _best(width: int) -> Run:
    def write(k: Body, ranked: Any, weights: Any, scores: Any, n: Any, neighbours: Any, count: Any) -> None:
        with k.tiles(n, width) as c:
            held = k.zeros()
            with k.loop(0, neighbours) as i:
                k.b.store(k.b.fadd(k.b.load(held), k.load(ranked, k.add(k.times(i, n), c))), held)
            k.store(k.b.load(held), scores, c)
        share = k.b.fdiv(k.double(1.0), k.b.sitofp(count, k.double))
        with k.loop(0, n) as i:
            chosen = k.b.icmp_signed("<", rank_of(k, scores, i, n), count)
            k.put(k.b.select(chosen, share, k.double(0.0)), weights, i)

    return body("best", "pppiii", width, write)


@cache
def _bulk(width: int) -> Run:
    return body("bulk", "pppppi", width, _write_bulk)


def _write_bulk(k: Body, gram: Any, dists: Any, radii: Any, weights: Any, squares: Any, n: Any) -> None:
    """The body of a kernel: see `bulk_weights`."""
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
    return body("weiszfeld", "pppppii", width, _write_weiszfeld)


def _write_weiszfeld(
    k: Body, gram: Any, row_weights: Any, floor: Any, weights: Any, squares: Any, n: Any, steps: Any
) -> None:
    """The body of a kernel: see `weiszfeld_steps`."""
    with k.loop(0, steps):
        with k.tiles(n, k.lanes) as c:
            bounded = k.greater(k.root(k.load(squares, c)), k.load(floor, c))
            k.store(k.b.fdiv(k.load(row_weights, c), bounded), weights, c)
        whole = k.local(k.double, k.double(0.0))
        with k.loop(0, n) as i:
            k.b.store(k.b.fadd(k.b.load(whole), k.number_at(weights, i)), whole)
        with k.loop(0, n) as i:
            k.put(k.b.fdiv(k.number_at(weights, i), k.b.load(whole)), weights, i)
        _squares_to(k, gram, weights, squares, n)
