"""Momentum at the server: an average of aggregates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.schedules import Constant, Schedule
from byzopt.servers.base import STEPS, ServerContext, Step
from byzopt.servers.descent import check_rate
from byzopt.workers.momentum import Form, moving_average


class ServerMomentumState(NamedTuple):
    """Iterate `x`, start `x0` and average `u` `[d]`, and the number `k` of finished rounds."""

    x: Tensor
    x0: Tensor
    u: Tensor
    k: int


@STEPS.register("server_momentum")
@dataclass(frozen=True)
class ServerMomentum(Step):
    """u <- (1 - η) u + η g from u = 0, x <- x - γ_k u; `form="heavy_ball"` is u <- (1 - η) u + g.

    Args:
        lr: Scale of the steps, > 0.
        schedule: Factors of `lr` by round.
        eta: Weight of the new aggregate, in (0, 1].
        form: Convention of the momentum: "average" or "heavy_ball".

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import ServerMomentum, ServerContext
        >>> step = ServerMomentum(lr=1.0, eta=0.5)
        >>> state = step.init(torch.zeros(1), ServerContext(Layout.flat(1)))
        >>> step.ask(step.tell(state, torch.ones(1)))
        tensor([-0.5000])
    """

    lr: float = 0.1
    schedule: Schedule = Constant()
    eta: float = 0.1
    form: Form = "average"
    batched = True
    scales = True

    def __post_init__(self) -> None:
        check_rate(self.lr)
        require(0 < self.eta <= 1, "Parameter `eta` of server_momentum", "lie in (0, 1]", self.eta)

    def init(self, x0: Tensor, site: ServerContext) -> ServerMomentumState:
        return ServerMomentumState(x0, x0, torch.zeros_like(x0), 0)

    def ask(self, state: ServerMomentumState) -> Tensor:
        return state.x0 if self.schedule.returns(state.k + 1) else state.x

    def tell(self, state: ServerMomentumState, g: Tensor) -> ServerMomentumState:
        k = state.k + 1
        old = torch.zeros_like(g) if self.schedule.fresh(k) else state.u
        u = moving_average(old, g, self.schedule.eta(k, self.eta), self.form)
        x = torch.add(self.ask(state), u, alpha=-self.lr * self.schedule.gamma(k))
        return ServerMomentumState(x, state.x0, u, k)

    def answer(self, state: ServerMomentumState) -> Tensor:
        return state.x
