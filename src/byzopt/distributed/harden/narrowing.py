"""Gradients in the dtype in which they travel."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor


def narrowed(numbers: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`numbers` on a device in a dtype, themselves if they are so; finite ones stay finite.

    A number above the largest of the dtype becomes that; rounding alone would make it Inf, and a rank that
    sends Inf is dropped. NaN and Inf stay.
    """
    out = numbers.to(dtype)
    end = torch.finfo(dtype).max
    if end < torch.finfo(numbers.dtype).max:
        over = out.isinf()
        if out.device.type != "cpu" or bool(over.any()):  # a GPU need not wait for the answer
            over &= numbers.isfinite()
            out = torch.where(over, out.clamp(-end, end), out)
    return out.to(device)


def travelling(dtypes: list[torch.dtype], wire: torch.dtype | None) -> torch.dtype:
    """The one dtype in which columns travel: the widest there is, or the wire's where that is narrower."""
    widest = reduce(torch.promote_types, dtypes)
    return widest if wire is None or widest.itemsize <= wire.itemsize else wire
