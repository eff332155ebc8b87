"""A hybrid of rules: each round that answer which does best on the server's data (arXiv:2409.06474).

    honest i : send g_i(x)
    server   : a_j = Agg_j(g_1 .. g_n) for each of its rules;  x <- x - γ a_j  of that j whose f̂(x - γ a_j) is
               least, f̂ being the loss on its own data

The server need not know which attack comes, as long as one of its rules withstands it. An attack that beats
all of them at once, or whose step looks good on the server's data, beats the hybrid.
"""

from __future__ import annotations

from dataclasses import dataclass

from byzopt.aggregators import Aggregator, rule_from
from byzopt.aggregators.trials.choosing import By, ChosenRule
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.schedules import Constant, Schedule
from byzopt.servers import Descent
from byzopt.wire import Direct
from byzopt.workers import WorkerMomentum


@METHODS.register("hybrid")
@dataclass(frozen=True)
class Hybrid(MethodRecipe):
    """SGD along the answer of the spec's `rule` or of one `beside` it: the one with the least trial loss.

    The task has to own a loss: `proxy = "sample"` is a clean sample of training data, as the authors' code
    draws one (of 10 samples; 100 by default here). The released rules are `rule = "median"` with those that
    stand `beside` it by default. With `by = "lot"`, the code's `random_agg`, one rule is drawn each round and
    no data are needed; searched attacks then make draws of their own.

    A *reconstruction*: of the paper (Yue, Jin, Wong, Dai) only abstract and introduction were within reach;
    rules and choice are those of the authors' code (KAI-YUE/exp-byzan, `server.py`). Where we differ: the
    code takes the largest accuracy, here it is the least loss, which the server owns; the code's rules know
    the true number of liars, or fixed numbers, ours f; each rule with a memory remembers its own answers,
    while the code's centred clipping moves twice where it is taken; rows are whole local trainings there and
    here gradients, or with `eta` < 1 their moving averages. No bound is given.

    Args:
        beside: The other rules, as texts.
        by: "loss", or "lot" for a rule drawn each round.
        eta: Weight of the new gradient in a worker's moving average, in (0, 1]; 1: plain gradients.
        schedule: Factors of `lr` by round.
        f: Of the rules beside; a spec fills it in; None: that of `rule`.

    Examples:
        >>> from byzopt import Cohort, Hybrid, Quadratic, WorkerProxy, simulate
        >>> task = Quadratic(proxy=WorkerProxy()).build(Cohort.of(20, byzantine=3), seed=0)
        >>> outcome = simulate(task, "median", lr=0.5, rounds=40, f=3, method=Hybrid(), attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"] / 10
        True
    """

    beside: tuple[str, ...] = ("multi_krum", "trimmed_mean", "centered_clipping", "signguard", "dnc")
    by: By = "loss"
    eta: float = 1.0
    schedule: Schedule = Constant()
    f: int | None = None

    def __post_init__(self) -> None:
        _ = WorkerMomentum(self.eta)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        schedule = self.schedule.over(rounds)
        f = _tolerated(rule) if self.f is None else self.f
        others = [rule_from(text, **({} if f is None else {"f": f})) for text in self.beside]
        filters = tuple(one.as_filter() for one in (rule, *others))
        worker = WorkerMomentum(self.eta, schedule=schedule)
        return Method(worker, Direct(), ChosenRule(filters, lr, schedule, self.by), Descent(lr, schedule))


def _tolerated(rule: Aggregator) -> int | None:
    """The f that a rule or a stage of it is set to; None where none is."""
    known = (getattr(one, "f", None) for one in (*rule.stages, rule.last))
    return next((f for f in known if f is not None), None)
