"""Methods whose messages are differentially private, behind a robust rule.

    safe_dshb : m_i <- (1 - η) m_i + η (clip_C(s_i) + ω_i),  send m_i;  x <- x - γ Agg(m_1 .. m_n)
    clip21    : v_i <- (1 - η_v) v_i + η_v s_i,  k_i = clip_C(v_i - g_i),  g_i <- g_i + η_u k_i,
                send k_i + ω_i;  m_i <- m_i + η_u (k_i + ω_i) at the server,  x <- x - γ Agg(m_1 .. m_n)

Each worker clips, then adds noise ω_i of its own, so that its messages are private against the server,
against other workers and against whoever hears them; the rule sees noised rows alone, and whatever it does,
nothing of privacy is lost by it. Noise is honest dispersion, in which attackers hide: the floor under attack
is in proportion to d σ². Momentum averages it.

What is guaranteed (`byzopt.theory.privacy`), with (ε, δ): a Gaussian mechanism for each round in which what
was replaced is used. One *sample* of a worker replaced: with `per = "sample"` a mean over B samples moves by
2 C/B, with "message" by 2 C. *All data* of a worker replaced: a message moves by 2 C. Clip21's averages
remember every sample for good, so that all rounds count. Batches walk through permutations: a sample counts
once in each pass through its worker's data, and more where batches straddle two passes, and nothing is gained
from the secrecy of who is sampled. With `sampling = "poisson"` something is: each sample is drawn by itself.

Simulated noise comes from the seed of the run: figures are those of the method, and nobody's data are
protected from who knows the seed. Methods with noise are refused over real processes and Flower, where all
would draw the same. Figures that are measured on training data are not covered.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import sqrt

from byzopt.aggregators import Aggregator
from byzopt.errors import require
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.schedules import Constant, Schedule
from byzopt.servers import Descent
from byzopt.theory import privacy
from byzopt.theory.poisson_samples import poisson_epsilon, replaced_epsilon
from byzopt.theory.premises import checked_premise
from byzopt.theory.privacy import Uses
from byzopt.theory.promise import Premise, Promise, Standing
from byzopt.wire import Clip21Wire, Direct
from byzopt.workers import Per, PrivateMomentum, WorkerMomentum
from byzopt.workers.private import Sampling, check_noise, check_sampling

SIMULATED = "in a simulation noise comes from the seed: whoever knows it can take it away"


@dataclass(frozen=True)
class _Private(MethodRecipe):
    """Clipping and noise, given as a multiple or by the budget (`epsilon`, `delta`) of all rounds."""

    clip: float | None = 1.0
    noise_multiplier: float = 0.0
    epsilon: float | None = None
    delta: float = 1e-5

    def check(self) -> None:
        """Raise `InvalidInput` unless the settings of clipping and noise go together."""
        check_noise(self.clip, self.noise_multiplier)
        require(0 < self.delta < 1, "Parameter `delta`", "lie in (0, 1)", self.delta)
        require(self.epsilon is None or self.epsilon > 0, "Parameter `epsilon`", "be positive", self.epsilon)
        one = self.epsilon is None or (self.noise_multiplier == 0 and self.clip is not None)
        found = f"epsilon = {self.epsilon}, noise_multiplier = {self.noise_multiplier}, clip = {self.clip}"
        require(one, "A method by its budget", "have a `clip` and no `noise_multiplier` beside it", found)

    def multiplier(self, rounds: int | None) -> float:
        """The noise over the length that is clipped to (and over 1/B). By a budget it is enough even if every
        round uses what is replaced. Errors: a budget for a run whose length is not known."""
        if self.epsilon is None:
            return self.noise_multiplier
        require(rounds is not None, "A method by its budget", "know the number of rounds", "none")
        return privacy.noise_multiplier(self.epsilon, self.delta, rounds or 1)

    def noise_share(self, rounds: int, batch: int | None) -> float | None:
        return self.multiplier(rounds)

    @abstractmethod
    def privacy(self, uses: Uses) -> tuple[Promise, ...]: ...

    def _budget(
        self,
        what: str,
        uses: Uses,
        weight: float | None,
        premises: Iterable[Premise] = (),
        spent: Callable[[float], float] | None = None,
    ) -> Promise:
        """ε when `what` happens, which moves what leaves a worker by 2 C/B in `weight` releases, or more in
        fewer, squares added up; None where that is not known. Or `spent(noise multiplier)`."""
        noise = self.multiplier(uses.rounds)
        settings = f"clip = {self.clip}, noise multiplier = {noise:.6g}"
        here = [
            checked_premise(
                "messages are clipped and get noise", noise > 0 and self.clip is not None, settings
            ),
            checked_premise(
                "the server owns no worker's loss", not uses.open, "one" if uses.open else "none"
            ),
            _apart(uses.pooled),
            *premises,
        ]
        if weight is None and spent is None:
            how = "the task does not say so"
            here.append(Premise("it is known how often batches hold a sample", Standing.UNKNOWN, how))
        good = all(premise.stands for premise in here)
        bound, remarks = None, [SIMULATED, "figures that are measured on training data are not covered"]
        if good and spent is not None:
            bound = spent(noise)
            remarks = [f"Poisson samples at a rate of at most {uses.rate:.4g}", *remarks]
        elif good:
            bound = privacy.gaussian_epsilon(self.delta, 2 * sqrt(weight or 0.0) / noise)
            remarks = [f"counts as {weight:g} releases", *remarks]
        mechanism = "Gaussian mechanism, arXiv:1805.06530"
        if spent is not None:
            mechanism = "Gaussian mechanism on Poisson samples, arXiv:1908.10530"
        return Promise(
            f"(ε, δ)-privacy of an honest worker's messages ({mechanism})",
            f"ε at δ = {self.delta:g}, {what}",
            tuple(here),
            {"noise_multiplier": noise},
            bound,
            remarks=tuple(remarks),
        )


def _apart(pooled: str | None) -> Premise:
    """That who replaces a sample, or a worker's data, changes no other sample and no other worker's."""
    what = "a worker's samples hold nothing of other samples and other workers'"
    if pooled is None:
        return Premise(what, Standing.UNKNOWN, "the task does not say so")
    return checked_premise(what, not pooled, pooled or "each made of itself and fixed numbers")


ALL = "all data of a worker replaced"
ONE = "one sample of a worker replaced"
MORE = "one sample of a worker added or taken away"


@METHODS.register("safe_dshb")
@dataclass(frozen=True)
class SafeDSHB(_Private):
    """Momentum SGD with clipped gradients and noise at each worker, behind a robust rule.

    `noise_multiplier` σ is the noise's standard deviation over C/B; or `epsilon` and `delta` set it so that
    what is clipped, a message or a sample's gradient, has that budget after all rounds, if every round uses
    it. `clip = None` without noise is `robust_sgdm`, to the last bit. Source: Safe-DSHB, Allouah et al.,
    arXiv:2302.04787; no constants of its convergence are known to us, and no bound on the loss is claimed.

    Args:
        eta: Weight η of the new gradient, in (0, 1].
        clip: Length C to which gradients are clipped; None: they are not.
        noise_multiplier: Noise over C/B, with B = 1 for a message.
        epsilon: ε of all rounds, in place of `noise_multiplier`.
        delta: δ of the budget.
        per: What is clipped: each "message", or each "sample".
        schedule: Factors of `lr` by round.
        sampling: Which samples: "walk", the round's minibatch, or "poisson", with `per` "sample": each of a
            worker's own by itself with probability B over their number, unseen, so that their privacy is
            better than that of the noise alone. The sum of clipped gradients is then divided by B.

    Examples:
        >>> from byzopt import Cohort, Quadratic, SafeDSHB, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = SafeDSHB(clip=2.0, noise_multiplier=0.1)
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    clip: float | None = 1.0
    noise_multiplier: float = 0.0
    epsilon: float | None = None
    delta: float = 1e-5
    eta: float = 0.1
    per: Per = "message"
    schedule: Schedule = Constant()
    sampling: Sampling = "walk"

    def __post_init__(self) -> None:
        require(0 < self.eta <= 1, "Parameter `eta` of safe_dshb", "lie in (0, 1]", self.eta)
        self.check()
        check_sampling(self.sampling, self.per, self.clip)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        noise = self.multiplier(rounds)
        worker = PrivateMomentum(self.eta, self.clip, noise, self.per, self.sampling)
        return Method(worker, Direct(), rule.as_filter(), Descent(lr, self.schedule.over(rounds)))

    def noise_share(self, rounds: int, batch: int | None) -> float | None:
        if self.per == "message":
            return self.multiplier(rounds)
        return None if batch is None else self.multiplier(rounds) / batch

    def privacy(self, uses: Uses) -> tuple[Promise, ...]:
        """What is guaranteed of one sample, and of all data of a worker."""
        if self.per == "message":
            return self._budget(ONE, uses, uses.shared), self._budget(ALL, uses, uses.rounds)
        if self.sampling == "poisson":
            return self._of_poisson(uses)
        whole = None if uses.batch is None else float(uses.rounds * uses.batch**2)
        return self._budget(ONE, uses, uses.weight), self._budget(ALL, uses, whole)

    def _of_poisson(self, uses: Uses) -> tuple[Promise, ...]:
        """What is guaranteed of one sample where each is drawn by itself, and of all data of a worker, of
        whom a round may hold everything."""
        rate, rounds = uses.rate, uses.rounds
        known = rate is not None and uses.most is not None
        how = "at most " + f"{rate:.4g}" if known else "the task does not say so"
        where = Standing.HOLDS if known else Standing.UNKNOWN
        premises = (
            Premise("it is known with which probability a sample is drawn", where, how),
            Premise("nobody sees which samples are drawn, nor how many", Standing.HOLDS, "sums over B alone"),
        )
        q = rate or 1.0
        added = self._budget(
            MORE, uses, None, premises, lambda noise: poisson_epsilon(q, noise, rounds, self.delta)
        )
        swapped = self._budget(
            ONE, uses, None, premises, lambda noise: replaced_epsilon(q, noise, rounds, self.delta)
        )
        whole = None if uses.most is None else float(rounds * uses.most**2)
        return added, swapped, self._budget(ALL, uses, whole)


