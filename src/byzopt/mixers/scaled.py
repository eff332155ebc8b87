"""Mixers that weigh differences: x_i <- x_i + α Σ_j s_ij (y_ij - x_i), all nodes by two matrix products."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.graphs import Network
from byzopt.linalg import product
from byzopt.mixers.base import MIXERS, Hearing, Mixer
from byzopt.mixers.distances import measure
from byzopt.mixers.edgewise import Edgewise


@dataclass(frozen=True)
class ScaledMixer(Mixer):
    """x_i <- x_i + α F(y_ij - x_i), F a sum of differences each of which is scaled down.

    The F-RG family (Gaucher, Dieuleveut, Hendrikx, arXiv:2410.10418). A subclass writes `scales`. If that
    looks at each row of the matrices by itself, whichever column is whose, it says so, `by_receiver`: long
    rows are then taken along the edges alone, and matrices have as many columns as a node hears at most.

    Args:
        alpha: α; None: 1/μ_max of the honest graph with unit weights, 1 with Metropolis weights.
    """

    by_receiver: ClassVar[bool] = False

    alpha: float | None = None

    def __post_init__(self) -> None:
        good = self.alpha is None or self.alpha > 0
        require(good, f"Parameter `alpha` of {self.name}", "be positive", self.alpha)

    @abstractmethod
    def scales(self, distances: Tensor, weights: Tensor, b: Tensor) -> Tensor:
        """s_ij `[..., H, H + B]` from distances and weights of that shape, 0 where nothing is heard, and the
        weight b `[..., H]` that each node tolerates."""

    def step(self, network: Network) -> float:
        """α, of the recipe or of the network."""
        if self.alpha is not None:
            return self.alpha
        return 1 / max(network.largest, 1.0) if network.weighting == "unit" else 1.0

    def moves(self, hearing: Hearing, weights: Tensor, distances: Tensor) -> Tensor:
        """α s_ij `[..., H, H + B]`."""
        return self.step(hearing.network) * self.scales(distances, weights, hearing.tolerance)

    def mix(self, hearing: Hearing) -> Tensor:
        if self.by_receiver and Edgewise.serves(hearing):
            edges = Edgewise.of(hearing)
            return edges.moved(self.moves(edges.hearing, edges.weights, edges.lengths))
        _ = hearing.missing  # refused before any work where a node hears too little
        weights = torch.where(hearing.heard, hearing.edges, 0.0)
        found, (h, _) = measure(hearing), hearing.sizes
        moves = self.moves(hearing, weights, found.distances).to(found.rows.dtype)
        move = product(moves[..., :h], found.rows) - moves.sum(dim=-1, keepdim=True) * found.rows
        if hearing.per_receiver:
            pushes = moves[..., h:]
            if found.lies.shape[-3] < pushes.shape[-1]:  # all liars tell a receiver the same
                pushes = pushes.sum(dim=-1, keepdim=True)
            for k in range(pushes.shape[-1]):
                move += pushes[..., k].unsqueeze(-1) * found.lies[..., k, :, :]
        else:
            move += product(moves[..., h:], found.lies)
        return hearing.rows + move.to(hearing.rows.dtype)


@MIXERS.register("gossip")
@dataclass(frozen=True)
class Gossip(ScaledMixer):
    """x_i <- x_i + α Σ_j w_ij (y_ij - x_i): plain gossip, which one liar moves wherever it wants.

    With Metropolis weights and α = 1 that is X <- W X.

    Examples:
        >>> import torch
        >>> from byzopt import Cohort
        >>> from byzopt.graphs import Complete, Network
        >>> from byzopt.mixers import Gossip, Hearing
        >>> rows = torch.tensor([[0.0], [3.0], [6.0]], dtype=torch.float64)
        >>> network = Network.of(Complete(), Cohort.of(3))
        >>> Gossip().mix(Hearing(network, 0, rows, rows.new_zeros(0, 1))).tolist()
        [[3.0], [3.0], [3.0]]
    """

    by_receiver: ClassVar[bool] = True

    def scales(self, distances: Tensor, weights: Tensor, b: Tensor) -> Tensor:
        return weights


def kept(distances: Tensor, weights: Tensor, dropped: Tensor) -> Tensor:
    """Weights `[..., H, M]` of what is left after the longest differences of weight `dropped` `[..., H]` are
    gone; the one at the border keeps the rest of its weight. Ties: the lower column stays."""
    order = distances.argsort(dim=-1, stable=True)
    sizes = weights.gather(-1, order)
    before = sizes.cumsum(dim=-1) - sizes
    room = (weights.sum(dim=-1) - dropped).unsqueeze(-1)
    stay = torch.minimum(sizes, (room - before).clamp(min=0))
    # What is left of a weight after sums of others is no weight.
    stay = torch.where(stay <= 1e-9 * sizes, 0.0, stay)
    return torch.zeros_like(weights).scatter(-1, order, stay)
