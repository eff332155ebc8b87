"""Bant: trust by trial steps on clean data of the server's (Molodtsov et al., AAAI 2026, arXiv:2505.07614).

    honest i : send g_i(x)
    server   : gain_i = max(0, f̂(x) - f̂(x - γ g_i)),  f̂ the loss on its own data
               ω_i <- (1 - β) ω_i + β gain_i / Σ gain,   from 1/n
               x <- x - γ Σ ω_i g_i / Σ ω_i  over the workers whose gain is positive

Any number of liars may be there, also most. What the method is worth is what the server's data are worth: a
row that gains on them passes, whatever else it does.
"""

from __future__ import annotations

from dataclasses import dataclass

from byzopt.aggregators import Aggregator
from byzopt.aggregators.trials.trust import Otherwise, TrialTrust
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.schedules import Constant, Schedule
from byzopt.servers import Descent
from byzopt.wire import Direct
from byzopt.workers import WorkerMomentum


@METHODS.register("bant")
@dataclass(frozen=True)
class Bant(MethodRecipe):
    """SGD over workers weighed by what a trial step along their rows gains on the server's own loss.

    The task has to own a loss: `proxy = "sample"` is the clean sample that the paper has. With
    `rule = "mean"`, as in the paper, the answer is the weighted mean; another rule gets the same weighted
    rows of those who pass, and the others as missing rows, counted against its f. Where it has no answer to
    so few the server takes no step.

    A *reconstruction*: of the paper only the abstract was within reach; formulas and defaults are those of
    the authors' code (brain-lab-research/Bant, `bant.py`). There rows are whole local trainings and here
    gradients, or with `eta` < 1 their moving averages. Where no row gains anything the code lets everybody
    pass and weighs the round by 0.001; `otherwise = "none"` takes no step then. Its variants AutoBant
    (weights by mirror descent on the loss) and SimBant (by the likeness of predictions) are not here. The
    paper proves rates of convergence; none is stated here.

    Args:
        beta: β in (0, 1], the weight of this round's gains in the trust.
        otherwise: Who passes where no row gains anything: "all" finite ones, or "none".
        eta: Weight of the new gradient in a worker's moving average, in (0, 1]; 1: plain gradients.
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import Bant, Cohort, Quadratic, WorkerProxy, simulate
        >>> task = Quadratic(proxy=WorkerProxy()).build(Cohort.of(20, byzantine=9), seed=0)
        >>> outcome = simulate(task, "mean", lr=0.5, rounds=40, f=9, method=Bant(), attack="sign_flip")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"] / 10
        True
    """

    beta: float = 0.5
    otherwise: Otherwise = "all"
    eta: float = 1.0
    schedule: Schedule = Constant()

    def __post_init__(self) -> None:
        _ = WorkerMomentum(self.eta)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        schedule = self.schedule.over(rounds)
        filter = TrialTrust(rule, lr, schedule, self.beta, self.otherwise)
        worker = WorkerMomentum(self.eta, schedule=schedule)
        return Method(worker, Direct(), filter, Descent(lr, schedule))
