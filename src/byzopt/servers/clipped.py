"""Clipping of the aggregate in front of a server's step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor

from byzopt.errors import require
from byzopt.fields import check_kind
from byzopt.linalg import clip
from byzopt.servers.adaptive import ServerAdam
from byzopt.servers.base import STEPS, ServerContext, Step
from byzopt.servers.descent import check_rate


@STEPS.register("clipped")
@dataclass(frozen=True)
class Clipped(Step):
    """g <- min(1, λ/‖g‖) g, then what `step` does: no aggregate counts with more than the length λ.

    In front of adaptive steps it bounds what an attack that passes the rule may leave in their v. `lr` takes
    the place of the lr of `step`.

    Args:
        lr: Scale of the steps, > 0.
        step: What is done with the clipped aggregate.
        radius: λ > 0, in the units of the aggregate.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import Clipped, Descent, ServerContext
        >>> step = Clipped(lr=1.0, step=Descent(1.0), radius=5.0)
        >>> state = step.init(torch.zeros(2), ServerContext(Layout.flat(2)))
        >>> step.ask(step.tell(state, torch.tensor([30.0, 40.0])))  # of length 5
        tensor([-3., -4.])
    """

    lr: float = 0.1
    step: Step = ServerAdam()
    radius: float = 1.0

    def __post_init__(self) -> None:
        check_rate(self.lr)
        check_kind("Parameter `radius` of clipped", self.radius, float)
        require(self.radius > 0, "Parameter `radius` of clipped", "be finite and positive", self.radius)
        what, remedy = "The step behind `clipped`", "Take one whose lr is a scale."
        require(hasattr(self.step, "lr"), what, "have a scale `lr`", self.step, remedy)
        object.__setattr__(self, "step", replace(cast("Any", self.step), lr=self.lr))

    @property
    def batched(self) -> bool:
        return self.step.batched

    @property
    def scales(self) -> bool:
        return self.step.scales

    @property
    def needs_proxy(self) -> bool:
        return self.step.needs_proxy

    def init(self, x0: Tensor, site: ServerContext) -> Any:
        return self.step.init(x0, site)

    def ask(self, state: Any) -> Tensor:
        return self.step.ask(state)

    def tell(self, state: Any, g: Tensor) -> Any:
        return self.step.tell(state, clip(g, self.radius))

    def answer(self, state: Any) -> Tensor:
        return self.step.answer(state)

    def report(self, state: Any) -> dict[str, float]:
        return self.step.report(state)
