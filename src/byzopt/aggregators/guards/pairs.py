"""Tests of any two and any three workers over a window: who can be accused without error.

`byzopt.theory.accusing` has the tests and why no liar can turn them against honest workers. Written over
leading dimensions.
"""

from __future__ import annotations

from math import inf, log
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.guards.majority import Crowd
from byzopt.theory.accusing import odd_limit

THREES = 128  # workers up to which n³ counts are kept
_ROUNDINGS = 4  # of a row's and a sum's length: what computers may add to a difference in a round


class Pairs(NamedTuple):
    """Of all pairs `[..., n, n]` in float64: `sums` ‖S‖², `squares` Q, `cross` R, `scale` ρ; of each worker
    `[..., n]` what rounding may have added to S; of all threes `[..., n, n, n]` how often i was the odd one
    out beside j and k (empty for many workers)."""

    sums: Tensor
    squares: Tensor
    cross: Tensor
    scale: Tensor
    blur: Tensor
    odd: Tensor


def empty_window(n: int, device: torch.device, threes: bool = True) -> Pairs:
    """The statistics of a window before its first round."""
    zeros = torch.zeros(n, n, dtype=torch.float64, device=device)
    m = n if threes and n <= THREES else 0
    odd = torch.zeros(m, m, m, dtype=torch.int32, device=device)
    return Pairs(zeros, zeros, zeros, zeros, zeros.sum(dim=-1), odd)


def extended(pairs: Pairs, moves: Crowd, sums: Crowd) -> Pairs:
    """The statistics with one more round's rows, `moves` `[..., n, d]`, which are in the `sums` already."""
    apart = moves.dists
    squares = _finite(apart.square())
    total = _finite(sums.dists.square())
    cross = torch.where(pairs.scale > 0, (total - pairs.sums - squares) / 2, 0)
    scale = torch.where(pairs.scale > 0, pairs.scale, squares.square())
    eps = _ROUNDINGS * torch.finfo(sums.rows.dtype).eps
    blur = pairs.blur + eps * _finite(moves.lengths + sums.lengths)
    odd = pairs.odd
    if odd.shape[-1]:
        near = apart.unsqueeze(-3)  # of j and k, who are two
        near = near.masked_fill(torch.eye(near.shape[-1], dtype=torch.bool, device=near.device), inf)
        odd = odd + ((near < apart.unsqueeze(-1)) & (near < apart.unsqueeze(-2))).int()
    return Pairs(total, pairs.squares + squares, pairs.cross + cross.square(), scale, blur, odd)


def accused(pairs: Pairs, age: int, f: int, level: float) -> tuple[Tensor, Tensor]:
    """Who is accused `[..., n]` after `age` rounds with at most f liars: of drifting, of being the odd one.

    Both together accuse an honest worker in the window with probability `level` at most.
    """
    n = pairs.sums.shape[-1]
    couples = max(n * (n - 1), 1)
    odd = _odd(pairs, age, f, level / (couples * max(n - 2, 1)))
    return _drifting(pairs, f, level / couples), odd


def _drifting(pairs: Pairs, f: int, level: float) -> Tensor:
    scale = pairs.scale.clamp_min(torch.finfo(torch.float64).tiny)
    spread = (pairs.cross + scale) * (2 * log(1 / level) + torch.log1p(pairs.cross / scale))
    bound = (pairs.squares + 2 * spread.sqrt()).sqrt() + pairs.blur.unsqueeze(-1) + pairs.blur.unsqueeze(-2)
    return (pairs.sums.sqrt() > bound).sum(dim=-1) > f


def _odd(pairs: Pairs, age: int, f: int, level: float) -> Tensor:
    n = pairs.sums.shape[-1]
    if not pairs.odd.shape[-1]:
        return torch.zeros_like(pairs.blur, dtype=torch.bool)
    partners = (pairs.odd >= odd_limit(age, level)).sum(dim=-1)
    return (partners <= f).sum(dim=-1) - 1 < n - f - 1  # each worker is his own partner in nothing


def _finite(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values, 0)
