"""Descent with noise of its own, to leave saddle points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.rng import stream
from byzopt.schedules import Constant, Schedule
from byzopt.servers.base import STEPS, ServerContext, Step
from byzopt.servers.descent import check_rate


class ShakenState(NamedTuple):
    """Iterate `x` `[d]` and the number `k` of finished rounds."""

    x: Tensor
    k: int


@STEPS.register("shaken")
@dataclass(frozen=True)
class Shaken(Step):
    """x <- x - γ_k (ξ + g), ξ ~ N(0, ν² I) from a stream of `seed` and the round; γ_k = lr * schedule.

    Source: arXiv:2012.14368, Algorithm 1: ξ inside the factor, as in the box; the text has it outside.

    Args:
        lr: Scale of the steps, > 0.
        nu: Standard deviation ν of the noise in each coordinate, >= 0.
        schedule: Factors of `lr` by round.
        seed: Of the noise.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import ServerContext, Shaken
        >>> step = Shaken(lr=0.5, nu=0.0)
        >>> state = step.init(torch.zeros(1), ServerContext(Layout.flat(1)))
        >>> step.ask(step.tell(state, torch.ones(1)))
        tensor([-0.5000])
    """

    lr: float
    nu: float = 0.0
    schedule: Schedule = Constant()
    seed: int = 0
    batched = True
    scales = True

    def __post_init__(self) -> None:
        check_rate(self.lr)
        require(self.nu >= 0, "Parameter `nu`", "be at least 0", self.nu)

    def init(self, x0: Tensor, site: ServerContext) -> ShakenState:
        return ShakenState(x0, 0)

    def ask(self, state: ShakenState) -> Tensor:
        return state.x

    def tell(self, state: ShakenState, g: Tensor) -> ShakenState:
        k = state.k + 1
        if self.nu:
            drawn = torch.randn(
                g.shape[-1], dtype=torch.float64, generator=stream(self.seed, "shaken", k), device="cpu"
            )
            g = g + (self.nu * drawn).to(g.device, g.dtype)
        return ShakenState(torch.add(state.x, g, alpha=-self.lr * self.schedule.gamma(k)), k)
