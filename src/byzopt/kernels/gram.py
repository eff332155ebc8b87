"""Centred inner products of rows, a block of columns at a time.

Few rows are centred and multiplied in registers, and read once. More are centred into scratch memory, and
multiplied from there in tiles; hundreds by panels (`panels`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, compiled, lanes, parts_of
from byzopt.kernels.panels import products_by_panels

TILE = 4  # rows of a tile: 4 x 4 sums and 8 operands fit the registers
_SHORT = 1 << 16  # numbers that are multiplied in a microsecond or so: calls are what costs
_MANY = 256  # rows beyond which a block of them that stays in cache is too narrow for sums along rows
_ADDED = 8  # rows with which a number is multiplied in the time that it takes to be added
_FEW = 8  # rows that are multiplied in registers: 36 sums, some of which spill
_BLOCK = 4096  # columns at most whose products are summed in the rows' dtype
_BLOCK_BYTES = 1 << 19  # of centred rows at a time: they are read n / 4 times from the second-level cache


def fused_gram(rows: Tensor, pivot: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`<x_i - p, x_j - p>`, `[n, n]` float64, of usable rows, multiplied in `dtype` (default: theirs).

    Blocks are summed in `dtype`, then in float64, all products in one order: equal rows have equal products.
    NaN or Inf in a row shows on the diagonal, as does a square that overflows.
    """
    n, d = rows.shape
    if pivot.shape != (d,):  # machine code reads beyond the end of a shorter one
        raise ValueError(f"A pivot should be [{d}], as rows are. Found {list(pivot.shape)}.")
    pivot, dtype, size = pivot.contiguous(), dtype or rows.dtype, rows.numel()
    if size <= _SHORT:
        return torch.from_numpy(_in_tiles(rows, pivot, dtype, 0, d))
    if n > _MANY:
        return products_by_panels(rows, pivot, dtype)
    width, few = lanes(dtype), n <= _FEW and dtype == rows.dtype
    aligned = d - d % width

    def part(start: int, stop: int) -> Tensor:
        args = rows, pivot, dtype, start, stop
        return torch.from_numpy(_in_registers(*args) if few else _in_tiles(*args))

    parts = parts_of(aligned, size * (1 + n // _ADDED), width, part)
    if aligned < d:
        parts.append(torch.from_numpy(_in_tiles(rows, pivot, dtype, aligned, d)))
    return sum(parts[1:], parts[0])


def _in_registers(rows: Tensor, pivot: Tensor, dtype: torch.dtype, start: int, stop: int) -> Array:
    """The products `[n, n]` over columns start .. stop, as many as vectors hold, of few rows."""
    sums = np.zeros((len(rows), len(rows)))
    where = (rows.data_ptr(), rows.stride(0), pivot.data_ptr())
    _few(dtype, len(rows))(*where, address(sums), start, stop)
    return sums


@cache
def _few(dtype: torch.dtype, n: int) -> Run:
    """Adds the products over columns start .. stop to `sums`."""

    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, dtype)
        rows, stride, pivot, sums, start, stop = function.args
        pairs = [(a, b) for a in range(n) for b in range(a, n)]
        with k.loop(start, stop, _BLOCK) as column:
            held = [k.zeros() for _ in pairs]
            with k.loop(column, k.least(k.add(column, _BLOCK), stop), k.lanes) as c:
                centre = k.load(pivot, c)
                values = [k.b.fsub(k.load(rows, k.add(k.times(stride, a), c)), centre) for a in range(n)]
                for (a, b), place in zip(pairs, held, strict=True):
                    k.b.store(k.fma(values[a], values[b], k.b.load(place)), place)
            for (a, b), place in zip(pairs, held, strict=True):
                value = k.total(k.b.load(place))
                for at in {a * n + b, b * n + a}:
                    k.increase(sums, at, value)

    return compiled(f"gram_{dtype.itemsize}_{n}", "pippii", emit)


def _in_tiles(rows: Tensor, pivot: Tensor, dtype: torch.dtype, start: int, stop: int) -> Array:
    """The products `[n, n]` over columns start .. stop, in `dtype`."""
    n = rows.shape[0]
    tall, block, size = scratch_of(n, stop - start, dtype)
    offsets, room, out = np.arange(n) * rows.stride(0), np.empty(size), np.empty((n, n))
    where = rows.data_ptr(), address(offsets), pivot.data_ptr()
    _kernel(rows.dtype, dtype)(*where, address(room), address(out), n, tall, block, start, stop)
    return out


def scratch_of(n: int, d: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """What `write_products` works with: n rounded up to whole tiles, the columns of a block, and how many
    doubles hold all of it."""
    tall = -(-n // TILE) * TILE
    block = block_width(tall, dtype, d)
    return tall, block, tall * (tall + block)


def block_width(tall: int, dtype: torch.dtype, d: int, size: int = _BLOCK_BYTES) -> int:
    """How many of d columns `tall` rows are multiplied at a time: whole vectors, `size` bytes at most."""
    most, width = min(size // (tall * dtype.itemsize), _BLOCK, d), lanes(dtype)
    return max(1, -(-most // width)) * width


@cache
def _kernel(given: torch.dtype, dtype: torch.dtype) -> Run:
    def emit(builder: Any, function: Any) -> None:
        write_products(Body(builder, function, dtype), given, *function.args)

    return compiled(f"gram_{given.itemsize}_{dtype.itemsize}", "pppppiiiii", emit)


def write_products(
    k: Body,
    given: torch.dtype,
    rows: Any,
    offsets: Any,
    pivot: Any,
    room: Any,
    out: Any,
    n: Any,
    tall: Any,
    block: Any,
    start: Any,
    stop: Any,
) -> None:
    """The body of a kernel: the products in the dtype of `k` of rows of the `given` one, which begin at
    `offsets`, over columns start .. stop, into `out`. For `room`, `tall` and `block` see `scratch_of`."""
    sums, scratch = room, k.at(room, k.times(tall, tall), k.double)

    def centre(i: Any, first: Any, last: Any, column: Any, lanes: int) -> None:
        """Columns first .. last of the block, about the pivot, into the scratch memory."""
        source, target = (Body(k.b, k.function, kind, lanes) for kind in (given, k.dtype))
        row = k.add(k.b.load(k.at(offsets, i, k.i64)), column)
        with k.loop(first, last, lanes) as c:
            value, middle = source.load(rows, k.add(row, c)), source.load(pivot, k.add(column, c))
            centred = k.b.fsub(source.widened(value, target), source.widened(middle, target))
            target.store(centred, scratch, k.add(k.times(i, block), c))

    with k.loop(0, k.times(tall, tall)) as i:
        k.put(k.ir.Constant(k.double, 0.0), sums, i)
    with k.loop(start, stop, block) as column:
        width = k.least(block, k.b.sub(k.whole(stop), column))
        full = k.b.and_(width, k.whole(-k.lanes))
        whole = k.b.and_(k.add(width, k.lanes - 1), k.whole(-k.lanes))
        with k.loop(0, n) as i:
            with k.b.if_then(k.b.icmp_signed("<", full, whole)):  # what the last columns leave is zero
                k.store(k.const(0.0), scratch, k.add(k.times(i, block), full))
            centre(i, 0, full, column, k.lanes)
            centre(i, full, width, column, 1)
        with k.loop(n, tall) as i, k.loop(0, whole, k.lanes) as c:
            k.store(k.const(0.0), scratch, k.add(k.times(i, block), c))
        with k.loop(0, tall, TILE) as i, k.loop(i, tall, TILE) as j:
            add_tile(k, scratch, sums, i, j, tall, block, whole)
    with k.loop(0, n) as i, k.loop(0, n) as j:
        k.put(k.number_at(sums, k.add(k.times(i, tall), j)), out, k.add(k.times(i, n), j))


def add_tile(k: Body, scratch: Any, sums: Any, i: Any, j: Any, tall: Any, block: Any, width: Any) -> None:
    """Adds the inner products of rows i .. i + 3 with rows j .. j + 3 of the scratch block to the sums."""
    held = [[k.zeros() for _ in range(TILE)] for _ in range(TILE)]
    with k.loop(0, width, k.lanes) as c:
        left = [k.load(scratch, k.add(k.times(k.add(i, a), block), c)) for a in range(TILE)]
        right = [k.load(scratch, k.add(k.times(k.add(j, b), block), c)) for b in range(TILE)]
        for a in range(TILE):
            for b in range(TILE):
                k.b.store(k.fma(left[a], right[b], k.b.load(held[a][b])), held[a][b])
    sized, off = k.array(TILE * TILE), k.b.icmp_signed("!=", i, j)
    for p, place in enumerate(place for row in held for place in row):
        k.b.store(k.b.load(place), k.at(sized, p, k.vector))
    with k.loop(0, TILE) as a, k.loop(0, TILE) as b:
        value = k.total(k.b.load(k.at(sized, k.add(k.times(a, TILE), b), k.vector)))
        row, column = k.add(i, a), k.add(j, b)
        k.increase(sums, k.add(k.times(row, tall), column), value)
        with k.b.if_then(off):
            k.increase(sums, k.add(k.times(column, tall), row), value)
