"""Figures of single rows: squared lengths, distances to a vector, products with it, signs. No two rows are
multiplied.

Rows may be float16, bfloat16, float32 or float64, and may lie anywhere. Nothing here writes to its arguments.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from byzopt import accelerator, kernels, linalg
from byzopt.kernels import Figures

_FEW = 1 << 16  # numbers that cost no more in float64
_TINY = 1e-30  # squared lengths below this may have lost digits in float32


def figures(rows: Tensor, centre: Tensor | int | None, asked: Figures) -> Tensor:
    """What is `asked` of each row, and in the last place its squared length: `[k, n]` float64.

    For the words, and what is promised, see `kernels.row_figures`. Cost: one pass over the rows, by all
    threads.
    """
    if kernels.supports(rows) and not accelerator.holds(rows):
        return torch.from_numpy(kernels.row_figures(rows, centre, asked))
    centre = rows[centre] if isinstance(centre, int) else centre
    if rows.is_cpu and kernels.selects() and rows.numel() * 4 <= linalg.PIECE_BYTES:
        rows = linalg.lined(rows.to(linalg.compute_dtype(rows.dtype)))
        return torch.from_numpy(kernels.row_figures(rows, centre, asked))
    if rows.is_cpu and rows.numel() <= _FEW:
        return _summed(rows.double(), centre, asked, torch.float64)
    if accelerator.holds(rows):
        return _figures(rows, centre, asked)
    total = torch.zeros(kernels.COUNTS[asked], len(rows), dtype=torch.float64, device="cpu")
    for piece, block in linalg.pieces(rows):
        p = None if centre is None else centre[piece].to(block.dtype)
        if kernels.supports(block):
            total += torch.from_numpy(kernels.row_figures(block, p, asked))
        else:
            total += _figures(block, p, asked)
    return total


def _figures(rows: Tensor, centre: Tensor | None, asked: Figures) -> Tensor:
    """As `figures`, by torch."""
    dtype = torch.float64 if asked == "inner" else linalg.compute_dtype(rows.dtype)
    found = _summed(rows, centre, asked, dtype)
    if dtype == torch.float64:
        return found
    squares = (found if asked == "apart" else found[-1]).cpu().numpy()
    if squares.min() >= _TINY and squares.max() < inf:
        return found
    fine = ((squares >= _TINY) & (squares < inf)).reshape(-1, len(rows)).all(axis=0)
    lost = torch.from_numpy(~fine).to(rows.device)
    found[:, lost] = _summed(rows[lost], centre, asked, torch.float64)
    return found


def _summed(rows: Tensor, centre: Tensor | None, asked: Figures, dtype: torch.dtype) -> Tensor:
    """The figures in `dtype`, of whole rows where nothing has to be written for it."""
    if rows.dtype == dtype and (asked == "squares" or rows.numel() <= _FEW):
        return torch.stack(_parts(rows, centre, asked))
    total = torch.zeros(kernels.COUNTS[asked], len(rows), dtype=torch.float64, device=rows.device)
    for piece, block in linalg.column_blocks(rows, dtype, linalg.PIECE_BYTES // 4):
        total += torch.stack(_parts(block, None if centre is None else centre[piece], asked))
    return total


def _parts(block: Tensor, centre: Tensor | None, asked: Figures) -> list[Tensor]:
    """The figures of a block of columns, in its dtype, each `[n]`."""
    squares = accelerator.span_squares(block)
    if centre is None:
        return [*_signs(block), squares] if asked == "signs" else [squares]
    p = centre.to(block.dtype)
    away = block if asked == "inner" else block - p
    if asked == "apart":
        return [accelerator.span_squares(away), squares]
    # No product of BLAS, which may sum equal rows in another order.
    return [(away * p).sum(dim=1, dtype=torch.float64), squares]


def _signs(block: Tensor) -> list[Tensor]:
    """How many numbers of each row are positive, zero and negative: whole numbers, which float32 holds."""
    signs = block.sign()
    balance, some = signs.sum(dim=1).double(), signs.abs().sum(dim=1).double()
    return [(some + balance) / 2, block.shape[1] - some, (some - balance) / 2]


def lengths(rows: Tensor, pivot: Tensor) -> tuple[Tensor, Tensor]:
    """`<x_i - p, p>` and `<x_i, x_i>` as `[n]` float64; `pivot` `[d]`. Cost: one pass over the rows."""
    cross, squares = figures(rows, pivot, "lean")
    return cross, squares
