"""Centred inner products of rows, and their norms: split over spans of columns, each read once.

Up to 20 rows a thread holds a sum for each pair of rows, and rows pass through its registers: only FMAs, no
shared memory. Products by tensor cores are taken of blocks. Products of more rows by FMAs are left to torch,
which was three times as fast as such blocks on an H200.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from byzopt.kernels.gpu.launching import attempted, launch, precision, runs_on
from byzopt.kernels.gpu.source import HEAD, Source

SHORT = 20  # rows whose 210 sums and 20 values the registers of a thread bear
TALL = 128  # rows of the largest block
_PROGRAMS = 1024  # so that every processor of the largest GPUs has a few
_SPAN = 4096  # columns whose products are summed in float32; sums of spans are float64
_WIDE = 64  # a span's columns are a multiple of it
_PARTS = {"tf32": 1, "tf32x3": 2}


def products(rows: Tensor, pivot: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """`<x_i - p, x_j - p>` `[n, n]` float64 on the device, symmetric; p is `pivot` `[d]`, or 0 (None).

    Products are float32, summed in float32 over at most 4096 columns, and in float64 over those sums. What
    is not finite, or overflows, shows on the diagonal. None where no kernel fits: for more than 20 rows, or
    products that are wanted in float64. `BYZOPT_GPU_PRODUCTS` has them taken by tensor cores, for up to 128.
    """
    n, d = rows.shape
    if not runs_on(rows) or dtype != torch.float32 or d == 0:
        return None
    about, taken = pivot is not None, precision()
    exact = taken == "float32"
    if n > (SHORT if exact else TALL):
        return None
    p = rows[0] if pivot is None else pivot
    where = (*rows.stride(), p, p.stride(0))

    def outer() -> Tensor:
        span, programs = _spans(d)
        sums = torch.empty(programs, n * (n + 1) // 2, dtype=torch.float32, device=rows.device)
        launch(_outer(n, about), programs, rows, *where, sums, d, span, BLOCK=_warp(), num_warps=1)
        return sums.sum(dim=0, dtype=torch.float64)[_places(n, rows.device)]

    def blocks() -> Tensor:
        from byzopt.kernels.gpu.fixed import dots

        tall = max(16, 1 << (n - 1).bit_length())
        span, programs = _spans(d, 8 * tall)  # so that the sums are few beside the rows
        sums = torch.empty(programs, tall, tall, dtype=torch.float32, device=rows.device)
        settings: dict[str, Any] = {"ABOUT": about, "PARTS": _PARTS[taken], "N": tall, "BLOCK": 32}
        settings |= {"HARDWARE": "ieee" if torch.version.hip else "tf32", "num_warps": 8 if tall >= 64 else 4}
        launch(dots, programs, rows, *where, sums, n, d, span, **settings)
        total = sums.sum(dim=0, dtype=torch.float64)[:n, :n]
        return (total + total.T) / 2

    return attempted(("products", n, about), outer) if exact else attempted(("products", taken), blocks)


def squares(rows: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Squared norms `[n]` float64 on the device, summed as `products`. None where no kernel fits."""
    n, d = rows.shape
    if not runs_on(rows) or dtype != torch.float32 or d == 0:
        return None

    def run() -> Tensor:
        from byzopt.kernels.gpu.fixed import squares as kernel

        span, programs = _spans(d)
        sums = torch.empty(programs, n, dtype=torch.float32, device=rows.device)
        launch(kernel, programs * n, rows, *rows.stride(), sums, n, d, span, BLOCK=_WIDE, num_warps=4)
        return sums.sum(dim=0, dtype=torch.float64)

    return attempted(("squares",), run)


def _spans(d: int, least: int = _WIDE) -> tuple[int, int]:
    """How many columns a program takes, and how many programs there are: the same on every device."""
    span = max(least, min(_SPAN, -(-d // (_PROGRAMS * _WIDE)) * _WIDE))
    return span, -(-d // span)


def _warp() -> int:
    """Threads of a warp, which sum among themselves without shared memory."""
    return 64 if torch.version.hip else 32


@lru_cache(maxsize=64)
def _places(n: int, device: torch.device) -> Tensor:
    """Where the product of rows i and j stands among those of pairs: `[n, n]`."""
    places = torch.zeros(n, n, dtype=torch.long, device="cpu")
    i, j = torch.tril_indices(n, n, device="cpu")
    places[i, j] = places[j, i] = torch.arange(len(i), device="cpu")
    return places.to(device)


@lru_cache(maxsize=64)
def _outer(n: int, about: bool) -> Any:
    source = Source("products", "rows, stride_n, stride_d, pivot, stride_p, sums, d, span", "tl.float32")
    source.line("part = tl.program_id(0).to(tl.int64)")
    source.line("step = tl.cast(stride_n, tl.int64)")
    held = [source.zeros() for _ in range(n * (n + 1) // 2)]
    with source.loop("for shift in range(0, span, BLOCK):"):
        source.line("first = part * span + shift")
        for line in HEAD:
            source.line(line)
        values = [source.loaded(f"place + {i} * step") for i in range(n)]
        if about:
            centre = source.loaded("pivot + at * tl.cast(stride_p, tl.int64)")
            values = [source.minus(value, centre) for value in values]
        for k, (i, j) in enumerate(pairs(n)):
            source.line(f"{held[k]} = tl.fma({values[i]}, {values[j]}, {held[k]})")
    for k, total in enumerate(held):
        source.line(f"tl.store(sums + part * {len(held)} + {k}, tl.sum({total}, axis=0))")
    return source.kernel()


def pairs(n: int) -> list[tuple[int, int]]:
    """All pairs i >= j of n rows, in the order in which their sums are kept."""
    return [(i, j) for i in range(n) for j in range(i + 1)]
