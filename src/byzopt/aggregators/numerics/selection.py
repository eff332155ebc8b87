"""Order statistics of columns by a pruned selection network: minimum and maximum of whole rows, no sort.

The network (`kernels.networks`) runs compiled, in registers or in cache, where kernels are usable; else as
element-wise minimum and maximum over column blocks with nothing but torch: an order of magnitude faster than
sorting each column, on any device. Few columns do not pay for its calls, nor do many rows, and are sorted:
on a CPU by NumPy, which is many times faster than torch, in rows of a copy. All give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from byzopt import kernels
from byzopt.kernels import RankWindow

NARROW = 1024  # columns below which a sort wins (measured on CPU)
TALL = 100  # rows above which it does
_PIECE = 256  # columns that are laid out as rows at a time


def answer(block: Tensor, plan: RankWindow, room: Tensor | None = None) -> Tensor:
    """What `plan` makes of every column of a finite block: `[n, b] -> [b]`.

    `room` `[n + 1, b]` of the block's dtype may be given to work in, and is overwritten.
    """
    n = len(block)
    if plan.around is not None:
        ordered = order_statistics(block, 0, n, room)
        return mean_around(ordered, mean_of(ordered[plan.first : plan.last]), plan.around)
    if (plan.first, plan.last) == (0, n):
        return mean_of(block.unbind(0))
    return mean_of(order_statistics(block, plan.first, plan.last, room))


def order_statistics(block: Tensor, first: int, last: int, room: Tensor | None = None) -> Sequence[Tensor]:
    """The order statistics of ranks first .. last - 1 (from 0) of every column: `[n, b]` to tensors `[b]`.

    Equal to sorting, for finite input. `room`: see `answer`; the result may lie in it.
    """
    n, width = block.shape
    if width < NARROW or n > TALL:
        return in_order(block, room)[first:last].unbind(0)
    room = block.new_empty(n + 1, width) if room is None else room
    *wires, spare = room.unbind(0)
    for wire, row in zip(wires, block.unbind(0), strict=True):
        wire.copy_(row)
    for i, j, low, high in kernels.network(n, first, last):
        if low and high:
            torch.minimum(wires[i], wires[j], out=spare)
            torch.maximum(wires[i], wires[j], out=wires[j])
            wires[i], spare = spare, wires[i]
        elif low:
            torch.minimum(wires[i], wires[j], out=wires[i])
        else:
            torch.maximum(wires[i], wires[j], out=wires[j])
    return wires[first:last]


def in_order(block: Tensor, room: Tensor | None = None) -> Tensor:
    """Every column `[n]` in ascending order; the result may lie in `room`."""
    if block.device.type != "cpu" or block.requires_grad:
        return block.sort(dim=0).values
    out = torch.empty_like(block) if room is None else room[: len(block)]
    for start in range(0, block.shape[1], _PIECE):
        piece = slice(start, start + _PIECE)
        columns = np.array(block.numpy()[:, piece].T, order="C")  # a copy, of a single column too
        columns.sort(axis=1)
        out.numpy()[:, piece] = columns.T
    return out


def mean_of(values: Sequence[Tensor]) -> Tensor:
    """The mean of tensors `[b]` by a plain sum."""
    total = values[0].clone()
    for value in values[1:]:
        total += value
    return total.div_(len(values))


def mean_around(ordered: Sequence[Tensor], centre: Tensor, count: int) -> Tensor:
    """The mean of the `count` values nearest to `centre` of each column, given in order. Ties: the smaller.

    The nearest values are neighbours in order: value s makes way for value s + count when that one is nearer,
    and s grows one by one. Kept values are summed; nothing is subtracted from a sum.
    """
    n = len(ordered)
    moved = [centre - ordered[s] > ordered[s + count] - centre for s in range(n - count)]
    total = torch.zeros_like(centre)
    for j, value in enumerate(ordered):
        kept = moved[j - count] if j >= count else None
        if j < len(moved):
            kept = ~moved[j] if kept is None else kept & ~moved[j]
        total += value if kept is None else torch.where(kept, value, 0)
    return total / count
