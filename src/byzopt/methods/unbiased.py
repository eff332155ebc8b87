"""Baselines with an unbiased compressor Q, and two without compression but with variance reduction.

    br_csgd          m_i = Q(s_i)
    br_diana         m_i = Q(s_i - h_i),  row h_i + m_i,  h_i <- h_i + m_i/(1 + ω)
    byz_vr_marina    coin 1: ∇f_i(x);  coin 0: row ĝ + Q(Δ_i), ĝ the last aggregate       (arXiv:2206.00529)
    byz_vr_marina2   the same with each worker's own g_i as base                          (arXiv:2310.09804)
    byz_dasha_page   m_i = Q(h_new - h - a (g_i - h)),  row g_i <- g_i + m_i,  h by PAGE    (arXiv:2310.09804)
    br_lsvrg         row ∇ℓ_i(x) - ∇ℓ_i(w) + ∇f_i(w)                                      (arXiv:2303.04560)
    br_mvr           row v_i <- s_i + (1 - η)(v_i - s'_i), STORM                          (arXiv:1905.10018)

Assumptions: as in `byzopt.methods.byz_dm21`, with ω in place of α, and smooth sample losses for those that
reduce variance. Steps from theory: `byzopt.theory.compressed`, which `promise` fills in for the three in the
middle. For the others no theorem behind such a rule is known to us whose constants could be checked, and none
is claimed. Where we differ from releases: ω is the compressor's own; differences are taken on one sample; no
restart at epochs; one coin is tossed for all workers.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

from byzopt.aggregators import Aggregator
from byzopt.errors import require
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.promises import steady, step_promise, unbiased
from byzopt.schedules import Constant, Schedule
from byzopt.servers import Descent
from byzopt.theory import compressed
from byzopt.theory.premises import checked_premise
from byzopt.theory.promise import Constants, Promise
from byzopt.wire import Channel, Compressor, Dasha, Diana, Direct, Marina, Marina2, RandK
from byzopt.workers import LSVRG, Differences, Estimator, Page, Plain, Storm


class _Descending(MethodRecipe):
    """An estimator and a channel in front of x <- x - γ_k Agg."""

    schedule: Schedule

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        worker, wire = self.parts()
        return Method(worker, wire, rule.as_filter(), Descent(lr, self.schedule.over(rounds)))

    @abstractmethod
    def parts(self) -> tuple[Estimator, Channel]:
        """What workers compute, and how it crosses."""


@METHODS.register("br_csgd")
@dataclass(frozen=True)
class BRCSGD(_Descending):
    """Compressed SGD behind a robust rule: m_i = Q(s_i), no memory. `compressor` unbiased.

    Args:
        compressor: What messages are compressed by; unbiased, such as a scaled `rand_k`.
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import BRCSGD, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = BRCSGD()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    compressor: Compressor = RandK(ratio=0.1)
    schedule: Schedule = Constant()

    def parts(self) -> tuple[Estimator, Channel]:
        return Plain(), Direct(self.compressor)


@METHODS.register("br_diana")
@dataclass(frozen=True)
class BRDiana(_Descending):
    """DIANA behind a robust rule: compressed differences to a slow memory h_i. `beta` None: 1/(1 + ω).

    Args:
        compressor: What messages are compressed by; unbiased, such as a scaled `rand_k`.
        beta: Weight β of a message in the memories h_i, in (0, 1]; None: 1/(1 + ω).
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import BRDiana, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = BRDiana()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    compressor: Compressor = RandK(ratio=0.1)
    beta: float | None = None
    schedule: Schedule = Constant()

    def parts(self) -> tuple[Estimator, Channel]:
        return Plain(), Diana(self.compressor, self.beta)


@METHODS.register("byz_vr_marina")
@dataclass(frozen=True)
class ByzVRMarina(_Descending):
    """Byz-VR-MARINA: full gradients when a common coin falls, else compressed differences from ĝ.

    `p` chance of a full round. `differences`: `"sample"` on one minibatch (two gradients), `"full"` of full
    gradients. `compressor` unbiased. The base of differences is the last aggregate.

    Args:
        p: Chance of a full round, in (0, 1].
        compressor: What messages are compressed by; unbiased, such as a scaled `rand_k`.
        differences: Whether differences are of one "sample" or "full".
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import ByzVRMarina, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = ByzVRMarina()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    p: float = 0.1
    compressor: Compressor = RandK(ratio=0.1)
    differences: Literal["sample", "full"] = "sample"
    schedule: Schedule = Constant()

    def parts(self) -> tuple[Estimator, Channel]:
        return Differences(self.p, self.differences), Marina(self.compressor, self.p)

    def promise(self, known: Constants) -> Promise | None:
        """γ = 1/(L + √R) and p = min(1/passes, 1/d), for differences on a sample. R as released: doubtful.

        ℓ²/b, the variance of minibatch differences, is replaced by their mean square, which is no less.
        """
        omega, passes = self.compressor.omega(known.d) or 0.0, known.passes or 1.0
        p = compressed.marina_chance(passes, 1, known.d)

        def step(cdelta: float, G: int) -> float:
            L, Lt, sample = known.lipschitz or 0.0, known.local or 0.0, known.sample or 0.0
            return compressed.marina_step(L, Lt, sample, omega, cdelta, G, passes, 1, p)

        names = ("lipschitz", "local", "sample", "passes")
        doubt = "the last term of R lacks a squared smoothness: doubtful"
        kind = checked_premise("differences on a sample", self.differences == "sample", self.differences)
        premises = [unbiased(self.compressor, known), kind, steady(self.schedule)]
        return step_promise("Byz-VR-MARINA", known, names, step, {"p": p}, (doubt,), premises)


