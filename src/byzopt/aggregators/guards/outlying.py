"""Rows of a round that lie farther out than an honest row can, although f of the others may be faulty.

`suspicion` is more sensitive and can be turned against honest rows: f copies of one of them are a majority
with it where n = 2 f + 1. `byzopt.theory.outlying` says how far is far enough.
"""

from __future__ import annotations

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.theory.outlying import crowd_radii

_ROUNDINGS = 4  # of the centre's length: what sums in another order may differ by


def assumed_faults(rule: BaseAggregator | None, n: int) -> int:
    """How many of n rows a watch must take for possible liars: as many as the rule tolerates. Where it
    tolerates none, or is not known, as many as can be, ⌊(n - 1)/2⌋."""
    most = max(n - 1, 0) // 2
    tolerated = rule.tolerance(n) if rule is not None else 0
    return min(tolerated, most) if tolerated > 0 else most


def outlying(mixed: Mixed, dtype: torch.dtype, f: int) -> Tensor:
    """Distances `[n]` of finite, unmixed rows from crowds of them, as shares of what an honest row may have:
    above 1 is beyond it. Zero for all where nothing can be said, as for n = 2 f + 1 with f copies."""
    geometry, n = mixed.geometry, mixed.geometry.m
    apart = geometry.sq_dists.sqrt()
    ordered = apart.sort(dim=1).values
    rounding = _ROUNDINGS * torch.finfo(dtype).eps
    most = torch.zeros(n, dtype=torch.float64, device="cpu")
    for crowd, reach in crowd_radii(n, f) if n else ():
        radius, centre = ordered[:, crowd - 1].min(dim=0)
        slack = rounding * float(geometry.sq_norms[centre]) ** 0.5
        away = apart[centre]
        share = torch.where(away > 0, away / (reach * radius + slack), 0.0)
        most = torch.maximum(most, share)
    return most
