"""Zeno++: a row is believed if a trusted gradient says that it descends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.intakes.base import INTAKES, NOTHING, Arrival, AtServer, Intake, Taken, check_above
from byzopt.linalg import norm


class ZenoState(NamedTuple):
    """The server's own gradient v `[d]`, after how many steps it was taken (-1: not yet), and how many rows
    were refused."""

    v: Tensor
    taken_at: int
    refused: int


@INTAKES.register("zeno++")
@dataclass(frozen=True)
class ZenoPlusPlus(Intake):
    """A step along u = r ‖v‖/‖r‖ if ⟨v, u⟩ - ρ ‖u‖² >= -ε, v a gradient of the loss that the server owns.

    As ‖u‖ = ‖v‖ a row passes whose cosine with v is at least ρ - ε/‖v‖²: directions alone are judged, any
    number of liars may be there, and no step is longer than ‖v‖. v is taken anew after `refresh` steps. The
    task has to own a loss (`task.proxy`), and where that differs from the workers', so do directions. Our ρ
    is the paper's ρ/γ. Source: Xie, Koyejo, Gupta, ICML 2020 (arXiv:1903.07020), from notes; a
    reconstruction.

    Args:
        rho: ρ > 0.
        eps: ε >= 0.
        refresh: Server steps after which v is taken anew, at least 1.

    Examples:
        >>> import torch
        >>> from byzopt.intakes import Arrival, AtServer, ZenoPlusPlus
        >>> intake, x = ZenoPlusPlus(), torch.tensor([2.0])
        >>> state, at = intake.start(x, 3, 1), AtServer(0, x, n=3, f=1, proxy=lambda x: (x**2).sum() / 2)
        >>> for value in (-9.0, 9.0):
        ...     taken, state = intake.take(state, Arrival(torch.tensor([value]), 0, 0, x), at)
        ...     print(taken.rows)
        None
        tensor([[2.]])
    """

    rho: float = 0.1
    eps: float = 0.0
    refresh: int = 1
    uses_rule: ClassVar[bool] = False
    needs_proxy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_above(self, 0, rho=self.rho, refresh=self.refresh)
        require(self.eps >= 0, "Parameter `eps` of intake zeno++", "be at least 0", self.eps)

    def start(self, x0: Tensor, n: int, f: int) -> ZenoState:
        return ZenoState(torch.zeros_like(x0), -1, 0)

    def take(self, state: ZenoState, arrival: Arrival, at: AtServer) -> tuple[Taken, ZenoState]:
        if state.taken_at < 0 or at.t - state.taken_at >= self.refresh:
            proxy = cast("Callable[[Tensor], Tensor]", at.proxy)  # looked for before the run
            state = ZenoState(_gradient(proxy, at.x), at.t, state.refused)
        length = norm(arrival.row)
        if not arrival.sound or not 0 < float(length) < float("inf"):
            return NOTHING, state._replace(refused=state.refused + 1)
        u = arrival.row * (norm(state.v) / length)
        if not float(state.v @ u - self.rho * (u @ u)) >= -self.eps:
            return NOTHING, state._replace(refused=state.refused + 1)
        return Taken(u.unsqueeze(0)), state

    def report(self, state: ZenoState) -> dict[str, float]:
        """`refused_rows`: rows so far that were left out."""
        return {"refused_rows": float(state.refused)}


def _gradient(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(point), point)
    return gradient.detach()
