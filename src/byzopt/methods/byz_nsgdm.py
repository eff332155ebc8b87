"""Byz-NSGDM and its baselines (arXiv:2603.12512, Algorithm 1, Remark 1 and Section 6).

    honest i : v_i <- (1 - η) v_i + η g_i(x),  send v_i
    server   : v = Agg(v_1 .. v_n),  x <- x - γ_k v / ‖v‖

Assumptions: honest losses (L0, L1)-smooth, noise σ, heterogeneity ζ. Theory: `byzopt.theory.nsgdm`.
Where we differ from the released code: its MNIST and LM runs use `momentum="heavy_ball"`, its quartic
normalises first and keeps a heavy ball at the server (`order="normalise_then_momentum"` with
`momentum="heavy_ball"` and `cutoff=1e-10`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Literal

from byzopt.aggregators import Aggregator
from byzopt.errors import require
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.promised import guaranteed, over_pairs
from byzopt.methods.promises import steady
from byzopt.schedules import Constant, FixedHorizon, InverseSqrt, Schedule
from byzopt.servers import Descent, Euclidean, LMOStep, Norm
from byzopt.theory import inexact, nsgdm
from byzopt.theory.inexact import InexactOracle
from byzopt.theory.premises import (
    at_most,
    bounded_heterogeneity,
    checked_premise,
    constant_premise,
    convexity,
    covers,
    noise_premises,
    robust,
)
from byzopt.theory.promise import Constants, Premise, Promise, Standing, promise, strongest
from byzopt.wire import Direct
from byzopt.workers import Form, Plain, Start, WorkerMomentum


@METHODS.register("byz_nsgdm")
@dataclass(frozen=True)
class ByzNSGDM(MethodRecipe):
    """Normalised SGD with worker momentum: a step of length γ_k in `norm` along the robust aggregate.

    `eta` weight of the new gradient (the paper's 1 - β); `schedule` of γ_k (and of η_k where the theorem
    sets it); `momentum` convention; `start` of the average; `cutoff` below which an aggregate gives no step.
    `order="normalise_then_momentum"` moves the momentum to the server, behind the normalisation: another
    algorithm, in which `momentum` keeps its meaning and `start` has none.

    Args:
        eta: Weight of the new gradient in the workers' momentum, in (0, 1]; the paper's 1 - β.
        schedule: Factors of `lr` by round.
        norm: In which a step has length γ_k.
        momentum: Convention of the momentum: "average" or "heavy_ball".
        start: First message of the average: "zero" η g, or "first_gradient" g.
        order: Whether momentum comes before the normalisation, at the workers, or behind it, at the server.
        cutoff: Length of an aggregate up to which no step is taken.

    Examples:
        >>> from byzopt import ByzNSGDM, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = ByzNSGDM()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    eta: float = 0.1
    schedule: Schedule = InverseSqrt()
    norm: Norm = Euclidean()
    momentum: Form = "average"
    start: Start = "zero"
    order: Literal["momentum_then_normalise", "normalise_then_momentum"] = "momentum_then_normalise"
    cutoff: float = 0.0

    def __post_init__(self) -> None:
        later = self.order == "normalise_then_momentum"
        require(
            not later or self.start == "zero",
            "Parameter `start` of byz_nsgdm",
            "be 'zero' when the momentum follows the normalisation",
            self.start,
        )

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        schedule = self.schedule.over(rounds)
        if self.order == "normalise_then_momentum":
            step = LMOStep(lr, schedule, self.norm, self.cutoff, self.eta, self.momentum)
            return Method(Plain(), Direct(), rule.as_filter(), step)
        worker = WorkerMomentum(self.eta, self.momentum, self.start, schedule)
        return Method(worker, Direct(), rule.as_filter(), LMOStep(lr, schedule, self.norm, self.cutoff))

    def promise(self, known: Constants) -> Promise:
        """Theorem 1 where γ and η are those of `fixed_horizon`; its proof (derived) for other steps that do
        not grow, with constant η: the `inverse_sqrt` of the paper's experiments, a constant step, and a fixed
        horizon looked at before its end.

        V0 is mean‖∇f_i(x^0)‖ for a zero start and at most σ for `first_gradient`. Of all admissible (L0, L1)
        those count with which the theorem says most.
        """
        measures, fixed = "min ‖grad f‖", isinstance(self.schedule, FixedHorizon)
        horizon = self._horizon(known)
        as_published = fixed and known.rounds == horizon
        theorem = "Theorem 1 of arXiv:2603.12512" + (
            "" if as_published else ", its proof for other steps (derived)"
        )
        premises = [*self._covered(), *robust(known, "linear"), self._smooth(known)]
        premises += [bounded_heterogeneity(known), *noise_premises(known), constant_premise(known, "gap")]
        premises += [constant_premise(known, "start_rows")] if self.start == "zero" else []
        make = self._theorem if as_published else self._along
        return promise(
            theorem,
            measures,
            premises,
            lambda: strongest([make(known, l0, l1) for l0, l1 in known.smoothness]),
        )

    def _horizon(self, known: Constants) -> int:
        given = self.schedule.rounds if isinstance(self.schedule, FixedHorizon) else None
        return given or known.horizon or known.rounds

    def _covered(self) -> list[Premise]:
        kinds = (FixedHorizon, InverseSqrt, Constant)
        return covers(
            {
                "steps fixed for the horizon, falling as 1/√k, or constant": (
                    isinstance(self.schedule, kinds),
                    f"schedule {self.schedule.name}",
                ),
                "the norm is Euclidean": (isinstance(self.norm, Euclidean), self.norm.name),
                "the momentum is an average": (self.momentum == "average", self.momentum),
                "momentum comes before normalisation": (
                    self.order == "momentum_then_normalise",
                    self.order,
                ),
                "every aggregate but 0 makes a step": (self.cutoff == 0, f"cutoff = {self.cutoff:g}"),
            }
        )

    def _smooth(self, known: Constants) -> Premise:
        what = "the honest f_i are (L0, L1)-smooth"
        if not known.smoothness:
            return Premise(what, Standing.UNKNOWN, "l0 and l1 are not known")
        if {"l0", "l1"} <= known.exact:
            return Premise(what, Standing.HOLDS, "certain on this task")
        raised = any(note.startswith("l0") for note in known.notes)
        l0, l1 = known.smoothness[0]
        constants = f"L0 = {l0:.4g}, L1 = {l1:.4g}, seen at a few points"
        return Premise(
            what, Standing.ESTIMATED, constants + (" and raised to fit the path" if raised else "")
        )

    def _problem(
        self, known: Constants, l0: float, l1: float, start: float
    ) -> tuple[nsgdm.Problem, list[Premise]]:
        """The problem of the theorem with one (L0, L1), and the premise that Δ* is known where L1 > 0."""
        zero = self.start == "zero"
        problem = nsgdm.Problem(
            l0=l0,
            l1=l1,
            start_gap=known.gap or 0.0,
            honest=known.honest,
            zeta=known.zeta or 0.0,
            sigma=known.sigma or 0.0,
            star_gap=known.star_gap or 0.0,
            momentum_gap=(known.start_rows or 0.0) if zero else start,
        )
        return problem, [constant_premise(known, "star_gap")] if l1 else []

    def _theorem(self, known: Constants, l0: float, l1: float) -> Promise:
        """Theorem 1 itself: γ = γ0 T^(-3/4), η = T^(-1/2)."""
        kappa, p = known.kappa_linear or 0.0, getattr(self.schedule, "p", 2.0)
        problem, problem_premises = self._problem(known, l0, l1, known.sigma or 0.0)
        cap, best = nsgdm.max_gamma0(l1, kappa, known.rounds), nsgdm.best_gamma0(problem, kappa)
        step = at_most("γ0 is at most 1/(8 √(2 (1 + 2κ)) L1)", known.lr, cap, "the best admissible one")
        gamma0 = known.lr or best
        steps = {"lr": best} | ({"lr_most": cap} if cap < inf else {}) if 0 < best < inf else {}
        there = step.stands and 0 < gamma0 < inf
        bound = nsgdm.theorem_bound(problem, kappa, known.rounds, gamma0, p=p).total if there else None
        return self._told(known, l0, l1, (*problem_premises, step), steps, bound)

    def _along(self, known: Constants, l0: float, l1: float) -> Promise:
        """The same proof for the run's own steps, up to the round that is asked for."""
        kappa, filled = known.kappa_linear or 0.0, self.schedule.over(self._horizon(known))
        eta = filled.eta(1, self.eta)
        # v^1 = g_1 is an error σ that the proof counts from the round before.
        start = (known.sigma or 0.0) / (1 - eta) if eta < 1 else 0.0
        problem, problem_premises = self._problem(known, l0, l1, start)
        most = nsgdm.longest_step(l1) / filled.gamma(1)
        p = getattr(filled, "p", 2.0)
        plain = checked_premise("noise has a variance (p = 2)", p == 2.0, f"p = {p:g}")
        step = at_most("the first step is at most ln 2 / L1", known.lr, most)
        steps = {"lr_most": most} if most < inf else {}
        bound = None
        if known.lr is not None and step.stands and plain.stands:
            gammas = [known.lr * filled.gamma(k) for k in range(1, known.rounds + 1)]
            bound = nsgdm.bound_along(problem, kappa, gammas, eta).total
        lacks = ("no step is given",) if known.lr is None else ()
        premises = (
            (*problem_premises, plain, step)
            if isinstance(filled, FixedHorizon)
            else (*problem_premises, step)
        )
        result = self._told(known, l0, l1, premises, steps, bound)
        return replace(result, lacks=(*result.lacks, *lacks))

    def _told(
        self,
        known: Constants,
        l0: float,
        l1: float,
        premises: tuple[Premise, ...],
        steps: dict[str, float],
        bound: float | None,
    ) -> Promise:
        why = ": of all pairs (L0, L1) that fit, the one with the least bound"
        remarks = (f"with L0 = {l0:.4g}, L1 = {l1:.4g}{why if len(known.smoothness) > 1 else ''}",)
        floor = self._floor(known, l1)
        return Promise("", "", premises, steps, bound, floor, known.start_gradient, (), remarks)

    def _floor(self, known: Constants, l1: float) -> float | None:
        """What remains as rounds grow: 4κζ, and with a constant weight η its noise.

        None for a constant step, whose floor hangs on lr, and for steps that fall as 1/√k where the proof's
        weights fall as fast: Σ w_k γ_k has to grow without end, (8 + 32 q/η) (L1 γ0)² < 1/2.
        """
        kappa, sigma = known.kappa_linear or 0.0, known.sigma or 0.0
        floor = 4 * kappa * (known.zeta or 0.0)
        if isinstance(self.schedule, FixedHorizon):
            return floor
        growth = (8 + 32 * (1 + 2 * kappa) / self.eta) * (l1 * (known.lr or inf)) ** 2 if l1 else 0.0
        if not isinstance(self.schedule, InverseSqrt) or growth >= 0.5:
            return None
        return floor + sqrt(self.eta) * sigma * (2 / sqrt(known.honest) + 4 * kappa)


