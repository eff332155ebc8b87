"""Server steps with a scale for each coordinate: the adaptive federated optimisers (FedOpt)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from math import sqrt
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.servers.base import STEPS, ServerContext, Step
from byzopt.servers.descent import check_rate

Correction: TypeAlias = Literal["flower", "torch", "none"]


class AdaptiveState(NamedTuple):
    """Iterate `x`, first moment `m` and second moment `v` `[d]`, and the number `k` of finished rounds."""

    x: Tensor
    m: Tensor
    v: Tensor
    k: int


@dataclass(frozen=True)
class AdaptiveStep(Step):
    """m <- β1 m + (1 - β1) g, v by the optimiser, x <- x - lr c_k m / (√v + τ), with m = 0, v = v_0 at first.

    `tau` keeps coordinates that have hardly moved from being blown up: it is in the units of g. The aggregate
    g is what passed the rule; a faulty worker reaches m and v only through it. **v remembers attacks**: a few
    rounds of large aggregates shorten all later steps, for good with Adagrad and for about 1/(1 - β2) rounds
    with the others, and longest with Yogi, whose v falls slowly. No rule behind which v is safe is known to
    us; `clipped` bounds what a round may add. No theorem behind a robust rule is known to us either.
    Source: Reddi et al., arXiv:2003.00295, Algorithm 2. Where we differ: v starts at `v_0` = 0, as in Flower,
    and not at τ² or more.
    """

    lr: float = 0.1
    beta_1: float = 0.9
    tau: float = 1e-3
    v_0: float = field(default=0.0, kw_only=True)
    batched = True
    scales = True

    def __post_init__(self) -> None:
        check_rate(self.lr)
        what = f"of {self.name}"
        require(0 <= self.beta_1 < 1, f"Parameter `beta_1` {what}", "lie in [0, 1)", self.beta_1)
        require(0 < self.tau < float("inf"), f"Parameter `tau` {what}", "be finite and positive", self.tau)
        require(0 <= self.v_0 < float("inf"), f"Parameter `v_0` {what}", "be finite and >= 0", self.v_0)

    def init(self, x0: Tensor, site: ServerContext) -> AdaptiveState:
        return AdaptiveState(x0, torch.zeros_like(x0), torch.full_like(x0, self.v_0), 0)

    def ask(self, state: AdaptiveState) -> Tensor:
        return state.x

    def tell(self, state: AdaptiveState, g: Tensor) -> AdaptiveState:
        k = state.k + 1
        m = (state.m * self.beta_1).add_(g, alpha=1 - self.beta_1)
        v = self.second_moment(state.v, g.square())
        first, second = self.corrections(k)
        spread = v.sqrt().div_(second).add_(self.tau) if second != 1 else v.sqrt().add_(self.tau)
        x = torch.addcdiv(self.decayed(state.x), m, spread, value=-self.lr * first)
        return AdaptiveState(x, m, v, k)

    @abstractmethod
    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        """The next v `[d]` from the last one and g²."""

    def corrections(self, k: int) -> tuple[float, float]:
        """The factor c_k of round k, and what √v is divided by before τ is added. Default: 1, 1."""
        return 1.0, 1.0

    def decayed(self, x: Tensor) -> Tensor:
        """The iterate before the step along m. Default: as it is."""
        return x


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
        v_0: Where v starts, >= 0.

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
    """FedAdam: v <- β2 v + (1 - β2) g². See `AdaptiveStep` for the rest, and for what attacks do to v.

    `correction` for the moments' start: "flower" scales step k by c_k = √(1 - β2^(k+1)) / (1 - β1^(k+1));
    "none" is the paper's FedAdam, c_k = 1; "torch" is PyTorch's Adam, x <- x - lr m̂ / (√v̂ + τ) with
    m̂ = m/(1 - β1^k), v̂ = v/(1 - β2^k).

    Args:
        lr: Scale of the steps, > 0.
        beta_1: β1 of the first moment, in [0, 1).
        tau: τ > 0, in the units of the aggregate.
        beta_2: β2 of the second moment, in [0, 1).
        correction: How the moments' start is corrected for: "flower", "torch" or "none".
        v_0: Where v starts, >= 0.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import ServerAdam, ServerContext
        >>> step = ServerAdam(lr=1.0, beta_1=0.0, beta_2=0.0, correction="none")
        >>> state = step.init(torch.zeros(2), ServerContext(Layout.flat(2)))
        >>> step.ask(step.tell(state, torch.tensor([2.0, -50.0]))).round(decimals=2)
        tensor([-1.,  1.])
    """

    beta_2: float = 0.99
    correction: Correction = "flower"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_beta_2(self)

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        return (v * self.beta_2).add_(square, alpha=1 - self.beta_2)

    def corrections(self, k: int) -> tuple[float, float]:
        if self.correction == "torch":
            return 1 / (1 - self.beta_1**k), sqrt(1 - self.beta_2**k)
        if self.correction == "flower":
            return sqrt(1 - self.beta_2 ** (k + 1)) / (1 - self.beta_1 ** (k + 1)), 1.0
        return 1.0, 1.0


@STEPS.register("server_adamw")
@dataclass(frozen=True)
class ServerAdamW(ServerAdam):
    """AdamW at the server: as `server_adam`, after x <- (1 - lr λ) x. PyTorch's with its defaults.

    Source: Loshchilov and Hutter, arXiv:1711.05101, Algorithm 2.

    Args:
        lr: Scale of the steps, > 0.
        beta_1: β1 of the first moment, in [0, 1).
        tau: τ > 0 (PyTorch's ε), in the units of the aggregate.
        beta_2: β2 of the second moment, in [0, 1).
        correction: How the moments' start is corrected for: "flower", "torch" or "none".
        wd: Decoupled weight decay λ >= 0.
        v_0: Where v starts, >= 0.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import ServerAdamW, ServerContext
        >>> step = ServerAdamW(lr=0.1, wd=0.5)
        >>> state = step.init(torch.tensor([2.0, -2.0]), ServerContext(Layout.flat(2)))
        >>> step.ask(step.tell(state, torch.zeros(2)))  # decay alone
        tensor([ 1.9000, -1.9000])
    """

    lr: float = 1e-3
    tau: float = 1e-8
    beta_2: float = 0.999
    correction: Correction = "torch"
    wd: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.wd < float("inf"), "Parameter `wd` of server_adamw", "be at least 0", self.wd)

    def decayed(self, x: Tensor) -> Tensor:
        return x * (1 - self.lr * self.wd) if self.wd else x


@STEPS.register("server_yogi")
@dataclass(frozen=True)
class ServerYogi(AdaptiveStep):
    """FedYogi: v <- v - (1 - β2) g² sign(v - g²). See `AdaptiveStep` for the rest.

    Args:
        lr: Scale of the steps, > 0.
        beta_1: β1 of the first moment, in [0, 1).
        tau: τ > 0, in the units of the aggregate.
        beta_2: β2 of the second moment, in [0, 1).
        v_0: Where v starts, >= 0.

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
