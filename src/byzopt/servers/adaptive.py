"""Server steps with a scale for each coordinate: the adaptive federated optimisers (FedOpt)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.servers.base import STEPS, ServerContext, Step
from byzopt.servers.descent import check_rate


class AdaptiveState(NamedTuple):
    """Iterate `x`, first moment `m` and second moment `v` `[d]`, and the number `k` of finished rounds."""

    x: Tensor
    m: Tensor
    v: Tensor
    k: int


@dataclass(frozen=True)
class AdaptiveStep(Step):
    """m <- β1 m + (1 - β1) g, v by the optimiser, x <- x - lr c_k m / (√v + τ), with m = v = 0 at first.

    `tau` keeps coordinates that have hardly moved from being blown up: it is in the units of g. The aggregate
    g is what passed the rule; a faulty worker reaches m and v only through it.
    Source: Reddi et al., arXiv:2003.00295, Algorithm 2. Where we differ: v starts at 0, as in Flower, and not
    at τ² or more.
    """

    lr: float = 0.1
    beta_1: float = 0.9
    tau: float = 1e-3
    batched = True

    def __post_init__(self) -> None:
        check_rate(self.lr)
        what = f"of {self.name}"
        require(0 <= self.beta_1 < 1, f"Parameter `beta_1` {what}", "lie in [0, 1)", self.beta_1)
        require(0 < self.tau < float("inf"), f"Parameter `tau` {what}", "be finite and positive", self.tau)

    def init(self, x0: Tensor, site: ServerContext) -> AdaptiveState:
        return AdaptiveState(x0, torch.zeros_like(x0), torch.zeros_like(x0), 0)

    def ask(self, state: AdaptiveState) -> Tensor:
        return state.x

    def tell(self, state: AdaptiveState, g: Tensor) -> AdaptiveState:
        k = state.k + 1
        m = (state.m * self.beta_1).add_(g, alpha=1 - self.beta_1)
        v = self.second_moment(state.v, g.square())
        x = torch.addcdiv(state.x, m, v.sqrt() + self.tau, value=-self.lr * self.correction(k))
        return AdaptiveState(x, m, v, k)

    @abstractmethod
    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        """The next v `[d]` from the last one and g²."""

    def correction(self, k: int) -> float:
        """The factor c_k of round k. Default: 1."""
        return 1.0


def _check_beta_2(step: ServerAdam | ServerYogi) -> None:
    require(0 <= step.beta_2 < 1, f"Parameter `beta_2` of {step.name}", "lie in [0, 1)", step.beta_2)


@STEPS.register("server_adagrad")
@dataclass(frozen=True)
class ServerAdagrad(AdaptiveStep):
    """FedAdagrad: v <- v + g². See `AdaptiveStep` for the rest. `beta_1` is 0, as in Flower's FedAdagrad.

    Args:
        lr: Scale of the steps, > 0.
        beta_1: β1 of the first moment, in [0, 1).
        tau: τ > 0, in the units of the aggregate.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import ServerAdagrad, ServerContext
        >>> step = ServerAdagrad(lr=1.0)
        >>> state = step.init(torch.zeros(2), ServerContext(Layout.flat(2)))
        >>> step.ask(step.tell(state, torch.tensor([2.0, -50.0]))).round(decimals=2)
        tensor([-1.,  1.])
    """

    beta_1: float = 0.0

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        return v + square


@STEPS.register("server_adam")
@dataclass(frozen=True)
class ServerAdam(AdaptiveStep):
    """FedAdam: v <- β2 v + (1 - β2) g². See `AdaptiveStep` for the rest.

    Steps of round k are scaled by c_k = √(1 - β2^(k+1)) / (1 - β1^(k+1)), as in Flower's FedAdam; the paper's
    FedAdam has c_k = 1 (`corrected=False`), and Adam itself has k in the place of k + 1.

    Args:
        lr: Scale of the steps, > 0.
        beta_1: β1 of the first moment, in [0, 1).
        tau: τ > 0, in the units of the aggregate.
        beta_2: β2 of the second moment, in [0, 1).
        corrected: Whether steps are scaled by c_k, as in Flower.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import ServerAdam, ServerContext
        >>> step = ServerAdam(lr=1.0, beta_1=0.0, beta_2=0.0, corrected=False)
        >>> state = step.init(torch.zeros(2), ServerContext(Layout.flat(2)))
        >>> step.ask(step.tell(state, torch.tensor([2.0, -50.0]))).round(decimals=2)
        tensor([-1.,  1.])
    """

    beta_2: float = 0.99
    corrected: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_beta_2(self)

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        return (v * self.beta_2).add_(square, alpha=1 - self.beta_2)

    def correction(self, k: int) -> float:
        return sqrt(1 - self.beta_2 ** (k + 1)) / (1 - self.beta_1 ** (k + 1)) if self.corrected else 1.0


@STEPS.register("server_yogi")
@dataclass(frozen=True)
class ServerYogi(AdaptiveStep):
    """FedYogi: v <- v - (1 - β2) g² sign(v - g²). See `AdaptiveStep` for the rest.

    Args:
        lr: Scale of the steps, > 0.
        beta_1: β1 of the first moment, in [0, 1).
        tau: τ > 0, in the units of the aggregate.
        beta_2: β2 of the second moment, in [0, 1).

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import ServerContext, ServerYogi
        >>> step = ServerYogi(lr=1.0, beta_1=0.0, beta_2=0.0)
        >>> state = step.init(torch.zeros(2), ServerContext(Layout.flat(2)))
        >>> step.ask(step.tell(state, torch.tensor([2.0, -50.0]))).round(decimals=2)
        tensor([-1.,  1.])
    """

    lr: float = 0.01
    beta_2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_beta_2(self)

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        return v - (1 - self.beta_2) * square * (v - square).sign()
