"""Steps without extrapolation: along the aggregate, or along its direction in a norm, by a linear
minimisation oracle (LMO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.errors import require
from byzopt.fields import check_kind
from byzopt.layout import Layout
from byzopt.schedules import Constant, Schedule
from byzopt.servers.base import STEPS, ServerContext, Step
from byzopt.servers.norms import Euclidean, Norm
from byzopt.workers.momentum import Form, moving_average


class DescentState(NamedTuple):
    """Iterate `x` and start `x0` `[d]`, and the number `k` of finished rounds."""

    x: Tensor
    x0: Tensor
    k: int


class LMOState(NamedTuple):
    """As `DescentState`, with the last direction `u` `[d]`, the count of zero aggregates, the layout."""

    x: Tensor
    x0: Tensor
    k: int
    u: Tensor
    stalls: Tensor
    layout: Layout


def check_rate(lr: float, what: str = "The step scale `lr`") -> None:
    """Raise `InvalidInput` unless the step scale is a finite positive number."""
    check_kind(what, lr, float)
    require(lr > 0, what, "be finite and positive", lr)


@STEPS.register("descent")
@dataclass(frozen=True)
class Descent(Step):
    """x <- x - γ_k g with γ_k = lr * schedule: plain (robust) gradient descent.

    Args:
        lr: Scale of the steps, > 0.
        schedule: Factors of `lr` by round.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import Descent, ServerContext
        >>> step = Descent(lr=0.1)
        >>> state = step.init(torch.zeros(2), ServerContext(Layout.flat(2)))
        >>> step.ask(step.tell(state, torch.ones(2)))
        tensor([-0.1000, -0.1000])
    """

    lr: float
    schedule: Schedule = Constant()
    batched = True
    scales = True

    def __post_init__(self) -> None:
        check_rate(self.lr)

    def init(self, x0: Tensor, site: ServerContext) -> DescentState:
        return DescentState(x0, x0, 0)

    def ask(self, state: DescentState) -> Tensor:
        return state.x0 if self.schedule.returns(state.k + 1) else state.x

    def tell(self, state: DescentState, g: Tensor) -> DescentState:
        k = state.k + 1
        x = torch.add(self.ask(state), g, alpha=-self.lr * self.schedule.gamma(k))
        return DescentState(x, state.x0, k)

    def answer(self, state: DescentState) -> Tensor:
        return state.x


@STEPS.register("lmo")
@dataclass(frozen=True)
class LMOStep(Step):
    """x <- x - γ_k u, u = direction(g): a step of fixed length γ_k in a norm.

    With the Euclidean norm this is the normalised step of arXiv:2603.12512, Algorithm 1; other norms are its
    Remark 1. Nothing is added to ‖g‖. An aggregate no longer than `cutoff` has direction 0 and is counted as
    a stall. With `eta` the server averages directions, u <- (1 - η) u + η direction(g), or as a heavy ball
    (`form`, the released quartic code of that paper): another algorithm, whose steps vary in length.

    Args:
        lr: Scale of the steps, > 0.
        schedule: Factors of `lr` by round.
        norm: In which a step has length γ_k.
        cutoff: Length of an aggregate up to which no step is taken.
        eta: Weight of the new direction where the server averages them; None: it does not.
        form: Convention of that average: "average" or "heavy_ball".

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import LMOStep, ServerContext
        >>> step = LMOStep(lr=1.0)
        >>> state = step.init(torch.zeros(2), ServerContext(Layout.flat(2)))
        >>> step.ask(step.tell(state, torch.tensor([30.0, 40.0])))  # of length one, whatever the aggregate's
        tensor([-0.6000, -0.8000])
    """

    lr: float
    schedule: Schedule = Constant()
    norm: Norm = Euclidean()
    cutoff: float = 0.0
    eta: float | None = None
    form: Form = "average"
    batched = True
    scales = True

    def __post_init__(self) -> None:
        check_rate(self.lr)
        require(self.cutoff >= 0, "Parameter `cutoff`", "be at least 0", self.cutoff)
        require(self.eta is None or 0 < self.eta <= 1, "Parameter `eta` of lmo", "lie in (0, 1]", self.eta)

    def init(self, x0: Tensor, site: ServerContext) -> LMOState:
        stalls = torch.zeros((), dtype=torch.int64, device=x0.device)
        return LMOState(x0, x0, 0, torch.zeros_like(x0), stalls, site.layout)

    def ask(self, state: LMOState) -> Tensor:
        return state.x0 if self.schedule.returns(state.k + 1) else state.x

    def tell(self, state: LMOState, g: Tensor) -> LMOState:
        k = state.k + 1
        # `any` and not a norm: squares of a float64 g may vanish where g does not.
        dead = linalg.norm(g) <= self.cutoff if self.cutoff else ~g.any(dim=-1)
        u = torch.where(dead.unsqueeze(-1), 0.0, self.norm.direction(g, state.layout))
        if self.eta is not None:
            old = torch.zeros_like(u) if self.schedule.fresh(k) else state.u
            u = moving_average(old, u, self.schedule.eta(k, self.eta), self.form)
        x = torch.add(self.ask(state), u, alpha=-self.lr * self.schedule.gamma(k))
        return LMOState(x, state.x0, k, u, state.stalls + dead, state.layout)

    def answer(self, state: LMOState) -> Tensor:
        return state.x

    def report(self, state: LMOState) -> dict[str, float]:
        """`stalls`: rounds so far whose aggregate was zero (or no longer than `cutoff`)."""
        return {"stalls": float(state.stalls)}
