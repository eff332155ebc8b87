"""Local steps: a worker walks by itself for K steps, and sends how far it came, in the units of gradients."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.fields import check_kind
from byzopt.schedules import Constant, Schedule
from byzopt.workers.base import ESTIMATORS, Estimator, Need, Oracle

Memory: TypeAlias = Literal["reset", "kept"]


@dataclass(frozen=True)
class Walk(Estimator):
    """y⁰ = x, y^{k+1} = y^k - γ_c u^k for k < K, each step on a sample of its own; the row is mean_k u^k.

    That is (x - y^K)/(γ_c K), taken without the difference, so that it keeps its digits and K = 1 sends the
    gradient itself where u is the gradient. `direction` says what u is. `memory` of directions: "reset" in
    each round, or "kept" by the worker. γ_c follows `schedule` by round, and its restarts.
    """

    steps: int = 10
    lr: float = 0.01
    memory: Memory = "reset"
    schedule: Schedule = Constant()
    needs: ClassVar[frozenset[Need]] = frozenset({"points"})
    batched = True

    def __post_init__(self) -> None:
        what = f"of estimator {self.name}"
        require(self.steps >= 1, f"Parameter `steps` {what}", "be at least 1", self.steps)
        check_kind(f"Parameter `lr` {what}", self.lr, float)
        require(self.lr > 0, f"Parameter `lr` {what}", "be finite and positive", self.lr)

    @property
    def samples(self) -> int:
        return self.steps

    @abstractmethod
    def begin(self, g: Tensor) -> Any:
        """The memory of directions before the first step, for gradients like `g` `[n, d]`."""

    @abstractmethod
    def direction(self, memory: Any, g: Tensor, y: Tensor) -> tuple[Tensor, Any]:
        """u `[n, d]` for gradients `g` at the points `y`, both `[n, d]`, and the memory after it."""

    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, Any]:
        return self._walked(None, x, oracle)

    def step(self, state: Any, x: Tensor, oracle: Oracle) -> tuple[Tensor, Any]:
        kept = self.memory == "kept" and not self.schedule.fresh(oracle.t)
        return self._walked(state if kept else None, x, oracle)

    def _walked(self, memory: Any, x: Tensor, oracle: Oracle) -> tuple[Tensor, Any]:
        lr = self.lr * self.schedule.gamma(oracle.t)
        g = oracle(x)  # all still stand at x
        memory = self.begin(g) if memory is None else memory
        start = x if x.ndim == g.ndim else x.unsqueeze(-2)  # nodes of a graph stand at points of their own
        y = start.expand_as(g)
        total, memory = self.direction(memory, g, y)
        for k in range(1, self.steps):
            y = start - lr * total
            u, memory = self.direction(memory, oracle.fresh(k).at(y), y)
            total = total + u
        return total / self.steps, memory if self.memory == "kept" else ()


class Velocity(NamedTuple):
    """Each worker's heavy ball b `[n, d]`."""

    b: Tensor


@ESTIMATORS.register("local_sgd")
@dataclass(frozen=True)
class LocalSGD(Walk):
    """K steps of SGD: b <- β b + g, u = b, from b = 0; the row is the mean of the u. `momentum` 0: u = g.

    y^{k+1} = y^k - γ_c u^k, each gradient at the worker's own point on a sample of its own: K gradients a
    round. K = 1 without momentum sends the gradient at x. b is "reset" in each round, or "kept".
    Source: McMahan et al., arXiv:1602.05629, Algorithm 1 (K counts steps, not epochs).

    Args:
        steps: Number K of local steps.
        lr: Length γ_c of a local step.
        memory: Whether momentum is "reset" in each round or "kept".
        schedule: Factors of γ_c by round.
        momentum: β of the local heavy ball, in [0, 1).

    Examples:
        >>> import torch
        >>> from byzopt import Cohort, Quadratic
        >>> from byzopt.engines import GradientCount
        >>> from byzopt.workers import LocalSGD
        >>> task, worker, count = Quadratic().build(Cohort.of(4), seed=0), LocalSGD(steps=5), GradientCount()
        >>> rows, state = worker.init(task.start(), count.oracle(task, t=1, seed=0, samples=5))
        >>> rows.shape, count.gradients
        (torch.Size([4, 20]), 5.0)
    """

    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.momentum < 1, "Parameter `momentum` of local_sgd", "lie in [0, 1)", self.momentum)

    def begin(self, g: Tensor) -> Any:
        return Velocity(torch.zeros_like(g)) if self.momentum else ()

    def direction(self, memory: Any, g: Tensor, y: Tensor) -> tuple[Tensor, Any]:
        if not self.momentum:
            return g, memory
        b = torch.add(g, memory.b, alpha=self.momentum)
        return b, Velocity(b)


