"""Order statistics of tall columns: ranks are found bit by bit. Importing this needs Triton.

The bits of a float, turned so that they order as the float does, are a whole number. Its k-th smallest among
a column's is found from the highest bit down: a bit is set where at most k numbers lie below what that makes.
Values are read once and stay in registers, n of them for each column of the block.
"""

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
def _ordered(bits):
    """Bits of floats as whole numbers that order as the floats do; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _smallest(keys, n, k, BLOCK: tl.constexpr):
    """The k-th smallest, from 0, of each column of `keys` `[N, BLOCK]`, of which n are finite numbers.

    It ends when in each column one key is left, or no bit.
    """
    found = tl.full([BLOCK], -2147483648, tl.int32)
    bit = tl.full([BLOCK], -2147483648, tl.int32)
    below, left, step = tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.int32) + n, 0
    while (step < 32) & (tl.max(left - below, axis=0) > 1):
        tried = found ^ bit
        count = _count(keys < tried[None, :])
        under = count <= k
        found, below, left = (
            tl.where(under, tried, found),
            tl.where(under, count, below),
            tl.where(under, left, count),
        )
        bit = tl.where(bit < 0, 1073741824, bit >> 1)
        step += 1
    return _next(keys, found)


@triton.jit
def _next(keys, least):
    """The smallest of each column's keys that is not below `least` `[BLOCK]`."""
    return tl.min(tl.where(keys >= least[None, :], keys, 2147483647), axis=0)


@triton.jit
def _sum(values, which):
    return tl.sum(tl.where(which, values, 0.0), axis=0)


@triton.jit
def _count(which):
    return tl.sum(which.to(tl.int32), axis=0)


@triton.jit
def ranked(
    rows,
    stride_n,
    stride_d,
    out,
    spoilt,
    n,
    d,
    first,
    last,
    around,
    RANKS: tl.constexpr,
    AROUND: tl.constexpr,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Means of ranks first .. last - 1 of each column, or of the `around` values nearest to those.

    RANKS is how many ranks they are, 3 for any more.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    i = tl.arange(0, N)
    place = rows + i[:, None] * tl.cast(stride_n, tl.int64) + at[None, :] * tl.cast(stride_d, tl.int64)
    values = tl.load(place, mask=(i[:, None] < n) & (at[None, :] < d), other=0.0).to(tl.float32)
    bad = _count(values * 0.0 != 0.0)
    # What stands in for rows that are not there lies above all numbers.
    keys = tl.where(i[:, None] < n, _ordered(values.to(tl.int32, bitcast=True)), 2147483647)
    low = _smallest(keys, n, first, BLOCK)
    answer = _ordered(low).to(tl.float32, bitcast=True)
    if RANKS == 2:
        other = tl.where(_count(keys <= low[None, :]) >= last, low, _next(keys, low + 1))
        answer = (answer + _ordered(other).to(tl.float32, bitcast=True)) * 0.5
    if RANKS == 3:
        smallest, high = answer, _smallest(keys, n, last - 1, BLOCK)
        largest = _ordered(high).to(tl.float32, bitcast=True)
        up_to, below = _count(keys <= low[None, :]), _count(keys < high[None, :])
        total = _sum(values, (keys > low[None, :]) & (keys < high[None, :]))
        total += (up_to - first).to(tl.float32) * smallest + (last - below).to(tl.float32) * largest
        answer = tl.where(low == high, smallest, tl.div_rn(total, (last - first).to(tl.float32)))
    if AROUND:
        # Where several values stand at the last distance, those below the centre come first, as smaller ones.
        apart = values - answer[None, :]
        away = tl.where(i[:, None] < n, tl.abs(apart).to(tl.int32, bitcast=True), 2147483647)
        edge = _smallest(away, n, around - 1, BLOCK)
        inner, tied = away < edge[None, :], away == edge[None, :]
        under, over = tied & (apart <= 0), tied & (apart > 0)
        wanted, lower, upper = around - _count(inner), _count(under), _count(over)
        taken = tl.minimum(wanted, lower)
        total = _sum(values, inner)
        total += tl.div_rn(taken.to(tl.float32) * _sum(values, under), tl.maximum(lower, 1).to(tl.float32))
        rest = (wanted - taken).to(tl.float32)
        total += tl.div_rn(rest * _sum(values, over), tl.maximum(upper, 1).to(tl.float32))
        answer = tl.div_rn(total, around.to(tl.float32))
    bad += (answer * 0.0 != 0.0).to(tl.int32)
    tl.store(out + at, answer.to(out.dtype.element_ty), mask=at < d)
    tl.store(spoilt + at * 0, float("nan"), mask=(bad != 0) & (at < d))
