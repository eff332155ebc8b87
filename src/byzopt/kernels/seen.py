"""What is seen of many rows from a point: their distances to it, and sums of the ways to them.

Rows are read where they lie, once: a few at a time, which are in the first-level cache when what their
distances decide is added up. Numbers are widened to float64 before the point is subtracted, so that neither
an offset that all rows share nor a huge row blurs the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, compiled, lanes, parallel_for

_SHARE = 256  # rows whose sums are taken one after the other, whoever takes them
_HEIGHT = 4  # rows at a time
_WORK = 4  # numbers elsewhere that take as long as one here


def pulls(rows: Tensor, point: Array, row_weights: Array, floor: float = 0.0) -> tuple[Array, Array, Array]:
    """Squared distances `[n]` of usable `rows` `[n, d]` to a `point` `[d]`; over the ways y_i to rows that
    are elsewhere w_i / max(‖y_i‖, `floor`) `[n]`, 0 for others; and the sum of ways times these, `[d]`."""
    squares, shares, sums = np.empty(len(rows)), np.empty(len(rows)), _sums(rows)
    _run(rows, "pull", point, np.array([floor]), row_weights, squares, sums, shares)
    return squares, shares, np.add.reduce(sums, axis=0)


def walk(rows: Tensor, point: Array, row_weights: Array, steps: int) -> Array:
    """Where so many of Weiszfeld's `steps` lead from a `point` `[d]`: each to the mean of the rows that are
    elsewhere with weights w_i / ‖y_i‖. One thread takes them, in one call: for few numbers."""
    place, sums, floor = np.array(point, dtype=np.float64), np.empty(rows.shape[1]), np.zeros(1)
    row_weights = np.ascontiguousarray(row_weights, dtype=np.float64)
    run = _walk(rows.dtype, min(lanes(torch.float64), 1 << (rows.shape[1].bit_length() - 1)))
    where = rows.data_ptr(), rows.stride(0), *map(address, (place, row_weights, floor, sums))
    run(*where, *rows.shape, steps)
    return place


def spread_along(rows: Tensor, point: Array, way: Array, row_weights: Array) -> Array:
    """Σ w_i <y_i, `way`> y_i `[d]` with y_i `[d]` the way to row i of usable `rows` from the `point`."""
    sums = _sums(rows)
    _run(rows, "along", point, way, row_weights, row_weights, sums)
    found: Array = sums.sum(axis=0)
    return found


def ways_to(rows: Tensor, point: Array, row_weights: Array) -> Array:
    """Σ w_i y_i `[d]` with y_i `[d]` the way to row i of usable `rows` from the `point`."""
    sums = _sums(rows)
    _run(rows, "ways", point, point, row_weights, row_weights, sums)
    found: Array = sums.sum(axis=0)
    return found


def squares_to(rows: Tensor, point: Array) -> Array:
    """Squared distances `[n]` of usable `rows` `[n, d]` to a `point` `[d]`."""
    squares = np.empty(len(rows))
    _run(rows, "only", point, point, squares, squares, squares)
    return squares


def _sums(rows: Tensor) -> Array:
    return np.zeros((-(-len(rows) // _SHARE), rows.shape[1]))


def _run(
    rows: Tensor,
    what: str,
    point: Array,
    way: Array,
    row_weights: Array,
    squares: Array,
    sums: Array,
    shares: Array | None = None,
) -> None:
    (n, d), width = rows.shape, lanes(torch.float64)
    run = _kernel(rows.dtype, what, min(width, 1 << (d.bit_length() - 1)))
    arrays = [np.ascontiguousarray(each, dtype=np.float64) for each in (point, way, row_weights)]
    where = (
        rows.data_ptr(),
        rows.stride(0),
        *map(address, (*arrays, squares, squares if shares is None else shares, sums)),
    )
    parallel_for(n, _WORK * n * d, _SHARE, lambda start, stop: run(*where, d, start, stop))


@cache
def _kernel(given: torch.dtype, what: str, width: int) -> Run:
    """What the functions above ask for, named "pull", "along", "ways" and "only"."""

    def emit(builder: Any, function: Any) -> None:
        rows, stride, point, way, row_weights, squares, shares, sums, d, start, stop = function.args
        k, kind = Body(builder, function, torch.float64, 1), _kind(given)
        with k.loop(start, stop, _SHARE) as first:
            last = k.least(k.add(first, _SHARE), stop)
            own = k.at(sums, k.times(k.b.udiv(first, k.whole(_SHARE)), d), k.double)
            full = k.add(first, k.b.and_(k.b.sub(last, first), k.whole(-_HEIGHT)))
            for height, begin, end in ((_HEIGHT, first, full), (1, full, last)):
                with k.loop(begin, end, height) as i:
                    lines = [k.at(rows, k.times(k.add(i, a), stride), kind(k)) for a in range(height)]
                    some = _Some(k, given, what, width, lines, point, d)
                    factors = some.factors(i, way, row_weights, squares, shares)
                    if what != "only":
                        some.add(factors, own)

    return compiled(f"seen_{what}_{given.itemsize}_{width}", "pippppppiii", emit)


@cache
def _walk(given: torch.dtype, width: int) -> Run:
    def emit(builder: Any, function: Any) -> None:
        rows, stride, place, row_weights, floor, sums, n, d, steps = function.args
        k, kind = Body(builder, function, torch.float64, 1), _kind(given)
        full = k.b.and_(n, k.whole(-_HEIGHT))
        with k.loop(0, steps):
            total = k.local(k.double, k.double(0.0))
            with k.loop(0, d) as c:
                k.put(k.double(0.0), sums, c)
            for height, begin, end in ((_HEIGHT, k.whole(0), full), (1, full, n)):
                with k.loop(begin, end, height) as i:
                    lines = [k.at(rows, k.times(k.add(i, a), stride), kind(k)) for a in range(height)]
                    some = _Some(k, given, "walk", width, lines, place, d)
                    factors = some.factors(i, floor, row_weights, None, None)
                    some.add(factors, sums)
                    for factor in factors:
                        k.b.store(k.b.fadd(k.b.load(total), factor), total)
            found = k.b.load(total)
            with k.b.if_then(k.b.fcmp_ordered(">", found, k.double(0.0))), k.loop(0, d) as c:
                k.increase(place, c, k.b.fdiv(k.number_at(sums, c), found))

    return compiled(f"walk_{given.itemsize}_{width}", "pippppiii", emit)


def _kind(given: torch.dtype) -> Callable[[Body], Any]:
    """The kind of numbers that rows hold."""
    return lambda k: k.double if given == torch.float64 else k.ir.FloatType()


class _Some:
    """The kernel's work for the few rows that lie at `lines`."""

    def __init__(
        self, k: Body, given: torch.dtype, what: str, width: int, lines: list[Any], point: Any, d: Any
    ) -> None:
        self.k, self.given, self.what, self.width = k, given, what, width
        self.lines, self.point, self.d = lines, point, d

    def factors(self, i: Any, way: Any, row_weights: Any, squares: Any, shares: Any) -> list[Any]:
        """With what each way to them is to be multiplied; row i is the first."""
        k, factors = self.k, []
        found = self._sums(way) if self.what != "ways" else [None] * len(self.lines)
        for a, total in enumerate(found):
            if self.what in ("pull", "only"):
                k.put(total, squares, k.add(i, a))
            if self.what == "only":
                continue
            factor = k.number_at(row_weights, k.add(i, a))
            if self.what == "along":
                factor = k.b.fmul(factor, total)
            elif self.what in ("pull", "walk"):
                length = k.greater(k.root(k.everywhere(total)), k.spread(way, 0))
                length = k.b.extract_element(length, k.ir.Constant(k.ir.IntType(32), 0))
                away = k.b.fcmp_ordered(">", total, k.double(0.0))
                factor = k.b.select(away, k.b.fdiv(factor, length), k.double(0.0))
                if shares is not None:
                    k.put(factor, shares, k.add(i, a))
            factors.append(factor)
        return factors

    def _sums(self, way: Any) -> list[Any]:
        """The products of the ways to the rows with `way`, or with themselves."""
        k, along = self.k, self.what == "along"
        found = [k.local(k.double, k.double(0.0)) for _ in self.lines]
        for body, begin, end in self._widths():
            held = [body.zeros() for _ in self.lines]
            with k.loop(begin, end, body.lanes) as c:
                other = body.load(way, c) if along else None
                for value, at in zip(self._ways(body, c), held, strict=True):
                    k.b.store(body.fma(value, other if along else value, k.b.load(at)), at)
            for at, total in zip(held, found, strict=True):
                k.b.store(k.b.fadd(k.b.load(total), body.total(k.b.load(at))), total)
        return [k.b.load(total) for total in found]

    def add(self, factors: list[Any], own: Any) -> None:
        """Adds the ways to the rows times `factors` to the numbers from `own` on."""
        for body, begin, end in self._widths():
            shares = [body.everywhere(factor) for factor in factors]
            with self.k.loop(begin, end, body.lanes) as c:
                total = body.load(own, c)
                for value, share in zip(self._ways(body, c), shares, strict=True):
                    total = body.fma(share, value, total)
                body.store(total, own, c)

    def _widths(self) -> Iterator[tuple[Body, Any, Any]]:
        """Bodies of ever shorter vectors, with the columns that each has."""
        k, begin, width = self.k, self.k.whole(0), self.width
        while width:
            end = k.b.and_(self.d, k.whole(-width))
            yield Body(k.b, k.function, torch.float64, width), begin, end
            begin, width = end, width // 2

    def _ways(self, body: Body, c: Any) -> list[Any]:
        """What lies between the point and the rows from column c on."""
        source, place = Body(body.b, body.function, self.given, body.lanes), body.load(self.point, c)
        return [body.b.fsub(source.widened(source.load(line, c), body), place) for line in self.lines]
