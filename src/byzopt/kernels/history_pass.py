"""The machine code of one pass over rows and their sums: what becomes of block after block of columns."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch

from byzopt.kernels.emit import Body
from byzopt.kernels.gram import TILE, add_tile
from byzopt.kernels.jit import Run, compiled

_LINE = 64  # bytes that are written past the cache at once


class Parts(NamedTuple):
    """What is compiled: rows about a centre, which then also enter the sums `moved`; a walk; a weighted sum;
    tables of sums, each with `older` ones or without; whether they are written past the cache."""

    centred: bool
    moved: bool
    walked: bool
    mixed: bool
    older: tuple[bool, ...]
    past: bool


@cache
def history_pass(dtype: torch.dtype, parts: Parts) -> Run:
    """The kernel for rows of `dtype` that does these parts, compiled once a process."""
    return compiled(
        f"history_{dtype.itemsize}",
        "pipppppp" + "pipip" * len(parts.older) + "ipppiiiii",
        lambda builder, function: _Pass(builder, function, dtype, parts).emit(),
    )


class _Table(NamedTuple):
    """A table of sums in the kernel: where its parts lie, whether there are older ones, and at which `place`
    among the numbers their sizes are."""

    old: Any
    old_stride: Any
    out: Any
    out_stride: Any
    products: Any
    older: bool
    place: int


class _Pass:
    """The kernel's body: what becomes of one block of columns after the other."""

    def __init__(self, builder: Any, function: Any, dtype: torch.dtype, parts: Parts) -> None:
        self.parts, self.k = parts, Body(builder, function, dtype)
        both = (1, self.k.lanes)
        self.bodies = [Body(builder, function, dtype, width) for width in both]
        self.wide = [Body(builder, function, torch.float64, width) for width in both]
        (
            self.rows, self.stride, self.factors, self.centre, self.x, self.home, self.weights, self.mixed,
            *tables, self.pivot, self.scratch, self.row_products, self.numbers, self.n, self.tall, self.block,
            self.start, self.stop,
        ) = function.args  # fmt: skip
        self.tables = []
        for i, older in enumerate(parts.older):
            old, old_stride, out, out_stride, products = tables[5 * i : 5 * i + 5]
            self.tables.append(_Table(old, old_stride, out, out_stride, products, older, 2 + i))

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
            for table in self.tables:
                self.table = table
                self._either(self.pivot, self._pivot)
                with k.loop(0, self.n) as i:
                    self._either(i, self._sum)
                self._multiply(self.table.products)
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
        path.into(self.numbers, self.k.add(self.k.times(2, self.n), 1))

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
        along.into(self.numbers, k.add(self.n, 1, i))

    def _pivot(self, i: Any, read: bool) -> None:
        """The sum that the others are centred about."""
        self._over(lambda body, _, c: body.store(self._grown(body, i, c, read), self.about, c))

    def _sum(self, i: Any, read: bool) -> None:
        """Sum i into its place, and about the pivot into the scratch memory."""
        k, size, out = self.k, _Sum(self.bodies), self.table.out
        place = k.add(k.times(i, self.table.out_stride), self.column)

        def part(body: Body, wide: Body, c: Any) -> None:
            value = self._grown(body, i, c, read)
            if self.parts.past and body.lanes > 1:
                body.store_past(value, out, k.add(place, c))
            else:
                body.store(value, out, k.add(place, c))
            size.add(body, value, value)
            body.store(k.b.fsub(value, body.load(self.about, c)), self.scratch, k.add(self._line(i), c))

        self._over(part, self._edge(place) if self.parts.past else None)
        size.into(self.numbers, k.add(k.times(self.table.place, k.add(self.n, 1)), i))

    def _grown(self, body: Body, i: Any, c: Any, read: bool) -> Any:
        """A vector of sum i with this round's row."""
        k, table = self.k, self.table
        if self.parts.moved:
            value = body.load(self.scratch, k.add(self._line(i), c))
        elif read:
            place = k.add(k.times(i, self.stride), self.column, c)
            body.fetch(self.rows, k.add(place, self.stride))
            given = body.load(self.rows, place)
            value = self._scaled(body, given, i)
        else:
            value = body.const(0.0)
        if not table.older:
            return value
        place = k.add(k.times(i, table.old_stride), self.column, c)
        body.fetch(table.old, k.add(place, table.old_stride))
        old = body.load(table.old, place)
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
        where = k.b.ptrtoint(k.at(self.table.out, place, k.scalar), k.i64)
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
