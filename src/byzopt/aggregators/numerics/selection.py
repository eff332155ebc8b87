"""Order statistics of columns by a pruned selection network: minimum and maximum of whole rows, no sort.

The network (`kernels.networks`) runs compiled, in registers or in cache, where kernels are usable. Elsewhere,
on a CPU, it is NumPy's element-wise minimum and maximum of long pieces of rows, by our threads: NumPy holds
Python's lock for half a microsecond a call, a third of what torch does, and wakes no threads of its own. Few
columns do not pay for its calls, nor do many rows, and are sorted, by NumPy too, in rows of a copy. Where a
derivative is wanted, or rows lie elsewhere, torch sorts. All give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from byzopt import accelerator, kernels
from byzopt.kernels import RankWindow

NARROW = 1024  # columns below which a sort wins (measured on CPU)
_TALL = 64  # rows from which it does
_FEW = 128  # columns of which a call costs more than its arithmetic
_BLOCK = 1 << 24  # bytes of rows that a thread works on at once: they stay in its share of the cache
_CALL = 1 << 19  # bytes of a row in them: much shorter calls take less than passing on Python's lock
_APART = 3 << 14  # columns that a thread needs for its calls to be long enough
_MOST = 8  # threads that may share Python's lock, which is held for a tenth of a call
_PIECE = 1 << 20  # bytes of columns that are laid out as rows at a time
_SPARE = 2  # rows beside those of a block, in which a comparison's answers are written

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


def answer(block: Tensor, plan: RankWindow) -> Tensor:
    """What `plan` makes of every column of a finite block: `[n, b] -> [b]`."""
    if not block.is_cpu or block.requires_grad:
        return accelerator.answered(block, plan)[0]
    out = block.new_empty(block.shape[1])
    _by_pieces(block.numpy(), plan, out.numpy(), False, lambda values: None)
    return out


def answers(block: Tensor, plan: RankWindow, out: Tensor, ours: bool = False) -> bool:
    """As `answer`, for a block on the CPU, into `out` `[b]` of its dtype.

    A block that is `ours` is overwritten. Returns whether the block and the answers are finite.
    """
    fine: list[bool] = []
    _by_pieces(block.numpy(), plan, out.numpy(), ours, lambda values: fine.append(_finite(values)))
    return all(fine)


def _by_pieces(block: Array, plan: RankWindow, out: Array, ours: bool, look: Callable[[Array], None]) -> None:
    """Writes what `plan` makes of every column to `out`, by threads that `look` at values and at answers."""
    (n, b), threads = block.shape, torch.get_num_threads()
    width = max(NARROW, min(_CALL, _BLOCK // n) // block.itemsize)

    def part(start: int, stop: int) -> None:
        count = -(-(stop - start) // width)
        bounds = [start + (stop - start) * k // count for k in range(count + 1)]
        room = np.empty((_SPARE if ours else n + _SPARE, -(-(stop - start) // count)), dtype=block.dtype)
        for first, last in pairwise(bounds):
            look(block[:, first:last])
            _write(block[:, first:last], plan, out[first:last], room[:, : last - first])
            look(out[first:last])

    pieces = threads if n >= _TALL else max(1, min(threads, _MOST, b // _APART))
    kernels.parallel_for(b, block.size if pieces > 1 else 0, -(-b // pieces), part)


def order_statistics(
    block: Array, first: int, last: int, room: Array | None = None
) -> Sequence[Array] | Array:
    """The order statistics of ranks first .. last - 1 (from 0) of every column: `[n, b]` to arrays `[b]`.

    Equal to sorting, for finite input. `room` `[n + 2, b]` may be given to work in, and is overwritten; one
    of two rows, `[2, b]`, says that the block may be too. The result may lie in either.
    """
    n, width = block.shape
    room = np.empty((n + _SPARE, width), dtype=block.dtype) if room is None else room
    within = len(room) < n + _SPARE
    if width < NARROW or n >= _TALL:
        return _sorted(block, first, last, block if within else room)
    wires, spare, ours = list(block), list(room), [within] * n
    for i, j, low, high in kernels.network(n, first, last):
        a, b = wires[i], wires[j]
        if low:
            wires[i] = np.minimum(a, b, out=spare.pop())
        if high:
            wires[j] = np.maximum(a, b, out=spare.pop())
        spare += [row for row, k in ((a, i), (b, j)) if ours[k]]
        ours[i] = ours[j] = True
    return wires[first:last]


def _sorted(block: Array, first: int, last: int, room: Array) -> Array:
    """As `order_statistics`, by sorting each column; the result lies in `room`, which may be the block."""
    (n, width), found = block.shape, room[first:last]
    step = max(1, _PIECE // (n * block.itemsize))
    for start in range(0, width, step):
        piece = slice(start, start + step)
        columns = np.array(block[:, piece].T, order="C")  # a copy, of a single column too
        columns.sort(axis=1)
        found[:, piece] = columns[:, first:last].T
    return found


def _finite(values: Array) -> bool:
    """Whether all numbers are finite: the largest of them is NaN where one is."""
    return not values.size or bool(np.isfinite(values.max()) and np.isfinite(values.min()))


def _write(block: Array, plan: RankWindow, out: Array, room: Array) -> None:
    first, last, around = plan
    with np.errstate(all="ignore"):  # answers that are not finite are seen by those who asked
        if around is not None:
            ordered = order_statistics(block, 0, len(block), room)
            _mean(ordered[first:last], out)
            _mean_around(ordered, out, around)
        elif (first, last) == (0, len(block)):
            _mean(block, out)
        else:
            _mean(order_statistics(block, first, last, room), out)


def _mean(values: Sequence[Array] | Array, out: Array) -> None:
    """Writes the mean of arrays `[b]`, by a plain sum, to `out`."""
    if isinstance(values, np.ndarray) and values.shape[1] < _FEW:
        out[:] = np.add.accumulate(values, axis=0)[-1]  # a plain sum too, in one call
    else:
        np.copyto(out, values[0])
        for value in values[1:]:
            out += value
    out /= len(values)


def _mean_around(ordered: Sequence[Array] | Array, out: Array, count: int) -> None:
    """Writes the mean of the `count` values nearest to `out` of each column to it. Ties: the smaller.

    `ordered` holds a column's values in order, and is overwritten. The nearest are neighbours in it: value s
    makes way for value s + count when that one is nearer, and s grows one by one. Kept values are summed;
    nothing is subtracted from a sum.
    """
    if isinstance(ordered, np.ndarray) and ordered.shape[1] < _FEW:
        spare = len(ordered) - count
        goes = out - ordered[:spare] > ordered[count:] - out
        np.putmask(ordered[:spare], goes, 0)
        np.putmask(ordered[count:], ~goes, 0)
        out[:] = np.add.accumulate(ordered, axis=0)[-1]
        out /= count
        return
    moved = [out - ordered[s] > ordered[s + count] - out for s in range(len(ordered) - count)]
    for s, goes in enumerate(moved):
        np.putmask(ordered[s], goes, 0)
        np.putmask(ordered[s + count], ~goes, 0)
    out[:] = 0
    for value in ordered:
        out += value
    out /= count
