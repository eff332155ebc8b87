"""Centred inner products of rows, a block of columns at a time.

Few rows are centred and multiplied in registers, and read once. More are centred into scratch memory, and
multiplied from there in tiles.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Run, compiled, lanes, parallel_for

TILE = 4  # rows of a tile: 4 x 4 sums and 8 operands fit the registers
_FEW = 8  # rows that are multiplied in registers: 36 sums, some of which spill
_BLOCK = 4096  # columns at most whose products are summed in the rows' dtype
_BLOCK_BYTES = 1 << 19  # of centred rows at a time: they are read n / 4 times from the second-level cache


def fused_gram(rows: Tensor, pivot: Tensor) -> Tensor:
    """`<x_i - p, x_j - p>`, `[n, n]` float64, of usable rows.

    Blocks are summed in the rows' dtype, then in float64, all products in one order: equal rows have equal
    products. NaN or Inf in a row shows on the diagonal, as does a square that overflows.
    """
    n, d = rows.shape
    if pivot.shape != (d,):  # machine code reads beyond the end of a shorter one
        raise ValueError(f"A pivot should be [{d}], as rows are. Found {list(pivot.shape)}.")
    width, pivot = lanes(rows.dtype), pivot.contiguous()
    aligned = d - d % width
    sums: dict[int, Tensor] = {}

    def piece(start: int, stop: int) -> None:
        sums[start] = (_in_registers if n <= _FEW else _in_tiles)(rows, pivot, start, stop)

    parallel_for(aligned, rows.numel(), width, piece)
    parts = [sums[start] for start in sorted(sums)]  # in the same order however threads are scheduled
    total = sum(parts[1:], parts[0]) if parts else torch.zeros(n, n, dtype=torch.float64, device="cpu")
    if aligned < d:
        tail = rows[:, aligned:].double() - pivot[aligned:].double()
        total = total + (tail.unsqueeze(1) * tail).sum(dim=-1)
    return total


def _in_registers(rows: Tensor, pivot: Tensor, start: int, stop: int) -> Tensor:
    """The products `[n, n]` over columns start .. stop, as many as vectors hold, of few rows."""
    sums = torch.zeros(len(rows), len(rows), dtype=torch.float64, device="cpu")
    where = (rows.data_ptr(), rows.stride(0), pivot.data_ptr())
    _few(rows.dtype, len(rows))(*where, sums.data_ptr(), start, stop)
    return sums + sums.triu(1).T


@cache
def _few(dtype: torch.dtype, n: int) -> Run:
    """Adds the products over columns start .. stop to the upper half of `sums`."""

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
                k.increase(sums, a * n + b, k.total(k.b.load(place)))

    return compiled(f"gram_{dtype.itemsize}_{n}", "pippii", emit)


def _in_tiles(rows: Tensor, pivot: Tensor, start: int, stop: int) -> Tensor:
    """The products `[n, n]` over columns start .. stop, as many as vectors hold, of any number of rows."""
    n, width, tall = len(rows), lanes(rows.dtype), -(-len(rows) // TILE) * TILE
    most = min(_BLOCK_BYTES // (tall * rows.element_size()), _BLOCK, stop - start)
    block = max(width, most // width * width)
    sums = torch.zeros(tall, tall, dtype=torch.float64, device="cpu")
    scratch = torch.empty(tall, block, dtype=rows.dtype, device="cpu")
    scratch[n:] = 0
    where = (rows.data_ptr(), rows.stride(0), pivot.data_ptr(), scratch.data_ptr())
    _kernel(rows.dtype)(*where, sums.data_ptr(), n, tall, block, start, stop)
    return sums[:n, :n]


@cache
def _kernel(dtype: torch.dtype) -> Run:
    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, dtype)
        rows, stride, pivot, scratch, sums, n, tall, block, start, stop = function.args
        with k.loop(start, stop, block) as column:
            width = k.least(block, k.b.sub(stop, column))
            with k.loop(0, n) as i, k.loop(0, width, k.lanes) as c:
                value = k.load(rows, k.add(k.times(i, stride), column, c))
                value = k.b.fsub(value, k.load(pivot, k.add(column, c)))
                k.store(value, scratch, k.add(k.times(i, block), c))
            with k.loop(0, tall, TILE) as i, k.loop(i, tall, TILE) as j:
                _tile(k, scratch, sums, i, j, tall, block, width)

    return compiled(f"gram_{dtype.itemsize}", "pipppiiiii", emit)


def _tile(k: Body, scratch: Any, sums: Any, i: Any, j: Any, tall: Any, block: Any, width: Any) -> None:
    """Adds the inner products of rows i .. i + 3 with rows j .. j + 3 of the scratch block to the sums."""
    held = [[k.zeros() for _ in range(TILE)] for _ in range(TILE)]
    with k.loop(0, width, k.lanes) as c:
        left = [k.load(scratch, k.add(k.times(k.add(i, a), block), c)) for a in range(TILE)]
        right = [k.load(scratch, k.add(k.times(k.add(j, b), block), c)) for b in range(TILE)]
        for a in range(TILE):
            for b in range(TILE):
                k.b.store(k.fma(left[a], right[b], k.b.load(held[a][b])), held[a][b])
    off = k.b.icmp_signed("!=", i, j)
    for a in range(TILE):
        for b in range(TILE):
            value, row, column = k.total(k.b.load(held[a][b])), k.add(i, a), k.add(j, b)
            k.increase(sums, k.add(k.times(row, tall), column), value)
            with k.b.if_then(off):
                k.increase(sums, k.add(k.times(column, tall), row), value)
