"""Sums of rows round after round, and all that tests on them ask for, in one pass over rows and sums.

A block of columns at a time: rows are scaled, centred and multiplied, added to the sums, and these centred
and multiplied in turn, all while the block is in the cache. Large sums are written past it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.gram import TILE, add_tile, block_width
from byzopt.kernels.jit import Array, Run, address, compiled, lanes, parallel_for

_PAST = 1 << 22  # numbers of sums that would not stay in the cache until the next round
_BLOCK_BYTES = 1 << 18  # of rows at a time: the sums pass through the cache too
_LINE = 64  # bytes that are written past the cache at once


class Walk(NamedTuple):
    """Points `[d]` of the rows' dtype: where workers were asked, and where the sums began."""

    x: Tensor
    home: Tensor


class Grown(NamedTuple):
    """What one pass found, in float64; zeros where it was not asked for.

    `rows`: products `[n, n]` of scaled rows about the centre; `lengths` `[n]`: their squared lengths about
    the origin. `sums`: products of the new sums about one of them; `sizes`: their squared lengths. `along`:
    products of centred rows with the walk x - home; `path`: its squared length.
    """

    rows: Array
    lengths: Array
    sums: Array
    sizes: Array
    along: Array
    path: float


class _Parts(NamedTuple):
    """What is compiled: rows about a centre, which then also enter the sums `moved`; a walk; a weighted sum;
    sums, with older ones; whether these are written past the cache."""

    centred: bool
    moved: bool
    walked: bool
    mixed: bool
    summed: bool
    older: bool
    past: bool


