"""Double momentum: an average of an average, of gradients or of STORM's corrected ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from byzopt.errors import require
from byzopt.workers.base import ESTIMATORS, Estimator, Need, Oracle
from byzopt.workers.momentum import Start, moving_average


class DoubleState(NamedTuple):
    """The first and the second average, `[n, d]`."""

    v: Tensor
    u: Tensor


class StormState(NamedTuple):
    """The corrected average and the average of it, `[n, d]`; the point of the round before, `[d]`."""

    v: Tensor
    u: Tensor
    x: Tensor


def initial_averages(s: Tensor, eta_v: float, eta_u: float, start: Start) -> DoubleState:
    """Both averages after the first gradient: s itself, or as if both had been 0 before."""
    return DoubleState(s, s) if start == "first_gradient" else DoubleState(eta_v * s, eta_u * eta_v * s)


def check_weights(eta_v: float, eta_u: float) -> None:
    """Raise `InvalidInput` unless both weights lie in (0, 1]."""
    require(0 < eta_v <= 1, "Parameter `eta_v`", "lie in (0, 1]", eta_v)
    require(0 < eta_u <= 1, "Parameter `eta_u`", "lie in (0, 1]", eta_u)


@ESTIMATORS.register("double_momentum")
@dataclass(frozen=True)
class DoubleMomentum(Estimator):
    """v <- (1 - η_v) v + η_v s,  u <- (1 - η_u) u + η_u v with the new v; u is sent. One gradient a round.

    Both η are weights of the new. `start`: `"first_gradient"` v = u = s; `"zero"` v = η_v s, u = η_u η_v s.
    Source: EF21-SGD2M, arXiv:2305.15155; Byz-DM21, arXiv:2603.15144.

    Args:
        eta_v: Weight of the new in the first average, in (0, 1].
        eta_u: Weight of the new in the second average, in (0, 1].
        start: How both begin: "first_gradient" or "zero".

    Examples:
        >>> import torch
        >>> from byzopt.workers import DoubleMomentum, Oracle
        >>> oracle = Oracle(1, grads=lambda x: x.expand(3, -1), full=None)
        >>> estimator = DoubleMomentum(eta_v=0.5, eta_u=0.5)
        >>> rows, state = estimator.init(torch.zeros(1), oracle)
        >>> rows, state = estimator.step(state, torch.ones(1), oracle)
        >>> rows[0]  # v = 0.5, u = 0.25
        tensor([0.2500])
    """

    eta_v: float = 0.1
    eta_u: float = 0.1
    start: Start = "first_gradient"
    batched = True

    def __post_init__(self) -> None:
        check_weights(self.eta_v, self.eta_u)

    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, DoubleState]:
        state = initial_averages(oracle(x), self.eta_v, self.eta_u, self.start)
        return state.u, state

    def step(self, state: DoubleState, x: Tensor, oracle: Oracle) -> tuple[Tensor, DoubleState]:
        v = moving_average(state.v, oracle(x), self.eta_v, "average")
        u = moving_average(state.u, v, self.eta_u, "average")
        return u, DoubleState(v, u)


@ESTIMATORS.register("storm")
@dataclass(frozen=True)
class Storm(Estimator):
    """v <- s + (1 - η_v)(v - s'), s and s' on the same sample at the new and the old point; then u of v.

    u <- (1 - η_u) u + η_u v is sent; η_u = 1 sends v, which is STORM itself (MVR). Two gradients a round.
    The old point is the one of the last broadcast. `start` as in `double_momentum`. Source: STORM,
    arXiv:1905.10018; Byz-VR-DM21, arXiv:2603.15144, whose released code writes it as
    m v + (1 - m) s + m (s - s') with m = 1 - η_v.

    Args:
        eta_v: Weight of the new in the corrected average, in (0, 1].
        eta_u: Weight of the new in the second average, in (0, 1]; 1 sends the first.
        start: How both begin: "first_gradient" or "zero".

    Examples:
        >>> import torch
        >>> from byzopt.workers import Oracle, Storm
        >>> oracle = Oracle(1, grads=lambda x: x.expand(3, -1), full=None)
        >>> rows, state = Storm(eta_v=0.1).init(torch.zeros(1), oracle)
        >>> rows, state = Storm(eta_v=0.1).step(state, torch.ones(1), oracle)
        >>> rows[0]  # without noise, the gradient itself
        tensor([1.])
    """

    eta_v: float = 0.1
    eta_u: float = 1.0
    start: Start = "first_gradient"
    needs: ClassVar[frozenset[Need]] = frozenset({"replay"})
    batched = True

    def __post_init__(self) -> None:
        check_weights(self.eta_v, self.eta_u)

    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, StormState]:
        v, u = initial_averages(oracle(x), self.eta_v, self.eta_u, self.start)
        return u, StormState(v, u, x)

    def step(self, state: StormState, x: Tensor, oracle: Oracle) -> tuple[Tensor, StormState]:
        v = oracle(x).add(state.v - oracle(state.x), alpha=1 - self.eta_v)
        u = v if self.eta_u == 1 else moving_average(state.u, v, self.eta_u, "average")
        return u, StormState(v, u, x)
