"""Kernels whose text does not depend on the number of rows. Importing this needs Triton."""

from __future__ import annotations

from byzopt.errors import MissingExtra

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise MissingExtra(
        f"Kernels on a GPU need triton, which torch for CUDA or ROCm brings. Found: {error}."
    ) from None


@triton.jit
def doubled(place):
    """Twice the number at `place`: the first kernel on a device, which shows that Triton works there."""
    tl.store(place, 2 * tl.load(place))


@triton.jit
def _tf32(x):
    """The nearest numbers of 10 bits behind the point. NaN stays NaN, whose bits a carry may spill over."""
    bits = x.to(tl.int32, bitcast=True)
    rounded = ((bits + 0xFFF + ((bits >> 13) & 1)) & -8192).to(tl.float32, bitcast=True)
    return tl.where(x == x, rounded, x)


@triton.jit
def dots(
    rows,
    stride_n,
    stride_d,
    pivot,
    stride_p,
    sums,
    n,
    d,
    span,
    ABOUT: tl.constexpr,
    PARTS: tl.constexpr,
    HARDWARE: tl.constexpr,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Products of all rows over a span of columns, `[N, N]` float32.

    By tensor cores: from the leading 11 bits of each number (PARTS 1), or from those and the 11 bits behind
    them (2).
    """
    part = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, N)
    row = rows + i[:, None] * tl.cast(stride_n, tl.int64)
    total = tl.zeros([N, N], tl.float32)
    for shift in range(0, span, BLOCK):
        at = part * span + shift + tl.arange(0, BLOCK)
        inside = (i[:, None] < n) & (at[None, :] < d)
        value = tl.load(row + at[None, :] * tl.cast(stride_d, tl.int64), mask=inside, other=0.0).to(
            tl.float32
        )
        if ABOUT:
            centre = tl.load(pivot + at * tl.cast(stride_p, tl.int64), mask=at < d, other=0.0).to(tl.float32)
            value = tl.where(inside, value - centre[None, :], 0.0)
        high = _tf32(value)
        if PARTS == 2:
            low = _tf32(value - high)
            total = tl.dot(low, tl.trans(high), total, input_precision=HARDWARE)
            total = tl.dot(high, tl.trans(low), total, input_precision=HARDWARE)
        total = tl.dot(high, tl.trans(high), total, input_precision=HARDWARE)
    place = sums + part * N * N + i[:, None] * N + i[None, :]
    tl.store(place, total)


@triton.jit
def squares(rows, stride_n, stride_d, sums, n, d, span, BLOCK: tl.constexpr):
    """The squared norm of one row over one span of columns, float32; the sums are `[programs, n]`."""
    program = tl.program_id(0).to(tl.int64)
    part, row = program // n, rows + program % n * tl.cast(stride_n, tl.int64)
    total = tl.zeros([BLOCK], tl.float32)
    for shift in range(0, span, BLOCK):
        at = part * span + shift + tl.arange(0, BLOCK)
        value = tl.load(row + at * tl.cast(stride_d, tl.int64), mask=at < d, other=0.0).to(tl.float32)
        total = tl.fma(value, value, total)
    tl.store(sums + program, tl.sum(total, axis=0))
