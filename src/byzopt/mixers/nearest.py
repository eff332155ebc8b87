"""Mixers that drop the longest differences: geometric trimmed sums, and nearest-neighbour averaging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from byzopt.mixers.base import MIXERS, Hearing
from byzopt.mixers.scaled import ScaledMixer, kept


@MIXERS.register("gts")
@dataclass(frozen=True)
class GTS(ScaledMixer):
    """The b longest differences are dropped, the others summed: ρ = 4.

    On a complete graph with α = 1/(n - f) this is `nna`. It pulls nodes together faster than `cs+` while b is
    small, and flies apart where `cs+` stands still. Source: Gaucher, Dieuleveut, Hendrikx, arXiv:2410.10418.

    Args:
        alpha: α; None: 1/μ_max of the honest graph with unit weights, 1 with Metropolis weights.

    Examples:
        >>> import torch
        >>> from byzopt import Cohort
        >>> from byzopt.graphs import Complete, Network
        >>> from byzopt.mixers import GTS, Hearing
        >>> rows = torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
        >>> network = Network.of(Complete(), Cohort.of(5, byzantine=1))
        >>> lie = torch.tensor([[1e6]], dtype=torch.float64)
        >>> GTS(alpha=0.25).mix(Hearing(network, 1, rows, lie))[0].item()  # (1 + 2 + 3) / 4
        1.5
    """

    rho: ClassVar[float | None] = 4.0
    by_receiver: ClassVar[bool] = True

    def scales(self, distances: Tensor, weights: Tensor, b: Tensor) -> Tensor:
        return kept(distances, weights, b)


@MIXERS.register("nna")
@dataclass(frozen=True)
class NNA(ScaledMixer):
    """Each node takes the mean of its own row and of all but the b farthest of its neighbours'.

    The mixing of MoNNA, which its paper runs on a complete graph behind local momentum (method
    `robust_sgdm`). `drop="2b"` leaves out the 2b farthest, for nodes that stop waiting at the b slowest and
    then trust b fewer. On a complete graph with n > 9 f it contracts (as `gts` with α = 1/(n - f)).
    Source: Farhadkhani et al., arXiv:2209.10931, nearest-neighbour averaging.

    Args:
        alpha: How far towards that mean; None: all the way.
        drop: How many are left out: "b" or "2b".

    Examples:
        >>> import torch
        >>> from byzopt import Cohort
        >>> from byzopt.graphs import Complete, Network
        >>> from byzopt.mixers import NNA, Hearing
        >>> rows = torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
        >>> network = Network.of(Complete(), Cohort.of(5, byzantine=1))
        >>> lie = torch.tensor([[1e6]], dtype=torch.float64)
        >>> NNA().mix(Hearing(network, 1, rows, lie))[0].item()  # (0 + 1 + 2 + 3) / 4
        1.5
    """

    by_receiver: ClassVar[bool] = True

    drop: Literal["b", "2b"] = "b"

    def scales(self, distances: Tensor, weights: Tensor, b: Tensor) -> Tensor:
        return kept(distances, weights, b if self.drop == "b" else (2 * b).minimum(weights.sum(dim=-1)))

    def moves(self, hearing: Hearing, weights: Tensor, distances: Tensor) -> Tensor:
        stay = self.scales(distances, weights, hearing.tolerance)
        # One's own row weighs as much as an edge does.
        return (self.alpha or 1.0) * stay / (stay.sum(dim=-1, keepdim=True) + _own(weights))


def _own(weights: Tensor) -> Tensor:
    """The weight of a node's own row: 1 less those of its edges where these are shares, else 1."""
    total = weights.sum(dim=-1, keepdim=True)
    return (1 - total).where(total < 1, 1.0)
