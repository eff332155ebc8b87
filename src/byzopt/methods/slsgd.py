"""SLSGD (Xie, Koyejo, Gupta, ECML PKDD 2019, arXiv:1903.06996): local steps, and a moving average of x.

    honest i : y_i <- x;  K times  y_i <- y_i - γ ∇f_i(y_i);   send r_i = (x - y_i)/(γ K)
    server   : x <- (1 - α_t) x + α_t Trim_b(y_1 .. y_n), which is x - α_t γ K Trim_b(r_1 .. r_n)

The trimmed mean moves and scales with its rows, so that rows in the units of gradients say the same; so does
any rule that is equivariant.
"""

from __future__ import annotations

from dataclasses import dataclass

from byzopt.aggregators import Aggregator
from byzopt.errors import require
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.schedules import Constant, Schedule
from byzopt.servers import Descent
from byzopt.wire import Direct
from byzopt.workers import LocalSGD


@METHODS.register("slsgd")
@dataclass(frozen=True)
class SLSGD(MethodRecipe):
    """K local steps of SGD at rate `lr`, and x <- (1 - α) x + α times the rule's answer to workers' points.

    The spec's `rule` is the paper's with `trimmed_mean` (its b is f; b = 0 is the mean), and its samples of
    k workers are `participants`. α_t = `alpha` times `mixing`: the paper lets it decay. Where it does not,
    this is `fed_avg` with `server_lr = alpha`, to the bit. No bound is given: the paper's constants were not
    within reach.

    Args:
        steps: Number K of local steps, each on a sample of its own.
        alpha: α, the weight of the workers' points, in (0, 1].
        mixing: Factors of α by round.

    Examples:
        >>> from byzopt import SLSGD, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = SLSGD(steps=5, alpha=0.8)
        >>> outcome = simulate(task, "trimmed_mean", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    steps: int = 10
    alpha: float = 1.0
    mixing: Schedule = Constant()

    def __post_init__(self) -> None:
        require(self.steps >= 1, "Parameter `steps` of slsgd", "be at least 1", self.steps)
        require(0 < self.alpha <= 1, "Parameter `alpha` of slsgd", "lie in (0, 1]", self.alpha)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        worker = LocalSGD(self.steps, lr, "reset", Constant(), 0.0)
        step = Descent(self.alpha * lr * self.steps, self.mixing.over(rounds))
        return Method(worker, Direct(), rule.as_filter(), step)
