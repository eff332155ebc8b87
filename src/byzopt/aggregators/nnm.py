"""Nearest-neighbour mixing: every row becomes the mean of the n - f rows nearest to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from byzopt.aggregators.base import PRE_AGGREGATORS, PreAggregator
from byzopt.aggregators.geometry import Geometry, even
from byzopt.theory import robustness


@PRE_AGGREGATORS.register("nnm")
@dataclass(frozen=True)
class NNM(PreAggregator):
    """y_i = mean of the n - f rows nearest to v_i, itself included; ties by the lower index.

    Needs 2 f < n. Turns a rule with κ₂ into one with (8 f/(n - f)) (κ₂ + 1), which is O(f/n).
    Cost: one Gram product, shared with the rule behind it. Source: Allouah et al., arXiv:2302.01772.
    """

    batched: ClassVar[bool] = True

    f: int

    def mixing(self, geometry: Geometry) -> Tensor:
        # A row is its own nearest neighbour even when others coincide with it.
        dists = geometry.sq_dists.numpy().copy()
        np.einsum("...ii->...i", dists)[...] = -1
        return even(dists.argsort(axis=-1, kind="stable")[..., : geometry.m - self.f], geometry.m)

    def compose_linear(self, kappa: float, n: int) -> float:
        """κ of NNM then a rule with κ (arXiv:2603.12512, tightened; see `theory.robustness`)."""
        return robustness.nnm_linear(kappa, n, self.f)

    def compose_squared(self, kappa: float, n: int) -> float:
        """κ₂ of NNM then a rule with κ₂ (arXiv:2302.01772)."""
        return robustness.nnm_squared(kappa, n, self.f)
