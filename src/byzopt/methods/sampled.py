"""Methods for samples of the workers, through rounds in which most of a sample lie.

    byz_vr_marina_pp : coin 1 (p): g <- Agg(∇f_i(x), i in a sample of Ĉ)
                       coin 0    : g <- g + Agg(clip_λ(Q(Δ_i)), i in a sample of C), λ = a ‖x - x_old‖
    demoa            : m_i <- (1 - η p) m_i + η s_i if sampled, else (1 - η p) m_i;  Agg(m_1 .. m_n)
    rosdhb           : m_i <- (1 - η) m_i + η (d/K) M s_i at the server, one mask M for all;  Agg(m_1 .. m_n)
    each             : x <- x - γ_k times that

Sources: Malinovsky et al., arXiv:2311.14127 (its text); Otsuka, Takezawa, Yamada, arXiv:2509.02970 (from
notes); Gupta et al., arXiv:2508.17129 (its released code). Theory: `byzopt.theory.sampling`.

Where we differ: the printed D̃ of Theorem 4.1 has Ĉ = n in both of its cases, of which the second must be
Ĉ < n; we give its bound where there is no heterogeneity, and D̃ has no part. The first version of DeMoA's
paper keeps the momentum of absentees as it is (`absentees = "kept"`): the variance that absence adds is then
η² p (1 - p) ‖s - m‖² a round, against η² p (1 - p) ‖s‖² where it fades. Which ends lower hangs on the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from byzopt.aggregators import Aggregator, ClippedChanges, LastRows, PresentRows, RowMomentum
from byzopt.errors import require
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.promises import steady
from byzopt.schedules import Constant, Schedule
from byzopt.servers import Descent
from byzopt.theory import sampling
from byzopt.theory.premises import at_most, bounded_heterogeneity, checked_premise, constant_premise
from byzopt.theory.promise import Constants, Premise, Promise, Standing, promise
from byzopt.wire import Compressor, Direct, Identity, Marina, SharedRandK
from byzopt.workers import Bernoulli, Coined, Differences, Plain, SampledMomentum, WorkerMomentum


@METHODS.register("byz_vr_marina_pp")
@dataclass(frozen=True)
class ByzVRMarinaPP(MethodRecipe):
    """Byz-VR-MARINA for samples of the workers: the server clips differences to λ = `a` ‖x - x_old‖.

    `count` C workers take part in a round, `whole` Ĉ where the common coin falls and in round 1 (None: all).
    The rule runs on those who came, and tolerates `tolerated` of them, by default as many as it is set to, or
    the most that so few allow. Theorem 4.1: `a` = 2 L for smooth f_i; 4.2: D_Q L where ‖Q(v)‖ <= D_Q ‖v‖.
    `count` n and `a` infinite (None) is `byz_vr_marina`. A client that was absent needs the point before the
    last one too, which the ledger does not count.

    Args:
        a: Bound on differences in units of the step of x, > 0; None: nothing is cut.
        count: Number C of workers in a round.
        whole: Number Ĉ of them in rounds of the coin; None: all.
        p: Probability of the coin, in (0, 1].
        compressor: What differences are compressed by; unbiased.
        differences: Whether they are of one "sample" or "full".
        tolerated: Faulty rows tolerated in a sample; None: as the rule is set.
        cdelta: c δ of the rule on C rows, for the theorem; None: not known.
        reach: F of the rule, for the theorem: how much longer than the longest row its answer may be.
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import ByzVRMarinaPP, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = ByzVRMarinaPP(a=2.0, count=8)
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    a: float | None = 2.0
    count: int = 4
    whole: int | None = None
    p: float = 0.1
    compressor: Compressor = Identity()
    differences: Literal["sample", "full"] = "sample"
    tolerated: int | None = None
    cdelta: float | None = None
    reach: float = 1.0
    schedule: Schedule = Constant()

    def __post_init__(self) -> None:
        require(self.a is None or self.a > 0, "Parameter `a` of byz_vr_marina_pp", "be positive", self.a)
        self._participants()

    def _participants(self) -> Coined:
        return Coined(self.count, self.whole, self.p, tolerated=self.tolerated)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        present = PresentRows(rule.as_filter(), self.tolerated)
        filter = ClippedChanges(present, self.a, self.p) if self.a is not None else present
        step = Descent(lr, self.schedule.over(rounds))
        worker, wire = Differences(self.p, self.differences, anew=True), Marina(self.compressor, self.p)
        return Method(worker, wire, filter, step, participants=self._participants())

    def promise(self, known: Constants) -> Promise:
        """Theorem 4.1: the step, and where the honest losses are alike and gradients full its bound."""
        L, delta = known.l0 or 0.0, (self.tolerated or known.f) / max(self.count, 1)
        whole = known.n if self.whole is None else self.whole
        plain = self.differences == "full" and type(self.compressor) is Identity
        told = "c δ of the rule on C rows is known"
        premises = [
            Premise(told, Standing.ESTIMATED, f"{self.cdelta:g} and F = {self.reach:g}, as the recipe says")
            if self.cdelta is not None
            else Premise(told, Standing.UNKNOWN, "the recipe's `cdelta` is not set"),
            checked_premise("the rule bears less than half of a sample", 0 < delta < 0.5, f"δ = {delta:g}"),
            checked_premise(
                "Ĉ >= δ_real n/δ, so that rounds of the coin are sound",
                delta > 0 and whole * delta >= (known.n - known.honest) - 1e-9,
                f"Ĉ = {whole}",
            ),
            checked_premise("differences are full and not compressed", plain, self.differences),
            _smooth(known),
            constant_premise(known, "gap"),
            steady(self.schedule),
        ]

        def bound() -> Promise:
            sizes = (known.n, known.honest, self.count, delta, self.p, self.cdelta or 0.0, self.reach)
            longest = sampling.marina_pp_step(L, sampling.marina_pp_constant(*sizes))
            a = self.a if self.a is not None else float("inf")
            held = [
                checked_premise("a is 2 L at least", a >= 2 * L * (1 - 1e-9), f"a = {a:g}, 2 L = {2 * L:g}"),
                at_most("the step is at most 1/(L (1 + √A))", known.lr, longest),
                bounded_heterogeneity(known),
            ]
            gamma, alike = known.lr or longest, not known.zeta
            value = 2 * (known.gap or 0.0) / (gamma * known.rounds) if alike else None
            lacks = () if alike else ("the constant D̂ of ζ² is not known to us",)
            trivial = None if known.start_gradient is None else known.start_gradient**2
            return Promise(
                "", "", tuple(held), {"lr": longest, "a": 2 * L}, value, trivial=trivial, lacks=lacks
            )

        return promise("Theorem 4.1 of arXiv:2311.14127", "mean ‖∇f‖²", premises, bound)


