"""Mixers that shorten long differences: CS+, and ClippedGossip with an adaptive, known or fixed radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.mixers.base import MIXERS
from byzopt.mixers.scaled import ScaledMixer, kept


@MIXERS.register("cs+")
@dataclass(frozen=True)
class CSPlus(ScaledMixer):
    """The differences of the 2b longest are shortened to the next shorter one: ρ = 2.

    A node with at most 2b neighbours never moves. With Metropolis weights 2b is twice the weight of the b
    heaviest edges. Near-optimal: in general nothing survives b >= μ₂/2, and this contracts for b < μ₂/4.
    Source: Gaucher, Dieuleveut, Hendrikx, arXiv:2410.10418, CS+.

    Args:
        alpha: α; None: 1/μ_max of the honest graph with unit weights, 1 with Metropolis weights.

    Examples:
        >>> import torch
        >>> from byzopt import Cohort
        >>> from byzopt.graphs import Complete, Network
        >>> from byzopt.mixers import CSPlus, Hearing
        >>> rows = torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
        >>> network = Network.of(Complete(), Cohort.of(5, byzantine=1))
        >>> lie = torch.tensor([[1e6]], dtype=torch.float64)
        >>> CSPlus(alpha=0.25).mix(Hearing(network, 1, rows, lie))[0].item()  # (1 + 2 + 2 + 2) / 4
        1.75
    """

    rho: ClassVar[float | None] = 2.0
    by_receiver: ClassVar[bool] = True

    def scales(self, distances: Tensor, weights: Tensor, b: Tensor) -> Tensor:
        order = distances.argsort(dim=-1, stable=True)
        so_far = weights.gather(-1, order).cumsum(dim=-1)
        total = weights.sum(dim=-1, keepdim=True)
        fits = so_far <= total - 2 * b.unsqueeze(-1) + 1e-9 * total
        longest = torch.where(fits, distances.gather(-1, order), 0.0).amax(dim=-1)
        return weights * shortened(distances, longest)


@MIXERS.register("he")
@dataclass(frozen=True)
class ClippedGossip(ScaledMixer):
    """Differences are clipped to τ_i, τ_i² = (1/b) Σ w ‖y_ij - x_i‖² over all but the b longest: ρ = 25/16.

    The adaptive radius of ClippedGossip that needs nobody's knowledge (docs/graphs.md has the proof of ρ).
    Two things differ from releases: the released code of arXiv:2410.10418 leaves the neighbour at the border
    out of the sum, that of arXiv:2202.01545 takes the second largest distance.
    Source: He, Karimireddy, Jaggi, arXiv:2202.01545.

    Args:
        alpha: α; None: 1/μ_max of the honest graph with unit weights, 1 with Metropolis weights.

    Examples:
        >>> import torch
        >>> from byzopt import Cohort
        >>> from byzopt.graphs import Complete, Network
        >>> from byzopt.mixers import ClippedGossip, Hearing
        >>> rows = torch.tensor([[0.0], [3.0], [4.0]], dtype=torch.float64)
        >>> network = Network.of(Complete(), Cohort.of(4, byzantine=1))
        >>> lie = torch.tensor([[100.0]], dtype=torch.float64)
        >>> ClippedGossip(alpha=0.25).mix(Hearing(network, 1, rows, lie))[0].item()  # τ = 5: (3 + 4 + 5) / 4
        3.0
    """

    rho: ClassVar[float | None] = 25 / 16
    by_receiver: ClassVar[bool] = True

    def scales(self, distances: Tensor, weights: Tensor, b: Tensor) -> Tensor:
        stay = kept(distances, weights, b)
        return weights * shortened(distances, _radius(stay, distances, b))


@MIXERS.register("oracle")
@dataclass(frozen=True)
class ClippedOracle(ScaledMixer):
    """As `he`, with the radius over the truly honest neighbours, which nobody knows: ρ = 25/16.

    For comparison in simulations: the radius of the theorem of ClippedGossip.
    Source: He, Karimireddy, Jaggi, arXiv:2202.01545.

    Args:
        alpha: α; None: 1/μ_max of the honest graph with unit weights, 1 with Metropolis weights.

    Examples:
        >>> from byzopt.mixers import MIXERS
        >>> MIXERS.build("oracle").rho
        1.5625
    """

    rho: ClassVar[float | None] = 25 / 16

    def scales(self, distances: Tensor, weights: Tensor, b: Tensor) -> Tensor:
        honest = torch.arange(weights.shape[-1], device=weights.device) < weights.shape[-2]
        return weights * shortened(distances, _radius(torch.where(honest, weights, 0.0), distances, b))


@MIXERS.register("clipped")
@dataclass(frozen=True)
class FixedRadius(ScaledMixer):
    """Differences are clipped to one `radius` at all nodes: ClippedGossip as it is usually run.

    No theorem with a fixed radius is known to this library: a radius that does not shrink with the honest
    differences lets b liars move a node by α b radius in every round, for ever.
    Source: He, Karimireddy, Jaggi, arXiv:2202.01545.

    Args:
        alpha: α; None: 1/μ_max of the honest graph with unit weights, 1 with Metropolis weights.
        radius: τ, > 0.

    Examples:
        >>> import torch
        >>> from byzopt import Cohort
        >>> from byzopt.graphs import Complete, Network
        >>> from byzopt.mixers import FixedRadius, Hearing
        >>> rows = torch.tensor([[0.0], [4.0]], dtype=torch.float64)
        >>> network = Network.of(Complete(), Cohort.of(2))
        >>> FixedRadius(radius=1.0).mix(Hearing(network, 0, rows, rows.new_zeros(0, 1))).tolist()
        [[0.5], [3.5]]
    """

    by_receiver: ClassVar[bool] = True

    radius: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.radius > 0, "Parameter `radius` of clipped", "be positive", self.radius)

    def scales(self, distances: Tensor, weights: Tensor, b: Tensor) -> Tensor:
        return weights * shortened(distances, torch.full_like(distances[..., 0], self.radius))


def shortened(distances: Tensor, longest: Tensor) -> Tensor:
    """min(1, τ/‖z‖) `[..., H, M]` for radii τ `[..., H]`; 1 for a difference of length 0 or τ."""
    most = longest.unsqueeze(-1)
    return torch.where(distances <= most, 1.0, most / distances)


def _radius(weights: Tensor, distances: Tensor, b: Tensor) -> Tensor:
    """τ `[..., H]` with b τ² = Σ w ‖z‖²; infinite for b = 0."""
    squares = torch.where(weights > 0, weights * distances.square(), 0.0).sum(dim=-1)
    return torch.where(b > 0, (squares / b).sqrt(), torch.inf)
