"""Numbers as 8-bit codes in blocks that share a step: a quarter of float32's bytes, with a bounded error.

A block is `BLOCK` numbers that lie side by side (the last one may be shorter). Its step is its largest
magnitude over 127, and a number is sent as the nearest multiple of the step, halves to the even one. So a
number comes back off by at most half a step, which is 1/254 of the largest magnitude in its block.

The step is rounded down, so that nothing comes back larger than it was sent, and nothing overflows at the
end of a dtype. It is at least the smallest normal number, so that it divides: in a block whose largest
magnitude is below 127 times that (1.5e-36 in float32) numbers are off by at most half of the smallest normal
number. In float16 and bfloat16 a number that comes back is rounded to its dtype, too, by up
to 2^-11 and 2^-8 of itself: off by at most 1.13/254 and 2/254 of the largest in its block. A block with NaN
or Inf comes back as NaN, all of it. Rounding draws no lots: equal numbers give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 64
_MOST = 127
_CHUNK = 1 << 17  # numbers worked on at a time, so that what is between two passes stays in the caches


def coded_size(d: int, dtype: torch.dtype) -> int:
    """Bytes of d numbers of a dtype: a step for each block, in float64 for float64 and in float32 for
    others, then one for each number."""
    return -(-d // BLOCK) * _of_steps(dtype).itemsize + d


def encoded(values: Tensor) -> Tensor:
    """The bytes that stand for `values` `[d]`, of any float dtype."""
    out = torch.empty(coded_size(len(values), values.dtype), dtype=torch.uint8, device=values.device)
    least = torch.finfo(_of_steps(values.dtype)).tiny
    for numbers, steps, codes in _blocks(values, out):
        largest = numbers.abs().amax(dim=1).to(steps.dtype)
        # Rounded down by more than the product's own rounding: 127 steps are no more than the largest.
        end = (1 - 4 * torch.finfo(steps.dtype).eps) / _MOST
        steps.copy_((largest * end).clamp_(min=least))
        scaled = numbers / steps[:, None]
        codes.copy_(scaled.round_().nan_to_num_(0.0))
    return out


def decode(data: Tensor, into: Tensor) -> bool:
    """Write the numbers that bytes stand for in `into` `[d]`; whether all are finite.

    Any bytes of this length stand for something: what a rank sends in bad faith is its row, as ever.
    """
    largest = torch.zeros((), dtype=_of_steps(into.dtype), device=into.device)
    for numbers, steps, codes in _blocks(into, data):
        torch.mul(codes, steps[:, None], out=numbers)
        largest = torch.maximum(largest, steps.abs().amax())
    near = float(largest) * (_MOST + 1) <= torch.finfo(into.dtype).max  # NaN compares false
    return near or bool(into.isfinite().all())


def _blocks(values: Tensor, data: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Views of some blocks at a time: numbers `[k, b]`, their steps `[k]`, their codes `[k, b]`."""
    d, kind = len(values), _of_steps(values.dtype)
    count = -(-d // BLOCK)
    steps, codes = data[: count * kind.itemsize].view(kind), data[count * kind.itemsize :].view(torch.int8)
    whole = d // BLOCK * BLOCK
    some = _CHUNK if values.device.type == "cpu" else max(whole, BLOCK)
    for start in range(0, whole, some):
        stop = min(start + some, whole)
        rows = values[start:stop].view(-1, BLOCK), codes[start:stop].view(-1, BLOCK)
        yield rows[0], steps[start // BLOCK : stop // BLOCK], rows[1]
    if whole < d:
        yield values[whole:].view(1, -1), steps[-1:], codes[whole:].view(1, -1)


def _of_steps(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
