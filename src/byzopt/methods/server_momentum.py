"""SGD with momentum at the server, behind the rule."""

from __future__ import annotations

from dataclasses import dataclass

from byzopt.aggregators import Aggregator
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.schedules import Constant, Schedule
from byzopt.servers import ServerMomentum
from byzopt.wire import Direct
from byzopt.workers import Form, Plain


@METHODS.register("server_sgdm")
@dataclass(frozen=True)
class ServerSGDM(MethodRecipe):
    """u <- (1 - η) u + η Agg(g_1 .. g_n), x <- x - γ_k u: workers send raw gradients and keep no memory.

    Momentum behind the rule averages what passed it; it does not make honest rows more alike, as that of
    `robust_sgdm` does. The baselines of the quartic in the code released with arXiv:2603.12512 are this with
    `momentum="heavy_ball"`, u <- (1 - η) u + Agg.

    Args:
        eta: Weight of the new aggregate, in (0, 1].
        schedule: Factors of `lr` by round.
        momentum: Convention of the momentum: "average" or "heavy_ball".

    Examples:
        >>> from byzopt import Cohort, Quadratic, ServerSGDM, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = ServerSGDM()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    eta: float = 0.1
    schedule: Schedule = Constant()
    momentum: Form = "average"

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        step = ServerMomentum(lr, self.schedule.over(rounds), self.eta, self.momentum)
        return Method(Plain(), Direct(), rule.as_filter(), step)
