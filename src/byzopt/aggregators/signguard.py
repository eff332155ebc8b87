"""SignGuard: rows of ordinary length whose signs are like those of most others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.weighing import FigureRule
from byzopt.aggregators.numerics.clusters import largest_mode
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.figures import Ask, cut, middle
from byzopt.errors import require


@RULES.register("signguard")
@dataclass(frozen=True)
class SignGuard(FigureRule):
    """The mean of min(1, M/‖v_i‖) v_i over the rows that pass two filters, M being the median norm.

    1. Length: `low` M <= ‖v_i‖ <= `high` M. 2. Signs: each row is the point (share of its coordinates that
    are positive, zero, negative); the largest mean-shift cluster passes (`clusters.largest_mode`).

    `f` only says how many rows may be dropped. Needs 2 f < n; whatever f rows hold, the answer is no longer
    than M, which lies among the honest norms. κ unproved: rows that imitate length and sign shares pass.
    Scale-equivariant, not translation-equivariant; ties among clusters are broken by the shares of
    signs. Cost: two passes over the rows.
    Source: Xu, Huang, Song, Lan, ICDCS 2022 (arXiv:2109.05872), algorithm 2, the plain variant (no
    similarity feature). Where we differ: all coordinates are counted, not a random tenth, so nothing is
    drawn; where no row passes both filters the first decides alone (the paper leaves it open); a median
    norm of 0 gives 0 (the paper divides by it).

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.
        low: Shortest row that passes, in median norms.
        high: Longest row that passes, in median norms.

    Examples:
        >>> import torch
        >>> from byzopt import SignGuard
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> SignGuard(f=1)(rows)
        tensor([1.3953, 1.3953])
    """

    translation_equivariant = False
    convex = False
    asks = "signs"

    f: int | None = None
    low: float = 0.1
    high: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = f"low = {self.low}, high = {self.high}"
        ordered = 0 <= self.low <= 1 <= self.high
        require(ordered, "Parameters of SignGuard", "satisfy 0 <= low <= 1 <= high", limits)

    def shares(self, found: Array, unit: float, order: Ask | None = None) -> Array:
        norms = np.sqrt(found[-1])
        size = middle(norms)
        near = (norms >= self.low * size) & (norms <= self.high * size)
        near = near if near.any() else norms <= size
        signs = found[:3] / max(found[:3, 0].sum(), 1.0)
        both = near & largest_mode(torch.from_numpy(signs.T.copy())).numpy()
        passed = both if both.any() else near
        weights: Array = passed * cut(norms, size) / np.count_nonzero(passed)
        return weights
