"""ByzantineSGD (arXiv:1803.08917, Algorithm 1) and its epochs for strongly convex problems.

    honest i : send g_i(x)
    server   : A_i += <g_i, x - x_1>, B_i += g_i; expel for good who strays from a median of A, B or g
               x <- projection of x - γ Σ_good g_i/n on the ball of radius D around x_1; answer: the mean x

Assumptions: f convex, all honest workers sample one distribution, honest noise ‖g_i - ∇f‖ <= V, a fixed set
of fewer than n/2 liars, ‖x_1 - x*‖ <= D. Data that differ between workers get honest workers expelled: such
runs ask for it by name (`differing`).
Theory: `byzopt.theory.byzantine_sgd`, `byzantine_epochs`, `byzantine_limits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from byzopt.aggregators import Aggregator
from byzopt.aggregators.guards.guard import HistoryGuard
from byzopt.errors import InvalidInput
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.byzantine_promise import byzantine_promise
from byzopt.methods.byzantine_settings import ByzantineSettings
from byzopt.methods.expulsion import by_pairs, differing, likely
from byzopt.servers import ProjectedStep
from byzopt.theory import byzantine_sgd as theory
from byzopt.theory.promise import Constants, Promise
from byzopt.wire import Direct
from byzopt.workers import Plain


@METHODS.register("byzantine_sgd")
@dataclass(frozen=True)
class ByzantineSGD(ByzantineSettings, MethodRecipe):
    """Projected, averaged SGD behind a guard that expels workers by the history of their gradients.

    The guard is the defence, and a spec's `rule` is `mean`. Another rule combines the rows of those who pass
    in place of their mean (not in the paper): for it the expelled are missing, which counts against its f.

    Errors: `InvalidInput` for epochs that lack a constant, and without a number of rounds.

    Args:
        noise: Bound V on the length of honest noise, in the units of gradients; None: no thresholds.
        diameter: D >= ‖x_1 - x*‖; None: nothing is projected.
        thresholds: "default", "proved", or "printed" as in the paper.
        p_fail: Probability that an honest worker is expelled, in (0, 1).
        anytime: Whether thresholds follow the rounds so far in place of all rounds.
        adaptive_A: Whether τ_A follows the path walked.
        vmed: The vector median: "medoid" or "random"; None: that of the thresholds.
        mean_over_good: Whether to divide by the workers left, not by n.
        average: Which points the answer averages: "smooth" x_2 .. x_{T+1}, "nonsmooth" x_1 .. x_T.
        epochs: Restarts: "none", "theory", "practical" or "doubling".
        first: Rounds of the first doubling epoch.
        grow: Whether `diameter` is a guess that restarts enlarge.
        c: Constant of practical epochs.
        mu: μ of strong convexity, for epochs.
        L: Smoothness, for epochs of smooth problems.
        M: Bound on gradients, for epochs of non-smooth problems.
        error2: Constant of the last term of the theorems.
        sketch: Numbers that a worker's sum B is kept as; None: all d.
        seed: Of the random median and of the sketch.
        n: Number of workers; a spec fills it in.
        f: Number of liars tolerated; a spec fills it in.
        differing: Whether to run although workers' data differ.

    Raises:
        InvalidInput: Epochs that lack a constant, and a run without a number of rounds.

    Examples:
        >>> from byzopt import ByzantineSGD, Cohort, Quadratic, simulate
        >>> task = Quadratic(heterogeneity=0.0).build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = ByzantineSGD(noise=2.0, diameter=10.0)
        >>> outcome = simulate(task, "mean", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        if rounds is None:
            raise InvalidInput("The number of rounds of byzantine_sgd should be given. Found none.")
        plan = self.plan(lr, rounds)
        guard = HistoryGuard(
            tuple(epoch._replace(radius=inf) for epoch in plan) if self.grow else plan,
            self.noise,
            self.thresholds,
            self.p_fail,
            self.anytime,
            self.adaptive_A,
            self.vmed,
            self.mean_over_good,
            self.seed,
            self.n,
            rule,
            self.sketch,
            self.f,
            self.differing,
        )
        return Method(Plain(), Direct(), guard, ProjectedStep(plan, self.average == "smooth", self.grow))

    def expulsion(self, known: Constants) -> tuple[str, ...]:
        if self.noise is None:
            return by_pairs(known, self.p_fail, self.differing)
        plan = self.plan(1.0, known.rounds)
        share, noise = self.p_fail / len(plan), self.noise
        # Chances and slack are in units of the radius.
        stretches = [theory.GuardSetting(known.n, known.f, epoch.rounds, noise, 1.0, share) for epoch in plan]
        chance = sum(theory.expels_honest(at, self.thresholds, self.anytime) for at in stretches)
        rests_on = likely(known, noise, chance)
        if chance >= 1:
            setting = f"thresholds = {self.thresholds!r}, anytime = {self.anytime}"
            rests_on = (
                f"nothing is proved with {setting} over {known.rounds} rounds: liars may get honest workers "
                "expelled (`proved` thresholds have a proof)"
            )
        sentences = [rests_on]
        if self.adaptive_A or self.diameter is None:
            sentences.append("the A test goes by the path walked, for which nothing is proved")
        slack = 0.0 if self.anytime else min(theory.slack(at, self.thresholds) for at in stretches)
        return (*sentences, *differing(known, slack, self.differing))

    def promise(self, known: Constants) -> Promise | None:
        """Theorems 3.2 and 3.3, or for epochs 3.4 and 3.5: see `byzopt.methods.byzantine_promise`."""
        return byzantine_promise(self, known)
