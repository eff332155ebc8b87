"""Centred inner products of rows, a block of columns at a time."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Run, compiled, lanes, parallel_for

TILE = 4  # rows of a tile: 4 x 4 sums and 8 operands fit the registers
_BLOCK_BYTES = 1 << 17  # of centred rows at a time: they are read n / 4 times from the second-level cache


def fused_gram(rows: Tensor, pivot: Tensor) -> Tensor:
    """`<x_i - p, x_j - p>`, `[n, n]` float64, of usable rows.

    Blocks are summed in the rows' dtype, then in float64, all products in one order: equal rows have equal
    products. NaN or Inf in a row shows on the diagonal, as does a square that overflows.
    """
    n, d = rows.shape
    width, tall = lanes(rows.dtype), -(-n // TILE) * TILE
    aligned = d - d % width
    block = max(width, min(_BLOCK_BYTES // (tall * rows.element_size()), 4096) // width * width)
    run, pivot = _kernel(rows.dtype), pivot.contiguous()
    sums: dict[int, Tensor] = {}

    def piece(start: int, stop: int) -> None:
        sums[start] = torch.zeros(tall, tall, dtype=torch.float64, device="cpu")
        scratch = torch.empty(tall, block, dtype=rows.dtype, device="cpu")
        scratch[n:] = 0
        where = (rows.data_ptr(), rows.stride(0), pivot.data_ptr(), scratch.data_ptr())
        run(*where, sums[start].data_ptr(), n, tall, block, start, stop)

    parallel_for(aligned, rows.numel(), width, piece)
    total = torch.zeros(n, n, dtype=torch.float64, device="cpu")
    for start in sorted(sums):  # in the same order however threads are scheduled
        total += sums[start][:n, :n]
    if aligned < d:
        tail = rows[:, aligned:].double() - pivot[aligned:].double()
        total += (tail.unsqueeze(1) * tail).sum(dim=-1)
    return total


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
