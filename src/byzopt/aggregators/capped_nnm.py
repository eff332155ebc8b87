"""Nearest-neighbour mixing that moves no row farther than the others are moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.pre_aggregator import PRE_AGGREGATORS, PreAggregator
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.errors import require
from byzopt.theory import robustness
from byzopt.theory.robustness import NOTHING, Coefficients


@PRE_AGGREGATORS.register("capped_nnm")
@dataclass(frozen=True)
class CappedNNM(PreAggregator):
    """y_i = v_i + min(1, c/‖w_i‖) w_i: the way w_i from v_i to the mean of the n - f rows nearest to it, cut.

    c is `cap` times the median of the ‖w_i‖, so that it follows the rows' scale; a large `cap` gives `nnm`,
    and a small one leaves the rows nearly where they are. The wish behind it: f liars who lie in the way of
    many honest rows carry none of them far. Needs 2 f < n. Turns a rule with κ₂ into one with
    (1 + 4 f/(n - f)) (κ₂ + 1), derived here and not sharp: more than `nnm`, of which it may leave anything.
    Cost: as `nnm`, one Gram product, shared with the rule behind it. Source: ours, a variation of
    arXiv:2302.01772.

    Args:
        f: Number of faulty rows expected, 2 f < n.
        cap: How far a row is moved at most, in medians of how far `nnm` moves the rows.

    Examples:
        >>> import torch
        >>> from byzopt import CappedNNM
        >>> rows = torch.tensor([[0.0], [1.0], [2.0], [3.0], [90.0]])
        >>> CappedNNM(f=1)(rows).ravel()  # the last row stays far off
        tensor([ 1.5000,  1.5000,  1.5000,  1.5000, 88.5000])
    """

    batched = True

    f: int
    cap: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.cap > 0, "Parameter `cap` of CappedNNM", "be positive", self.cap)

    def mixing(self, geometry: Geometry) -> Tensor:
        shares = geometry.apart.nearest_shares(geometry.m - self.f)
        here = np.eye(geometry.m)
        ways = shares - here
        squares = np.einsum("...ij,...ij->...i", ways @ geometry.centred.numpy(), ways)
        lengths = np.sqrt(np.maximum(squares, 0))
        most = self.cap * np.median(lengths, axis=-1, keepdims=True)
        cut = np.divide(most, lengths, out=np.ones_like(lengths), where=lengths > most)
        # Where nothing is cut these are the shares to the last bit, and a row's own is the largest.
        return torch.from_numpy((1 - cut)[..., None] * here + cut[..., None] * shares)

    def compose(self, inner: Coefficients, n: int, f: int) -> Coefficients:
        return robustness.partly_nnm(inner, n, f) if f == self.f else NOTHING