@METHODS.register("clip21")
@dataclass(frozen=True)
class Clip21(_Private):
    """Clipped differences from an average, with noise, and averages of what came at the server.

    Clip21-SGD2M (arXiv:2502.11682; behind a rule arXiv:2603.23472). As differences shrink clipping stops to
    bind, where that of `safe_dshb` biases every gradient longer than C. In turn noise adds up: the server's
    m_i is g_i and η_u Σ ω. `clip = None` without noise is `byz_dm21` with `init = "zero"` and nothing
    compressed, to rounding. No constants of its theorem are known to us, and no bound on the loss is claimed.

    Args:
        eta_v: Weight of a gradient in the worker's average, in (0, 1].
        eta_u: Weight of a message in the averages of both ends, in (0, 1].
        clip: Length C to which differences are clipped; None: they are not.
        noise_multiplier: Noise over C.
        epsilon: ε of all rounds, in place of `noise_multiplier`.
        delta: δ of the budget.
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import Clip21, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = Clip21(clip=2.0, noise_multiplier=0.01)
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=40, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    clip: float | None = 1.0
    noise_multiplier: float = 0.0
    epsilon: float | None = None
    delta: float = 1e-5
    eta_v: float = 0.1
    eta_u: float = 0.1
    schedule: Schedule = Constant()

    def __post_init__(self) -> None:
        for name, value in (("eta_v", self.eta_v), ("eta_u", self.eta_u)):
            require(0 < value <= 1, f"Parameter `{name}` of clip21", "lie in (0, 1]", value)
        self.check()

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        wire = Clip21Wire(self.eta_u, self.clip, self.multiplier(rounds))
        step = Descent(lr, self.schedule.over(rounds))
        return Method(WorkerMomentum(self.eta_v), wire, rule.as_filter(), step)

    def privacy(self, uses: Uses) -> tuple[Promise, ...]:
        """What is guaranteed of all data of a worker, and so of any part of them."""
        return (self._budget("all data of a worker or a part of them replaced", uses, uses.rounds),)
