"""Worker momentum: each worker sends an average of its own gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeAlias

from torch import Tensor

from byzopt.errors import require
from byzopt.schedules import Constant, Schedule
from byzopt.workers.base import ESTIMATORS, Estimator, Oracle

Form: TypeAlias = Literal["average", "heavy_ball"]
Start: TypeAlias = Literal["zero", "first_gradient"]


def moving_average(v: Tensor, g: Tensor, eta: float, form: Form) -> Tensor:
    """(1 - η) v + η g, or (1 - η) v + g as a heavy ball: the one place where both conventions are written."""
    return (v * (1 - eta)).add_(g, alpha=eta if form == "average" else 1.0)


class WorkerMomentumState(NamedTuple):
    """v `[n, d]`: row i is worker i's momentum."""

    v: Tensor


@ESTIMATORS.register("momentum")
@dataclass(frozen=True)
class WorkerMomentum(Estimator):
    """v <- (1 - η) v + η g, sent as it is. η is the weight of the new gradient; η = 1 sends g itself.

    `form="heavy_ball"` is v <- (1 - η) v + g with first v = g (the released code of arXiv:2603.12512): 1/η
    times as long, the same direction when started from 0 with a constant η. `start` says what the average's
    first message is: `"zero"` η g, from v^0 = 0; `"first_gradient"` g. `schedule` may prescribe η by round,
    and restarts. Source: arXiv:2603.12512, Algorithm 1.

    Args:
        eta: Weight η of the new gradient, in (0, 1].
        form: Convention of the momentum: "average" or "heavy_ball".
        start: First message of the average: "zero" η g, or "first_gradient" g.
        schedule: May prescribe η by round, and restarts.

    Examples:
        >>> import torch
        >>> from byzopt.workers import Oracle, WorkerMomentum
        >>> momentum, x = WorkerMomentum(eta=0.5), torch.ones(2)
        >>> rows, state = momentum.init(x, Oracle(1, grads=lambda x: x.expand(3, -1), full=None))
        >>> rows, state = momentum.step(state, x, Oracle(2, grads=lambda x: x.expand(3, -1), full=None))
        >>> rows[0]  # 0.5 * 0.5 + 0.5 * 1
        tensor([0.7500, 0.7500])
    """

    eta: float = 0.1
    form: Form = "average"
    start: Start = "zero"
    schedule: Schedule = Constant()
    batched = True

    def __post_init__(self) -> None:
        require(0 < self.eta <= 1, "Parameter `eta`", "lie in (0, 1]", self.eta)

    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, WorkerMomentumState]:
        g = oracle(x)
        v = self._eta(oracle.t) * g if (self.form, self.start) == ("average", "zero") else g
        return v, WorkerMomentumState(v)

    def step(
        self, state: WorkerMomentumState, x: Tensor, oracle: Oracle
    ) -> tuple[Tensor, WorkerMomentumState]:
        if self.schedule.fresh(oracle.t):
            return self.init(x, oracle)
        v = moving_average(state.v, oracle(x), self._eta(oracle.t), self.form)
        return v, WorkerMomentumState(v)

    def _eta(self, t: int) -> float:
        return self.schedule.eta(t, self.eta)


@ESTIMATORS.register("plain")
@dataclass(frozen=True)
class Plain(Estimator):
    """g: the stochastic gradient of this round, without memory.

    Examples:
        >>> import torch
        >>> from byzopt.workers import Oracle, Plain
        >>> oracle = Oracle(1, grads=lambda x: x.expand(3, -1), full=None)
        >>> rows, state = Plain().init(torch.ones(2), oracle)
        >>> rows.shape, state
        (torch.Size([3, 2]), ())
    """

    batched = True

    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, tuple[()]]:
        return oracle(x), ()

    def step(self, state: tuple[()], x: Tensor, oracle: Oracle) -> tuple[Tensor, tuple[()]]:
        return oracle(x), ()


@ESTIMATORS.register("sampled_momentum")
@dataclass(frozen=True)
class SampledMomentum(Estimator):
    """m <- (1 - η p) m + η s of those who take part, (1 - η p) m of absentees, from m = 0.

    For workers of whom each takes part with probability p; p = 1 is `momentum`. Source: DeMoA, Otsuka et al.,
    arXiv:2509.02970.

    Args:
        eta: Weight η of the new gradient, in (0, 1].
        p: Probability of taking part, in (0, 1].

    Examples:
        >>> import torch
        >>> from byzopt.workers import Oracle, SampledMomentum
        >>> worker, x = SampledMomentum(eta=0.5, p=0.5), torch.ones(2)
        >>> rows, state = worker.init(x, Oracle(1, grads=lambda x: x.expand(3, -1), full=None))
        >>> rows, state = worker.step(state, x, Oracle(2, grads=lambda x: 0 * x.expand(3, -1), full=None))
        >>> rows[0]  # 0.5 * 0.75
        tensor([0.3750, 0.3750])
    """

    eta: float = 0.1
    p: float = 0.5
    batched = True
    counts_absence: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, value in (("eta", self.eta), ("p", self.p)):
            require(0 < value <= 1, f"Parameter `{name}` of sampled_momentum", "lie in (0, 1]", value)

    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, WorkerMomentumState]:
        m = self.eta * oracle(x)
        return m, WorkerMomentumState(m)

    def step(
        self, state: WorkerMomentumState, x: Tensor, oracle: Oracle
    ) -> tuple[Tensor, WorkerMomentumState]:
        # The oracle's gradients of absentees are 0.
        m = (state.v * (1 - self.eta * self.p)).add_(oracle(x), alpha=self.eta)
        return m, WorkerMomentumState(m)
