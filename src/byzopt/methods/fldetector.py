"""FLDetector (Zhang, Cao, Jia, Gong, KDD 2022, arXiv:2207.09209): workers held against their own past.

    honest i : send g_i(x)
    server   : x <- x - γ Agg(g of those who are left); expel whose rows do not follow from their last ones

Nothing is proved of what it expels. Liars who are as consistent as honest workers are never seen: a bias that
stays the same, label flipping, a backdoor that is there from the start. Honest workers whose noise is larger
than others' stand out as liars do.
"""

from __future__ import annotations

from dataclasses import dataclass

from byzopt.aggregators import Aggregator
from byzopt.aggregators.guards.consistency import Consistency
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.schedules import Constant, Schedule
from byzopt.servers import Descent
from byzopt.theory.promise import Constants
from byzopt.wire import Direct
from byzopt.workers import Plain


@METHODS.register("fldetector")
@dataclass(frozen=True)
class FLDetector(MethodRecipe):
    """SGD over the workers whose rows are like g_i + B (x - x_old), g_i being their rows of the round before.

    B is the L-BFGS Hessian of the last `memory` steps of x and changes of the aggregate. After `warmup`
    rounds each worker has a score a round, its distance from the prediction over the sum of all distances.
    Where the gap statistic sees more than one cluster among the averages of the last `window` scores, the
    workers of the upper of two clusters are expelled for good. Default numbers are those of the
    released code.

    The spec's `rule` answers for those who are left; the expelled are missing rows to it, counted against its
    f. Where we differ: the paper starts training anew without the detected, here it goes on; two clusters of
    numbers are found exactly; where more than `f` workers would be gone altogether nobody is expelled, for
    they cannot all be liars, and `alarms` counts it. Without that honest workers are expelled one after the
    other, since some cluster stands out sooner or later. The gap statistic has the mean of
    logarithms, as its authors define it, and FLDetector's code the logarithm of the mean.

    Args:
        window: Rounds N whose scores are averaged.
        memory: Steps that the Hessian is made of.
        warmup: Rounds before the first score.
        references: Uniform sets that the gap statistic draws.
        seed: Of these sets.
        schedule: Factors of `lr` by round.
        f: Number of liars tolerated; a spec fills it in.

    Examples:
        >>> from byzopt import Cohort, FLDetector, Quadratic, simulate
        >>> task = Quadratic(noise=0.01).build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = FLDetector(warmup=10)
        >>> outcome = simulate(task, "median", lr=0.1, rounds=40, f=3, method=method, attack="gaussian")
        >>> sorted(worker for worker, *_ in outcome.expelled)
        [17, 18, 19]
    """

    window: int = 10
    memory: int = 10
    warmup: int = 50
    references: int = 10
    seed: int = 0
    schedule: Schedule = Constant()
    f: int | None = None

    def __post_init__(self) -> None:
        self._guard()

    def _guard(self) -> Consistency:
        return Consistency(self.window, self.memory, self.warmup, self.references, self.seed, self.f or 0)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        guard = Consistency(
            self.window, self.memory, self.warmup, self.references, self.seed, self.f or 0, rule
        )
        return Method(Plain(), Direct(), guard, Descent(lr, self.schedule.over(rounds)))

    def expulsion(self, known: Constants) -> tuple[str, ...]:
        return (
            "nothing is proved of whom FLDetector expels: honest workers with more noise than others may go, "
            "and liars who are consistent from round to round are never seen",
            f"at most {self.f or 0} workers are expelled in all; where more would be, nobody is",
        )
