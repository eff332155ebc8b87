"""Nearest-neighbour mixing: every row becomes the mean of the n - f rows nearest to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.aggregators.core.pre_aggregator import PRE_AGGREGATORS, PreAggregator
from byzopt.aggregators.numerics.distances import Array, Distances
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.theory import robustness
from byzopt.theory.robustness import NOTHING, Coefficients


@PRE_AGGREGATORS.register("nnm")
@dataclass(frozen=True)
class NNM(PreAggregator):
    """y_i = mean of the n - f rows nearest to v_i, itself included; ties by the order of the rows' values.

    Needs 2 f < n. Turns a rule with κ₂ into one with (4 f/(n - f)) (κ₂ + 1), which is O(f/n) (derived here,
    and tight before a trimmed mean; published: twice as much). Linear form: `theory.robustness.nnm`.
    Cost: one Gram product, shared with the rule behind it. Source: Allouah et al., arXiv:2302.01772.

    Args:
        f: Number of faulty rows expected, 2 f < n.

    Examples:
        >>> import torch
        >>> from byzopt import NNM, TrimmedMean
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> NNM(f=1)(rows)[0]  # the mean of the four nearest
        tensor([1.5000, 1.5000])
        >>> (NNM(f=1) >> TrimmedMean(f=1))(rows)
        tensor([1.5000, 1.5000])
    """

    batched = True
    direct = True

    f: int

    def decide(self, apart: Distances) -> Array:
        return apart.nearest_shares(apart.m - self.f)

    def mixing(self, geometry: Geometry) -> Tensor:
        return torch.from_numpy(self.decide(geometry.apart))

    def compose(self, inner: Coefficients, n: int, f: int) -> Coefficients:
        return robustness.nnm(inner, n, f) if f == self.f else NOTHING
