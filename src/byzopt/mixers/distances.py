"""Distances between what nodes hear and where they stand, by one product of all rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.linalg import compute_dtype, product, row_mean
from byzopt.mixers.base import Hearing

SMALL = 1 << 16  # up to this many numbers float64 costs nothing worth saving
CHUNK = 1 << 22  # numbers of differences, or of sets of rows, held at once
# Below this share of the rows' squared lengths a squared distance is summed from differences: products lose
# log10(1/share) of their 15 (float64) or 7 (float32) digits, which leaves eleven or five.
CLOSE = {torch.float64: 1e-4, torch.float32: 1e-2}


class Measured(NamedTuple):
    """Rows and lies (`Hearing.told`) about the rows' mean, missing ones 0, and distances `[..., H, H + B]`
    (float64), 0 where nothing is heard."""

    rows: Tensor
    lies: Tensor
    distances: Tensor


def measure(hearing: Hearing) -> Measured:
    """All distances of a hearing: one Gram product, and differences for what liars tell single receivers."""
    lies, heard, (_, b) = hearing.lies, hearing.heard, hearing.sizes
    middle, about = _about(hearing)
    if hearing.per_receiver:
        lies = hearing.told
        finite = lies.isfinite().all(dim=-1, keepdim=True)
        lies = torch.where(finite, lies - middle.unsqueeze(-2), 0.0).to(about.dtype)
        near = hearing.kept("near", lambda: _squares(about, about, heard[..., : hearing.sizes[0]]))
        far = (lies - about.unsqueeze(-3)).square().sum(dim=-1).mT.double()
        squares = torch.cat([near, far.expand(*near.shape[:-1], b)], dim=-1)
    else:
        finite = lies.isfinite().all(dim=-1, keepdim=True)
        lies = torch.where(finite, lies - middle, 0.0).to(about.dtype)
        squares = _squares(about, torch.cat([about, lies], dim=-2), heard)
    return Measured(about, lies, torch.where(heard, squares, 0.0).sqrt())


def _about(hearing: Hearing) -> tuple[Tensor, Tensor]:
    """The honest rows' mean `[..., 1, d]`, and the rows about it."""

    def found() -> tuple[Tensor, Tensor]:
        rows, lies = hearing.rows, hearing.lies
        numbers = rows.shape[-2:].numel() + lies.shape[-3 if hearing.per_receiver else -2 :].numel()
        dtype = torch.float64 if numbers <= SMALL else compute_dtype(rows.dtype)
        middle = row_mean(rows).unsqueeze(-2)
        return middle, (rows - middle).to(dtype)

    return hearing.kept("about", found)


def _squares(rows: Tensor, others: Tensor, wanted: Tensor) -> Tensor:
    """Squared distances `[..., H, M]` (float64), accurate where `wanted`."""
    own, sizes = rows.square().sum(dim=-1).double(), others.square().sum(dim=-1).double()
    total = own.unsqueeze(-1) + sizes.unsqueeze(-2)
    squares = (total - 2 * product(rows, others.mT).double()).clamp_(min=0)
    # Lies so long that their products overflow are infinitely far.
    squares = squares.nan_to_num_(nan=torch.inf, posinf=torch.inf)
    close = (wanted & (squares <= CLOSE[rows.dtype] * total)).nonzero()
    each = max(1, CHUNK // max(1, rows.shape[-1]))
    for begin in range(0, len(close), each):
        some = close[begin : begin + each]
        *lead, i, j = some.unbind(1)
        away = rows[(*lead, i)] - others[(*lead, j)]
        squares[(*lead, i, j)] = away.square().sum(dim=-1).double()
    return squares