@METHODS.register("byz_vr_marina2")
@dataclass(frozen=True)
class ByzVRMarina2(_Descending):
    """Byz-VR-MARINA 2.0: as `byz_vr_marina`, each worker's own g_i being the base of its differences.

    The release takes full differences with p = 1/(ω + 1), which for rand_k is K/d: the defaults.

    Args:
        p: Chance of a full round, in (0, 1].
        compressor: What messages are compressed by; unbiased, such as a scaled `rand_k`.
        differences: Whether differences are of one "sample" or "full".
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import ByzVRMarina2, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = ByzVRMarina2()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    p: float = 0.1
    compressor: Compressor = RandK(ratio=0.1)
    differences: Literal["sample", "full"] = "full"
    schedule: Schedule = Constant()

    def parts(self) -> tuple[Estimator, Channel]:
        return Differences(self.p, self.differences), Marina2(self.compressor, self.p)

    def promise(self, known: Constants) -> Promise | None:
        """γ = 1/(L + ω Lt (1/√G + √(8 c δ))), for full differences with p = 1/(ω + 1)."""
        omega = self.compressor.omega(known.d) or 0.0

        def step(cdelta: float, G: int) -> float:
            return compressed.marina2_step(known.lipschitz or 0.0, known.local or 0.0, omega, cdelta, G)

        more = {"p": 1 / (omega + 1)}
        kind = checked_premise("full differences", self.differences == "full", self.differences)
        premises = [unbiased(self.compressor, known), kind, steady(self.schedule)]
        return step_promise(
            "Byz-VR-MARINA 2.0", known, ("lipschitz", "local"), step, more, recipe_premises=premises
        )


@METHODS.register("byz_dasha_page")
@dataclass(frozen=True)
class ByzDashaPage(_Descending):
    """Byz-DASHA-PAGE: PAGE's gradients, sent as compressed differences that also pull g_i towards h.

    `p` chance of a full gradient (the release: batch/samples); `a` None: 1/(2 ω + 1). `compressor` unbiased.

    Args:
        p: Chance of a full gradient in a round, in (0, 1].
        compressor: What messages are compressed by; unbiased, such as a scaled `rand_k`.
        a: Weight of the pull towards h, in (0, 1]; None: 1/(2 ω + 1).
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import ByzDashaPage, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = ByzDashaPage()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    p: float = 0.1
    compressor: Compressor = RandK(ratio=0.1)
    a: float | None = None
    schedule: Schedule = Constant()

    def parts(self) -> tuple[Estimator, Channel]:
        return Page(self.p), Dasha(self.compressor, self.a)

    def promise(self, known: Constants) -> Promise | None:
        """γ = 1/(L + √R), p = 1/passes, a = 1/(2 ω + 1); ℓ²/b as in `byz_vr_marina`."""
        omega, passes = self.compressor.omega(known.d) or 0.0, known.passes or 1.0

        def step(cdelta: float, G: int) -> float:
            L, Lt, sample = known.lipschitz or 0.0, known.local or 0.0, known.sample or 0.0
            return compressed.dasha_step(L, Lt, sample, omega, cdelta, G, passes, 1)

        more = {"p": 1 / max(1.0, passes), "a": 1 / (2 * omega + 1)}
        names = ("lipschitz", "local", "sample", "passes")
        premises = [unbiased(self.compressor, known), steady(self.schedule)]
        return step_promise("Byz-DASHA-PAGE", known, names, step, more, recipe_premises=premises)


@METHODS.register("br_lsvrg")
@dataclass(frozen=True)
class BRLSVRG(_Descending):
    """L-SVRG behind a robust rule, uncompressed. `p` chance that the reference point w moves.

    One coin for all workers, so that they share w: the server tosses it, one bit of the broadcast, and a full
    pass falls on all in the same round. (In arXiv:2303.04560 each worker tosses its own; what a row is, given
    its w, is the same.)

    Args:
        p: Chance in a round that the reference point w moves, in (0, 1].
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import BRLSVRG, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = BRLSVRG()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    p: float = 0.01
    schedule: Schedule = Constant()

    def parts(self) -> tuple[Estimator, Channel]:
        return LSVRG(self.p), Direct()


@METHODS.register("br_mvr")
@dataclass(frozen=True)
class BRMVR(_Descending):
    """STORM (momentum variance reduction) behind a robust rule, uncompressed. `eta` weight of the new.

    Args:
        eta: Weight η of the new gradient, in (0, 1].
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import BRMVR, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = BRMVR()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    eta: float = 0.1
    schedule: Schedule = Constant()

    def __post_init__(self) -> None:
        require(0 < self.eta <= 1, "Parameter `eta`", "lie in (0, 1]", self.eta)

    def parts(self) -> tuple[Estimator, Channel]:
        return Storm(self.eta), Direct()
