"""Methods with error feedback that came before Byz-DM21: Byz-EF21, its two-way form, EF21-SGDM, EF-sign.

    byz_ef21       c_i = C(∇f_i(x) - g_i)                         full gradients (arXiv:2310.09804)
    byz_ef21_bc    the same at w <- w + C_s(x - w), broadcast     (arXiv:2310.09804)
    byz_ef21_sgdm  v_i <- (1 - η) v_i + η s_i,  c_i = C(v_i - g_i)    (arXiv:2409.08640)
    ef_sign        c_i = C(s_i + e_i),  e_i <- s_i + e_i - c_i    classic feedback (arXiv:1901.09847)

In the first three g_i <- g_i + c_i at both ends and the server steps along Agg(g_1 .. g_n); ef_sign's server
aggregates the c_i. Steps from theory: `byzopt.theory.compressed`, `byzopt.theory.byz_dm21`. Where we differ:
a released EF21-SGDM never updates g_i; here it does. No theorem is claimed for byz_ef21_bc and ef_sign: none
behind such a rule is known to us whose constants could be checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from byzopt.aggregators import Aggregator
from byzopt.errors import require
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.byz_dm21 import STARTS, Init, feedback
from byzopt.methods.promises import contracts, single_promise, steady, step_promise
from byzopt.schedules import Constant, Schedule
from byzopt.servers import Descent
from byzopt.theory import compressed
from byzopt.theory.promise import Constants, Promise
from byzopt.wire import EF21P, Broadcast, Compressor, Downlink, ErrorFeedback, Opening, ScaledSign, TopK
from byzopt.workers import Full, Plain, WorkerMomentum

OPENINGS: dict[str, Opening] = {"first": "compressed", "released": "raw"}


@METHODS.register("byz_ef21")
@dataclass(frozen=True)
class ByzEF21(MethodRecipe):
    """EF21 on full gradients. `init`: `"first"` g_i = C(∇f_i(x^0)); `"released"` ∇f_i(x^0) sent raw.

    Args:
        compressor: What messages are compressed by; contractive, such as `top_k`.
        init: How the g_i begin: "first" compressed, "released" raw.
        schedule: Factors of `lr` by round.
        shortcut: Whether the server keeps the mean of the g_i only, which is right for the mean alone.

    Examples:
        >>> from byzopt import ByzEF21, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = ByzEF21()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    compressor: Compressor = TopK(ratio=0.1)
    init: Literal["first", "released"] = "first"
    schedule: Schedule = Constant()
    shortcut: bool = False

    def __post_init__(self) -> None:
        require(self.init in OPENINGS, "Parameter `init`", f"be in {tuple(OPENINGS)}", repr(self.init))

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        wire = feedback(self.compressor, OPENINGS[self.init], self.shortcut, rule)
        step = Descent(lr, self.schedule.over(rounds))
        return Method(Full(), wire, rule.as_filter(), step, self.downlink())

    def downlink(self) -> Downlink:
        """How the server's point reaches the workers."""
        return Broadcast()

    def promise(self, known: Constants) -> Promise | None:
        """γ = 1/(L + (2/α)(1 + √(8 c δ)) Lt)."""

        def step(cdelta: float, G: int) -> float:
            alpha = self.compressor.alpha(known.d) or 0.0
            return compressed.ef21_step(known.lipschitz or 0.0, known.local or 0.0, alpha, cdelta)

        premises = [contracts(self.compressor, known), steady(self.schedule)]
        return step_promise("Byz-EF21", known, ("lipschitz", "local"), step, recipe_premises=premises)


@METHODS.register("byz_ef21_bc")
@dataclass(frozen=True)
class ByzEF21BC(ByzEF21):
    """Byz-EF21 with a compressed broadcast too: workers evaluate at w <- w + C_s(x - w), w = x^0 first.

    Args:
        compressor: What messages are compressed by; contractive, such as `top_k`.
        init: How the g_i begin: "first" compressed, "released" raw.
        schedule: Factors of `lr` by round.
        shortcut: Whether the server keeps the mean of the g_i only, which is right for the mean alone.
        down: What the broadcast is compressed by; contractive.

    Examples:
        >>> from byzopt import ByzEF21BC, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = ByzEF21BC()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    down: Compressor = TopK(ratio=0.1)

    def downlink(self) -> Downlink:
        """EF21-P."""
        return EF21P(self.down)

    def promise(self, known: Constants) -> Promise | None:
        """None: we know no theorem with both ways compressed whose constants we could check."""
        return None


@METHODS.register("byz_ef21_sgdm")
@dataclass(frozen=True)
class ByzEF21SGDM(MethodRecipe):
    """EF21 on one average of stochastic gradients. `eta` weight of the new; `init` as in `byz_dm21`.

    Args:
        eta: Weight of the new gradient in the average, in (0, 1].
        compressor: What messages are compressed by; contractive, such as `top_k`.
        init: How states begin: "first", "zero" or "released".
        schedule: Factors of `lr` by round.
        shortcut: Whether the server keeps the mean of the g_i only, which is right for the mean alone.

    Examples:
        >>> from byzopt import ByzEF21SGDM, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = ByzEF21SGDM()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    eta: float = 0.1
    compressor: Compressor = TopK(ratio=0.1)
    init: Init = "first"
    schedule: Schedule = Constant()
    shortcut: bool = False

    def __post_init__(self) -> None:
        require(0 < self.eta <= 1, "Parameter `eta`", "lie in (0, 1]", self.eta)
        require(self.init in STARTS, "Parameter `init`", f"be in {tuple(STARTS)}", repr(self.init))

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        start, opening = STARTS[self.init]
        wire = feedback(self.compressor, opening, self.shortcut, rule)
        worker = WorkerMomentum(self.eta, "average", start)
        return Method(worker, wire, rule.as_filter(), Descent(lr, self.schedule.over(rounds)))

    def promise(self, known: Constants) -> Promise | None:
        """Our own derivation: step and floor of mean ‖∇f‖²."""
        return single_promise(self.eta, self.compressor, known, [steady(self.schedule)])


@METHODS.register("ef_sign")
@dataclass(frozen=True)
class EFSign(MethodRecipe):
    """Classic error feedback of stochastic gradients, with the scaled sign unless told otherwise.

    Args:
        compressor: What messages are compressed by.
        schedule: Factors of `lr` by round.

    Examples:
        >>> from byzopt import Cohort, EFSign, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = EFSign()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    compressor: Compressor = ScaledSign()
    schedule: Schedule = Constant()

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        wire = ErrorFeedback(self.compressor)
        return Method(Plain(), wire, rule.as_filter(), Descent(lr, self.schedule.over(rounds)))