@METHODS.register("robust_sgdm")
@dataclass(frozen=True)
class RobustSGDM(MethodRecipe):
    """Momentum SGD with a robust rule: the paper's Baseline, and Baseline-Decay with `inverse_sqrt`.

    x <- x - γ_k Agg(v_1 .. v_n). The average is `eta` times as long as the heavy ball, so a rate tuned for
    one convention is 1/η off for the other.

    Args:
        eta: Weight of the new gradient, in (0, 1].
        schedule: Factors of `lr` by round.
        momentum: Convention of the momentum: "average" or "heavy_ball".
        start: First message of the average: "zero" η g, or "first_gradient" g.

    Examples:
        >>> from byzopt import Cohort, Quadratic, RobustSGDM, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = RobustSGDM()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    eta: float = 0.1
    schedule: Schedule = Constant()
    momentum: Form = "average"
    start: Start = "zero"

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        schedule = self.schedule.over(rounds)
        worker = WorkerMomentum(self.eta, self.momentum, self.start, schedule)
        return Method(worker, Direct(), rule.as_filter(), Descent(lr, schedule))

    def promise(self, known: Constants) -> Promise | None:
        """Theorem A where `eta` = 1 makes it descent; else no theorem is known."""
        if self.eta == 1:
            return RobustGD(self.schedule).promise(known)
        what = "there is no momentum (eta = 1)"
        return Promise("Theorem A", "gap", (checked_premise(what, False, f"eta = {self.eta:g}"),))


@METHODS.register("robust_gd")
@dataclass(frozen=True)
class RobustGD(MethodRecipe):
    """x <- x - γ_k Agg(g_1 .. g_n): gradient descent, stochastic if the task draws minibatches, no memory.

    Args:
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import Cohort, Quadratic, RobustGD, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = RobustGD()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    schedule: Schedule = Constant()

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        return Method(Plain(), Direct(), rule.as_filter(), Descent(lr, self.schedule.over(rounds)))

    def promise(self, known: Constants) -> Promise:
        """Theorem A for a constant step; where μ is unknown, its form without convexity. Each with 1/lr >= L
        for L."""
        premises = [steady(self.schedule), constant_premise(known, "lipschitz")]
        lipschitz = known.lipschitz or 0.0

        def edged(mu: float) -> tuple[Premise, float]:
            L = max(lipschitz, mu)
            step = at_most("the step is at most 1/L", known.lr, 1 / L if L else inf)
            return step, 1 / known.lr if known.lr and step.stands else L

        def strongly(oracle: InexactOracle) -> Promise:
            mu = known.mu or 0.0
            step, L = edged(mu)
            guarantee = inexact.gd(oracle, max(L, mu), mu)
            return guaranteed(known, oracle, replace(guarantee, steps={"lr": 1 / max(lipschitz, mu)}), [step])

        def plainly(oracle: InexactOracle) -> Promise:
            step, L = edged(0.0)
            below = checked_premise("α = κ₂ B² is below 1", oracle.alpha < 1, f"{oracle.alpha:.6g}")
            steps = {"lr": 1 / lipschitz} if lipschitz else {}
            if not below.stands:
                return Promise("", "", (step, below), steps)
            bound = inexact.gd_nonconvex(oracle, L, known.gap or 0.0, known.rounds)
            floor = oracle.zeta_squared / (1 - oracle.alpha)
            trivial = None if known.start_gradient is None else known.start_gradient**2
            return Promise("", "", (step, below), steps, bound, floor, trivial)

        if known.mu:
            return over_pairs(known, "Theorem A", "gap", [*premises, convexity(known)], strongly)
        theorem = "Theorem A without convexity"
        return over_pairs(
            known, theorem, "min ‖grad f‖²", [*premises, constant_premise(known, "gap")], plainly
        )
