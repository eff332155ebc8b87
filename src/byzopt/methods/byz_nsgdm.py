"""Byz-NSGDM and its baselines (arXiv:2603.12512, Algorithm 1, Remark 1 and Section 6).

    honest i : v_i <- (1 - η) v_i + η g_i(x),  send v_i
    server   : v = Agg(v_1 .. v_n),  x <- x - γ_k v / ‖v‖

Assumptions: honest losses (L0, L1)-smooth, noise σ, heterogeneity ζ. Theory: `byzopt.theory.nsgdm`.
Where we differ from the released code: its MNIST and LM runs use `momentum="heavy_ball"`, its quartic
normalises first and keeps a heavy ball at the server (`order="normalise_then_momentum"` with
`momentum="heavy_ball"` and `cutoff=1e-10`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from byzopt.aggregators import Aggregator
from byzopt.errors import require
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.promised import oracle_of, promise_of, unknown
from byzopt.schedules import Constant, FixedHorizon, InverseSqrt, Schedule
from byzopt.servers import Descent, Euclidean, LMOStep, Norm
from byzopt.theory import inexact, nsgdm
from byzopt.theory.promise import Constants, Promise
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
        """Theorem 1, which covers `fixed_horizon` with the Euclidean norm and averaged momentum.

        V0 <= M + ζ for a zero start, <= σ for `first_gradient`. The step is the best admissible γ0.
        """
        missing = [f"{name} is not known" for name in self._needs(known) if getattr(known, name) is None]
        missing += [f"Theorem 1 covers {case} only" for case, other in self._outside().items() if other]
        theorem, measures = "Theorem 1 of arXiv:2603.12512", "min ‖grad f‖"
        if missing:
            return Promise(theorem, measures, missing=tuple(missing))
        kappa, zeta, sigma = known.kappa_linear or 0.0, known.zeta or 0.0, known.sigma or 0.0
        problem = nsgdm.Problem(
            l0=known.l0 or 0.0,
            l1=known.l1 or 0.0,
            start_gap=known.gap or 0.0,
            honest=known.n - known.f,
            zeta=zeta,
            sigma=sigma,
            star_gap=known.star_gap or 0.0,
            momentum_gap=(known.gradient or 0.0) + zeta if self.start == "zero" else sigma,
        )
        p = self.schedule.p if isinstance(self.schedule, FixedHorizon) else 2.0
        best = nsgdm.best_gamma0(problem, kappa)
        steps = {"lr": best} if 0 < best < inf else {}
        bound = nsgdm.bound(problem, kappa, known.rounds, best, p=p).total if steps else None
        return Promise(theorem, measures, steps, bound, 4 * kappa * zeta)

    def _needs(self, known: Constants) -> list[str]:
        needs = ["l0", "l1", "gap", "zeta", "sigma", "kappa_linear"]
        needs += ["star_gap"] if known.l1 else []
        return needs + (["gradient"] if self.start == "zero" else [])

    def _outside(self) -> dict[str, bool]:
        """What the theorem covers, and whether this recipe is something else."""
        return {
            "schedule fixed_horizon": not isinstance(self.schedule, FixedHorizon),
            "norm euclidean": not isinstance(self.norm, Euclidean),
            "averaged momentum": self.momentum != "average",
            "order momentum_then_normalise": self.order != "momentum_then_normalise",
            "cutoff 0": self.cutoff > 0,
        }


@METHODS.register("robust_sgdm")
@dataclass(frozen=True)
class RobustSGDM(MethodRecipe):
    """Momentum SGD with a robust rule: the paper's Baseline, and Baseline-Decay with `inverse_sqrt`.

    x <- x - γ_k Agg(v_1 .. v_n). The average is `eta` times as long as the heavy ball, so a rate tuned for
    one convention is 1/η off for the other.
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
        reason = "no theorem covers momentum SGD with a robust rule under these assumptions"
        return Promise("none", "gap", missing=(reason,))


@METHODS.register("robust_gd")
@dataclass(frozen=True)
class RobustGD(MethodRecipe):
    """x <- x - γ_k Agg(g_1 .. g_n): gradient descent, stochastic if the task draws minibatches, no memory."""

    schedule: Schedule = Constant()

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        return Method(Plain(), Direct(), rule.as_filter(), Descent(lr, self.schedule.over(rounds)))

    def promise(self, known: Constants) -> Promise:
        """Theorem A for a constant step; where μ is unknown, its form without convexity."""
        if not isinstance(self.schedule, Constant):
            return Promise("Theorem A", "gap", missing=("Theorem A covers schedule constant only",))
        if known.mu or known.lipschitz is None or known.gap is None:
            mu, lipschitz = known.mu or 0.0, known.lipschitz or 0.0
            needs = ("lipschitz", "mu")
            return promise_of(
                known, "Theorem A", needs, lambda oracle: inexact.gd(oracle, max(lipschitz, mu), mu)
            )
        oracle, missing = oracle_of(known), unknown(known)
        theorem, measures = "Theorem A without convexity", "min ‖grad f‖²"
        if oracle is None or oracle.alpha >= 1:
            return Promise(theorem, measures, missing=missing or ("α = κ B² is not below 1",))
        bound = inexact.gd_nonconvex(oracle, known.lipschitz, known.gap, known.rounds)
        floor = oracle.zeta_squared / (1 - oracle.alpha)
        return Promise(theorem, measures, {"lr": 1 / known.lipschitz}, bound, floor)
