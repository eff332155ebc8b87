"""Free riders: workers who compute nothing, and hide it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Knowledge, Remembering, View
from byzopt.cohort import Cohort
from byzopt.errors import require


class FreeRiderState(NamedTuple):
    """The point at which workers were asked the last time, `[d]`, and how many rounds there were."""

    last: Tensor
    k: int


@ATTACKS.register("free_rider")
@dataclass(frozen=True)
class FreeRider(Remembering):
    """`scale` (x_{t-1} - x_t) + `noise` t^-`decay` N(0, I): the server's last step, handed back, and noise.

    Such a worker has no data and wants the model; its row only slows the others down. `scale` should be one
    over the server's step, so that the row is as long as an aggregate; in the first round, in which nothing
    has moved yet, it is noise alone. Noise is drawn anew for every liar. `scale` 0 is the disguised free
    rider of Fraboni et al., `scale` 0 and `noise` 0 the plain one, `noise` 0 the delta weights of Lin et al.,
    and `decay` 0 their advanced ones.

    Source: Lin, Du, Liu, arXiv:1911.12560, with noise of 10⁻³; Fraboni, Vidal, Lorenzi, AISTATS 2021
    (arXiv:2006.11901), noise σ t^-γ. Both known from abstracts and code (the latter's authors', and public
    implementations of the former), on models instead of gradients: `noise` is in the units of rows here.

    Args:
        scale: Factor of the server's last step, at least 0.
        noise: Standard deviation of each entry's noise in round 1, at least 0.
        decay: Power of 1/t with which noise goes down, at least 0.

    Examples:
        >>> import torch
        >>> from byzopt import FreeRider
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        >>> FreeRider(noise=0.0)(rows, byzantine=1)[2]  # nothing has moved yet
        tensor([0., 0.])
    """

    scale: float = 10.0
    noise: float = 1e-3
    decay: float = 1.0
    knows: ClassVar[frozenset[Knowledge]] = frozenset()
    indexed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("scale", "noise", "decay"):
            value = getattr(self, name)
            require(value >= 0, f"Parameter `{name}` of free_rider", "be at least 0", value)

    def start(self, cohort: Cohort, x: Tensor) -> FreeRiderState:
        return FreeRiderState(x, 0)

    def step(
        self, state: FreeRiderState, view: View, generator: torch.Generator
    ) -> tuple[Tensor, FreeRiderState]:
        k = state.k + 1
        drawn = view.like.normal_(generator=generator) * (self.noise * float(k) ** -self.decay)
        moved = (state.last - view.x).to(drawn)
        return self.scale * moved + drawn, FreeRiderState(view.x, k)