def fused_history(
    rows: Tensor,
    factors: Array,
    centre: Tensor | None = None,
    walk: Walk | None = None,
    weights: Array | None = None,
    mixed: Tensor | None = None,
    old: Tensor | None = None,
    out: Tensor | None = None,
    pivot: int = 0,
    moved: bool = False,
) -> Grown:
    """One pass over usable `rows` `[n, d]`: row i times `factors[i]`. Rows of factor 0 count as 0, unread.

    With `weights` `[n]`: Σ weights[i] rows[i], unscaled, of the rows that are read, into `mixed` `[d]`. With
    `out` `[n, d]`: `old` (None: 0) + rows there, these about `centre` `[d]` if `moved`, and products about
    sum `pivot`. All are of the rows' dtype. Blocks are summed in it, then in float64, all products in one
    order: equal rows have equal products. What is not finite shows in `lengths`, `sizes` and on diagonals.
    """
    n, d = rows.shape
    points = [one for one in (centre, mixed, *(walk or ())) if one is not None]
    tables = [one for one in (old, out) if one is not None]
    if any(one.shape != (d,) for one in points) or any(one.shape != (n, d) for one in tables):
        raise ValueError(
            "Points should be [d] and sums [n, d], as rows are."
        )  # machine code reads beyond them
    if any(one.dtype != rows.dtype or one.stride(-1) != 1 for one in (*points, *tables)):
        raise ValueError(f"Points and sums should be {rows.dtype} of unit stride, as rows are.")
    factors = np.ascontiguousarray(factors, dtype=np.float64)
    shares = np.zeros(n) if weights is None else np.ascontiguousarray(weights, dtype=np.float64)
    summed, past = out is not None, rows.numel() >= _PAST
    centred, older = centre is not None, summed and old is not None
    parts = _Parts(centred, centred and moved, walk is not None, mixed is not None, summed, older, past)
    run, tall, size = _kernel(rows.dtype, parts), -(-n // TILE) * TILE, rows.element_size()
    found: dict[int, tuple[Array, Array]] = {}

    def piece(start: int, stop: int) -> None:
        block = block_width(tall, rows.dtype, stop - start, _BLOCK_BYTES)
        # A line more than there are rows: the sum that others are about. And the walk, in float64.
        room = np.empty((tall + 1) * block * size // 8 + block)
        products, numbers = np.zeros((2, tall, tall)), np.zeros((3, n + 1))
        found[start] = products, numbers
        points = _place(centre), *(_place(one) for one in walk or (None, None))
        where = (rows.data_ptr(), rows.stride(0), address(factors), *points, address(shares), _place(mixed))
        sums = (
            _place(old),
            0 if old is None else old.stride(0),
            _place(out),
            0 if out is None else out.stride(0),
        )
        results = address(room), address(products[0]), address(products[1]), address(numbers)
        run(*where, *sums, pivot, *results, n, tall, block, start, stop)

    parallel_for(d, rows.numel(), lanes(rows.dtype), piece)
    products, numbers = np.zeros((2, tall, tall)), np.zeros((3, n + 1))
    for start in sorted(found):  # in the same order however threads are scheduled
        products += found[start][0]
        numbers += found[start][1]
    of_rows, of_sums = products[:, :n, :n].copy()
    lengths, sizes, along = numbers[:, :n]
    return Grown(of_rows, lengths, of_sums, sizes, along, float(numbers[2, n]))


def _place(one: Tensor | None) -> int:
    return 0 if one is None else one.data_ptr()


@cache
def _kernel(dtype: torch.dtype, parts: _Parts) -> Run:
    return compiled(
        f"history_{dtype.itemsize}",
        "pipppppppipiippppiiiii",
        lambda builder, function: _Pass(builder, function, dtype, parts).emit(),
    )


class _Pass:
    """The kernel's body: what becomes of one block of columns after the other."""

    def __init__(self, builder: Any, function: Any, dtype: torch.dtype, parts: _Parts) -> None:
        self.parts, self.k = parts, Body(builder, function, dtype)
        both = (1, self.k.lanes)
        self.bodies = [Body(builder, function, dtype, width) for width in both]
        self.wide = [Body(builder, function, torch.float64, width) for width in both]
        (
            self.rows, self.stride, self.factors, self.centre, self.x, self.home, self.weights, self.mixed,
            self.old, self.old_stride, self.out, self.out_stride, self.pivot, self.scratch, self.row_products,
            self.sum_products, self.numbers, self.n, self.tall, self.block, self.start, self.stop,
        ) = function.args  # fmt: skip

    def emit(self) -> None:
        k, parts = self.k, self.parts
        lines = k.times(self.tall, self.block)
        self.about = k.at(self.scratch, lines, k.scalar)
        self.steps = k.at(self.scratch, k.add(lines, self.block), k.scalar)
        with k.loop(self.n, self.tall) as i, k.loop(0, self.block, k.lanes) as c:
            k.store(k.const(0.0), self.scratch, k.add(self._line(i), c))
        with k.loop(self.start, self.stop, self.block) as self.column:
            self.width = k.least(self.block, k.b.sub(self.stop, self.column))
            self.full = k.b.and_(self.width, k.whole(-k.lanes))
            self.whole = k.b.and_(k.add(self.width, k.lanes - 1), k.whole(-k.lanes))
            with k.b.if_then(k.b.icmp_signed("<", self.full, self.whole)), k.loop(0, self.n) as i:
                k.store(k.const(0.0), self.scratch, k.add(self._line(i), self.full))  # what the end leaves
            if parts.mixed:
                self._over(lambda body, _, c: body.store(body.const(0.0), self.mixed, self._at(c)))
            if parts.walked:
                self._walk()
            if parts.centred or parts.mixed:
                with k.loop(0, self.n) as i:
                    self._either(i, self._row)
            if parts.centred:
                self._multiply(self.row_products)
            if parts.summed:
                self._either(self.pivot, self._pivot)
                with k.loop(0, self.n) as i:
                    self._either(i, self._sum)
                self._multiply(self.sum_products)
        if parts.past:
            k.b.fence("seq_cst")  # other threads see what was written past the cache

    def _walk(self) -> None:
        path = _Sum(self.wide)

        def step(body: Body, wide: Body, c: Any) -> None:
            ends = (body.widened(body.load(point, self._at(c)), wide) for point in (self.x, self.home))
            move = self.k.b.fsub(*ends)
            wide.store(move, self.steps, c)
            path.add(wide, move, move)

        self._over(step)
        path.into(self.numbers, self.k.add(self.k.times(3, self.n), 2))

    def _row(self, i: Any, read: bool) -> None:
        """Row i into the weighted sum, and about the centre into the scratch memory."""
        k, parts = self.k, self.parts
        length, along = _Sum(self.bodies), _Sum(self.wide)
        place, line = k.add(k.times(i, self.stride), self.column), self._line(i)
        share = k.narrowed(k.number_at(self.weights, i))

        def part(body: Body, wide: Body, c: Any) -> None:
            body.fetch(self.rows, k.add(place, self.stride, c))
            if read:
                given = body.load(self.rows, k.add(place, c))
                if parts.mixed:
                    sum_ = body.fma(body.everywhere(share), given, body.load(self.mixed, self._at(c)))
                    body.store(sum_, self.mixed, self._at(c))
                value = self._scaled(body, given, i)
                length.add(body, value, value)
            else:
                value = body.const(0.0)
            if parts.centred:
                value = k.b.fsub(value, body.load(self.centre, self._at(c)))
                body.store(value, self.scratch, k.add(line, c))
            if parts.walked:
                along.add(wide, body.widened(value, wide), wide.load(self.steps, c))

        self._over(part)
        length.into(self.numbers, i)
        along.into(self.numbers, k.add(k.times(2, k.add(self.n, 1)), i))

    def _pivot(self, i: Any, read: bool) -> None:
        """The sum that the others are centred about."""
        self._over(lambda body, _, c: body.store(self._grown(body, i, c, read), self.about, c))

    def _sum(self, i: Any, read: bool) -> None:
        """Sum i into its place, and about the pivot into the scratch memory."""
        k, size = self.k, _Sum(self.bodies)
        place = k.add(k.times(i, self.out_stride), self.column)

        def part(body: Body, wide: Body, c: Any) -> None:
            value = self._grown(body, i, c, read)
            if self.parts.past and body.lanes > 1:
                body.store_past(value, self.out, k.add(place, c))
            else:
                body.store(value, self.out, k.add(place, c))
            size.add(body, value, value)
            body.store(k.b.fsub(value, body.load(self.about, c)), self.scratch, k.add(self._line(i), c))

        self._over(part, self._edge(place) if self.parts.past else None)
        size.into(self.numbers, k.add(self.n, 1, i))

    def _grown(self, body: Body, i: Any, c: Any, read: bool) -> Any:
        """A vector of sum i with this round's row."""
        k, parts = self.k, self.parts
        if parts.moved:
            value = body.load(self.scratch, k.add(self._line(i), c))
        elif read:
            place = k.add(k.times(i, self.stride), self.column, c)
            body.fetch(self.rows, k.add(place, self.stride))
            given = body.load(self.rows, place)
            value = self._scaled(body, given, i)
        else:
            value = body.const(0.0)
        if not parts.older:
            return value
        place = k.add(k.times(i, self.old_stride), self.column, c)
        body.fetch(self.old, k.add(place, self.old_stride))
        old = body.load(self.old, place)
        return k.b.fadd(old, value)

    def _scaled(self, body: Body, value: Any, i: Any) -> Any:
        return self.k.b.fmul(value, body.everywhere(body.narrowed(body.number_at(self.factors, i))))

    def _multiply(self, products: Any) -> None:
        k = self.k
        with k.loop(0, self.tall, TILE) as i, k.loop(i, self.tall, TILE) as j:
            add_tile(k, self.scratch, products, i, j, self.tall, self.block, self.whole)

    def _edge(self, place: Any) -> Any:
        """How many numbers from element `place` of the sums on stand before a line of the cache."""
        k = self.k
        where = k.b.ptrtoint(k.at(self.out, place, k.scalar), k.i64)
        return k.least(
            k.b.lshr(k.b.and_(k.b.neg(where), k.whole(_LINE - 1)), k.whole(k.size.bit_length() - 1)),
            self.width,
        )

    def _either(self, i: Any, work: Callable[[Any, bool], None]) -> None:
        """`work(i, read)`, which reads row i or takes it for zeros."""
        k = self.k
        factor = k.number_at(self.factors, i)
        with k.b.if_else(k.b.fcmp_ordered("!=", factor, k.ir.Constant(k.double, 0.0))) as (read, zero):
            with read:
                work(i, True)
            with zero:
                work(i, False)

    def _over(self, work: Callable[[Body, Body, Any], None], edge: Any = None) -> None:
        """`work(body, its float64, column)` over the block, in whole vectors from the `edge` on."""
        k, (one, many) = self.k, zip(self.bodies, self.wide, strict=True)
        if edge is None:
            spans = [(0, self.full, many), (self.full, self.width, one)]
        else:
            inner = k.add(edge, k.b.and_(k.b.sub(self.width, edge), k.whole(-k.lanes)))
            spans = [(0, edge, one), (edge, inner, many), (inner, self.width, one)]
        for first, last, (body, wide) in spans:
            with body.loop(first, last, body.lanes) as c:
                work(body, wide, c)

    def _line(self, i: Any) -> Any:
        """Where row i of the scratch memory begins."""
        return self.k.times(i, self.block)

    def _at(self, c: Any) -> Any:
        """The column that is column c of the block."""
        return self.k.add(self.column, c)


class _Sum:
    """A sum of products, taken in single numbers and in whole vectors."""

    def __init__(self, bodies: list[Body]) -> None:
        self.held = {body.lanes: (body, body.zeros()) for body in bodies}

    def add(self, body: Body, a: Any, b: Any) -> None:
        place = self.held[body.lanes][1]
        body.b.store(body.fma(a, b, body.b.load(place)), place)

    def into(self, array: Any, index: Any) -> None:
        for body, place in self.held.values():
            body.increase(array, index, body.total(body.b.load(place)))
