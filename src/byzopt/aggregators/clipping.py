"""Norm clipping before a rule: with a fixed bound, and adaptive (ARC)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from byzopt.aggregators.core.pre_aggregator import PRE_AGGREGATORS, ScalingStage
from byzopt.aggregators.numerics.distances import Array
from byzopt.errors import require


@PRE_AGGREGATORS.register("clipping")
@dataclass(frozen=True)
class Clipping(ScalingStage):
    """Shorten every row longer than `tau` to length `tau` (in the rows' own units).

    `tau` is an absolute length: neither scale- nor translation-equivariant. No κ is composed. Cost: one pass
    for norms.

    Args:
        tau: Largest length, in the rows' own units.

    Examples:
        >>> import torch
        >>> from byzopt import Clipping, Mean
        >>> rows = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> (Clipping(tau=1.0) >> Mean())(rows)
        tensor([0.3000, 0.9000])
    """

    translation_equivariant = False
    scale_equivariant = False
    convex = False

    bounds = True
    mixes = False
    batched = True

    tau: float = 2.0

    def __post_init__(self) -> None:
        require(self.tau > 0, "Parameter `tau` of Clipping", "be positive", self.tau)

    def lengths(self, norms: Array, unit: float) -> Array:
        shortened: Array = np.minimum(norms, self.tau / unit)
        return shortened


@PRE_AGGREGATORS.register("arc")
@dataclass(frozen=True)
class ARC(ScalingStage):
    """Shorten the k = floor(2 (f/n) (n - f)) longest rows to the length of the next one.

    Needs 2 f < n. Scale- but not translation-equivariant. No κ is composed here. Cost: one pass for norms.
    Source: Allouah et al., arXiv:2405.14432, algorithm 2 (adaptive robust clipping).

    Args:
        f: Number of faulty rows that the rule is set to withstand, 2 f < n.

    Examples:
        >>> import torch
        >>> from byzopt import ARC, Mean
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> (ARC(f=1) >> Mean())(rows)  # bounded, not filtered
        tensor([1.6000, 0.8000])
    """

    translation_equivariant = False
    convex = False

    bounds = True
    mixes = False
    batched = True

    f: int

    def lengths(self, norms: Array, unit: float) -> Array:
        m = norms.shape[-1]
        last = m - 1 - 2 * self.f * (m - self.f) // m  # in ascending order
        shortened: Array = np.minimum(norms, np.partition(norms, last)[..., last : last + 1])
        return shortened