def _smooth(known: Constants) -> Premise:
    what = "every f_i is L-smooth"
    if known.l0 is None or known.l1 is None:
        return Premise(what, Standing.UNKNOWN, "l0 and l1 are not known")
    if known.l1:
        return Premise(what, Standing.FAILS, f"(L0, L1)-smooth with L1 = {known.l1:g}")
    exact = {"l0", "l1"} <= known.exact
    return Premise(what, Standing.HOLDS if exact else Standing.ESTIMATED, f"L = {known.l0:.6g}")


@METHODS.register("demoa")
@dataclass(frozen=True)
class DeMoA(MethodRecipe):
    """Momentum of sampled workers, and the rule on everybody's: that of absentees as it fades, or as it was.

    Each worker takes part with probability `p`. With "fade" m_i <- (1 - η p) m_i + η s_i if sampled, else
    (1 - η p) m_i. With "kept" (the first version of the paper): (1 - η) m_i + η s_i if sampled, else m_i. The
    server holds everybody's last m_i, also the last that a liar sent. p = 1 is worker momentum. The paper
    asks for δ < min(1/2, 1/(60 c (B² + η (1 - p)))) and has a floor of order c δ ζ²; we know that from notes,
    and claim no bound.

    Args:
        p: Probability that a worker takes part in a round, in (0, 1].
        eta: Weight η of the new gradient, in (0, 1].
        absentees: What becomes of their momentum: "fade" or "kept".
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import Cohort, DeMoA, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = DeMoA(p=0.5)
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    p: float = 0.5
    eta: float = 0.1
    absentees: Literal["fade", "kept"] = "fade"
    schedule: Schedule = Constant()

    def __post_init__(self) -> None:
        for name, value in (("p", self.p), ("eta", self.eta)):
            require(0 < value <= 1, f"Parameter `{name}` of demoa", "lie in (0, 1]", value)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        fades = self.absentees == "fade"
        worker = SampledMomentum(self.eta, self.p) if fades else WorkerMomentum(self.eta)
        decay = 1 - self.eta * self.p if fades else 1.0
        filter = LastRows(rule.as_filter(), decay, from_zero=True)
        step = Descent(lr, self.schedule.over(rounds))
        return Method(worker, Direct(), filter, step, participants=Bernoulli(self.p))


@METHODS.register("rosdhb")
@dataclass(frozen=True)
class RoSDHB(MethodRecipe):
    """RoSDHB: K coordinates, the same of all workers, and momentum of each worker's rows at the server.

    One mask for all multiplies what lies between honest rows by d/K at most; masks of their own add
    (d/K - 1)‖s‖² to it, in which attackers hide. K = d is momentum SGD. No constants of its theorem are known
    to us, and no bound is claimed.

    Args:
        compressor: What messages are compressed by; unbiased. In the paper one draw for all workers.
        eta: Weight η of the new row in the server's averages, in (0, 1].
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import Cohort, Quadratic, RoSDHB, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = RoSDHB()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    compressor: Compressor = SharedRandK(ratio=0.1)
    eta: float = 0.1
    schedule: Schedule = Constant()

    def __post_init__(self) -> None:
        require(0 < self.eta <= 1, "Parameter `eta` of rosdhb", "lie in (0, 1]", self.eta)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        filter = RowMomentum(rule.as_filter(), self.eta)
        return Method(Plain(), Direct(self.compressor), filter, Descent(lr, self.schedule.over(rounds)))
