"""Figures of single rows: squared lengths, distances to a vector, products with it, signs. No two rows are
multiplied.

Rows may be float16, bfloat16, float32 or float64, and may lie anywhere. Nothing here writes to its arguments.
"""

from __future__ import annotations

import torch
from torch import Tensor

from byzopt import accelerator, kernels, linalg
from byzopt.kernels import Figures

_TINY = 1e-30  # squared lengths below this may have lost digits in float32


def figures(rows: Tensor, centre: Tensor | int | None, asked: Figures) -> Tensor:
    """What is `asked` of each row, and in the last place its squared length: `[k, n]` float64.

    For the words, and what is promised, see `kernels.row_figures`. Cost: one pass over the rows, by all
    threads.
    """
    if kernels.supports(rows) and not accelerator.holds(rows):
        return torch.from_numpy(kernels.row_figures(rows, centre, asked))
    centre = rows[centre] if isinstance(centre, int) else centre
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
    squares = found if asked == "apart" else found[-1:]
    lost = ~((squares >= _TINY) & (squares < torch.inf)).all(dim=0)
    if lost.any():
        found[:, lost] = _summed(rows[lost], centre, asked, torch.float64)
    return found


def _summed(rows: Tensor, centre: Tensor | None, asked: Figures, dtype: torch.dtype) -> Tensor:
    """The figures in `dtype`, of whole rows where nothing has to be written for it."""
    if asked == "squares" and rows.dtype == dtype:
        return accelerator.span_squares(rows).unsqueeze(0)
    total = torch.zeros(kernels.COUNTS[asked], len(rows), dtype=torch.float64, device=rows.device)
    for piece, block in linalg.column_blocks(rows, dtype, linalg.PIECE_BYTES // 4):
        squares = accelerator.span_squares(block)
        if centre is None:
            parts = _signs(block) if asked == "signs" else []
        else:
            p = centre[piece].to(dtype)
            away = block if asked == "inner" else block - p
            parts = [
                accelerator.span_squares(away)
                if asked == "apart"
                else (away * p).sum(dim=1, dtype=torch.float64)  # equal rows alike, as by no product of BLAS
            ]
        total += torch.stack([*parts, squares])
    return total


def _signs(block: Tensor) -> list[Tensor]:
    """How many numbers of each row are positive, zero and negative: whole numbers, which float32 holds."""
    signs = block.sign()
    balance, some = signs.sum(dim=1).double(), signs.abs().sum(dim=1).double()
    return [(some + balance) / 2, block.shape[1] - some, (some - balance) / 2]


def lengths(rows: Tensor, pivot: Tensor) -> tuple[Tensor, Tensor]:
    """`<x_i - p, p>` and `<x_i, x_i>` as `[n]` float64; `pivot` `[d]`. Cost: one pass over the rows."""
    cross, squares = figures(rows, pivot, "lean")
    return cross, squares