class Moments(NamedTuple):
    """Each worker's moments m and v, `[n, d]`, and the number k of its steps."""

    m: Tensor
    v: Tensor
    k: int


@ESTIMATORS.register("local_adamw")
@dataclass(frozen=True)
class LocalAdamW(Walk):
    """K steps of AdamW: u = m̂/(√v̂ + ε) + λ y with PyTorch's moments; the row is the mean of the u.

    m <- β1 m + (1 - β1) g, v <- β2 v + (1 - β2) g², m̂ = m/(1 - β1^k), v̂ = v/(1 - β2^k), from 0; moments and
    k are "kept" by the worker between rounds, or "reset". A row's coordinates are about 1 in size, whatever
    the gradients' are. Source: the inner optimiser of DiLoCo, Douillard et al., arXiv:2311.08105.

    Args:
        steps: Number K of local steps.
        lr: Length γ_c of a local step.
        memory: Whether moments are "reset" in each round or "kept".
        schedule: Factors of γ_c by round.
        beta_1: β1 of the first moment, in [0, 1).
        beta_2: β2 of the second moment, in [0, 1).
        eps: ε > 0, in the units of gradients.
        wd: Decoupled weight decay λ.

    Examples:
        >>> import torch
        >>> from byzopt import Cohort, Quadratic
        >>> from byzopt.engines import GradientCount
        >>> from byzopt.workers import LocalAdamW
        >>> task, worker = Quadratic().build(Cohort.of(4), seed=0), LocalAdamW(steps=5, wd=0.0)
        >>> rows, state = worker.init(task.start(), GradientCount().oracle(task, t=1, seed=0, samples=5))
        >>> state.k, bool(rows.abs().max() < 1.01)
        (5, True)
    """

    lr: float = 1e-3
    memory: Memory = "kept"
    beta_1: float = 0.9
    beta_2: float = 0.999
    eps: float = 1e-8
    wd: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, beta in (("beta_1", self.beta_1), ("beta_2", self.beta_2)):
            require(0 <= beta < 1, f"Parameter `{name}` of local_adamw", "lie in [0, 1)", beta)
        require(self.eps > 0, "Parameter `eps` of local_adamw", "be positive", self.eps)
        require(self.wd >= 0, "Parameter `wd` of local_adamw", "be at least 0", self.wd)

    def begin(self, g: Tensor) -> Moments:
        return Moments(torch.zeros_like(g), torch.zeros_like(g), 0)

    def direction(self, memory: Moments, g: Tensor, y: Tensor) -> tuple[Tensor, Moments]:
        k = memory.k + 1
        m = (memory.m * self.beta_1).add_(g, alpha=1 - self.beta_1)
        v = (memory.v * self.beta_2).addcmul_(g, g, value=1 - self.beta_2)
        spread = (v.sqrt() / sqrt(1 - self.beta_2**k)).add_(self.eps)
        u = (m / (1 - self.beta_1**k)).div_(spread)
        return (u.add_(y, alpha=self.wd) if self.wd else u), Moments(m, v, k)
