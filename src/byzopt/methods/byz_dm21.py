"""Byz-DM21 and Byz-VR-DM21 (arXiv:2603.15144): error feedback with double momentum behind a robust rule.

    honest i : s_i a stochastic gradient at x
               v_i <- (1 - η_v) v_i + η_v s_i           (VR: v_i <- s_i + (1 - η_v)(v_i - s'_i))
               u_i <- (1 - η_u) u_i + η_u v_i,  c_i = C(u_i - g_i),  g_i <- g_i + c_i,  send c_i
    server   : g_i <- g_i + c_i for every i,  x <- x - γ Agg(g_1 .. g_n)

η are weights of the new (the released code's `momentum` is 1 - η); s'_i is the gradient on the same sample at
the point of the round before. Assumptions: f L-smooth, noise σ per worker, heterogeneity ζ, a contractive C,
a (f, κ₂)-robust rule; for VR also smooth sample losses. No large batch is needed.

Steps from theory: `byzopt.theory.byz_dm21` (our own derivation; the paper's conditions were not available to
us). Two averages are stable for γ L < 1/((1 - η_v)(1 - η_u)) - 1, about 2 η, while one is for about 4/η:
a rate tuned for single momentum may be far too large here (`byzopt.theory.averaging.limit`).

Where we differ: the released code has two starts, `init="zero"` and `init="released"` (a first step of length
0); the default is `init="first"`. With equal weights we could not reproduce the rate O(ε⁻³) of
the VR form; `weights="ratio"`, η_u = √η_v, gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal, TypeAlias

from byzopt.aggregators import Aggregator
from byzopt.errors import require
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.promises import double_promise, reduced_promise, steady
from byzopt.schedules import Constant, Schedule
from byzopt.servers import Descent
from byzopt.theory.premises import checked_premise
from byzopt.theory.promise import Constants, Promise
from byzopt.wire import EF21, Compressor, Opening, TopK
from byzopt.workers import DoubleMomentum, Start, Storm

Init: TypeAlias = Literal["first", "zero", "released"]
STARTS: dict[Init, tuple[Start, Opening]] = {
    "first": ("first_gradient", "compressed"),
    "zero": ("zero", "compressed"),
    "released": ("first_gradient", "silent"),
}


def feedback(compressor: Compressor, opening: Opening, shortcut: bool, rule: Aggregator) -> EF21:
    """The EF21 wire; with `shortcut` the server keeps the mean of the g_i only. Errors: another rule then."""
    remedy = "Use shortcut = false: a rule that is not linear needs every g_i."
    name = getattr(rule, "name", type(rule).__name__)
    require(not shortcut or name == "mean", "The rule behind `shortcut`", "be mean", name, remedy)
    return EF21(compressor, opening, shortcut)


@METHODS.register("byz_dm21")
@dataclass(frozen=True)
class ByzDM21(MethodRecipe):
    """EF21 with an average of an average of stochastic gradients: one gradient, one compressed message.

    `eta` is both weights of the new; `eta_v` (first average) and `eta_u` (second) override it. With
    `weights="equal"` one that is given alone is both; `weights="ratio"` makes the second √η_v where it is not
    given. `compressor` contractive. `init`: `"first"` v = u = s, g = C(u); `"zero"` v = η_v s, u = η_u η_v s,
    g = C(u); `"released"` v = u = g = s at both ends, while the server's rows are 0 in round 1 alone: it
    costs d floats, and x stays at x^0 for a round. `shortcut`: the server keeps mean g_i only, for the mean
    alone.

    Args:
        eta: Weight of the new in both averages, in (0, 1].
        eta_v: Weight in the first average, in place of `eta`.
        eta_u: Weight in the second average, in place of `eta`.
        weights: How the other weight follows where one alone is given: "equal" or "ratio".
        compressor: What messages are compressed by; contractive, such as `top_k`.
        init: How states begin: "first", "zero" or "released".
        schedule: Factors of `lr` by round.
        shortcut: Whether the server keeps the mean of the g_i only, which is right for the mean alone.

    Examples:
        >>> from byzopt import ByzDM21, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = ByzDM21()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    eta: float = 0.1
    eta_v: float | None = None
    eta_u: float | None = None
    weights: Literal["equal", "ratio"] = "equal"
    compressor: Compressor = TopK(ratio=0.1)
    init: Init = "first"
    schedule: Schedule = Constant()
    shortcut: bool = False

    def __post_init__(self) -> None:
        for name, value in (("eta", self.eta), ("eta_v", self.eta_v), ("eta_u", self.eta_u)):
            require(value is None or 0 < value <= 1, f"Parameter `{name}`", "lie in (0, 1]", value)
        kinds = ("equal", "ratio")
        require(self.weights in kinds, "Parameter `weights`", f"be in {kinds}", repr(self.weights))
        require(self.init in STARTS, "Parameter `init`", f"be in {tuple(STARTS)}", repr(self.init))

    @property
    def both(self) -> tuple[float, float]:
        """η_v and η_u as they are used."""
        if self.weights == "equal":
            other = self.eta_v or self.eta_u or self.eta  # weights are positive
            return self.eta_v or other, self.eta_u or other
        v = self.eta_v or self.eta
        return v, self.eta_u or sqrt(v)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        start, opening = STARTS[self.init]
        wire = feedback(self.compressor, opening, self.shortcut, rule)
        worker = self.worker(*self.both, start)
        return Method(worker, wire, rule.as_filter(), Descent(lr, self.schedule.over(rounds)))

    def worker(self, eta_v: float, eta_u: float, start: Start) -> DoubleMomentum | Storm:
        """The estimator."""
        return DoubleMomentum(eta_v, eta_u, start)

    def promise(self, known: Constants) -> Promise | None:
        """Our own derivation: step, bound and floor of mean ‖∇f‖²."""
        begun = checked_premise(
            "the start is v = u = s, g = C(u)", self.init == "first", f"init = {self.init}"
        )
        return double_promise(self.both, self.compressor, known, [begun, steady(self.schedule)])


@METHODS.register("byz_vr_dm21")
@dataclass(frozen=True)
class ByzVRDM21(ByzDM21):
    """As `byz_dm21`, with STORM's correction in the first average: two gradients on one sample a round.

    With exact gradients v_i = ∇f_i in every round. It tolerates the steps of single momentum with η_u.

    Args:
        eta: Weight of the new in both averages, in (0, 1].
        eta_v: Weight in the first average, in place of `eta`.
        eta_u: Weight in the second average, in place of `eta`.
        weights: How the other weight follows where one alone is given: "equal" or "ratio".
        compressor: What messages are compressed by; contractive, such as `top_k`.
        init: How states begin: "first", "zero" or "released".
        schedule: Factors of `lr` by round.
        shortcut: Whether the server keeps the mean of the g_i only, which is right for the mean alone.

    Examples:
        >>> from byzopt import ByzVRDM21, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = ByzVRDM21()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    def worker(self, eta_v: float, eta_u: float, start: Start) -> Storm:
        """The estimator."""
        return Storm(eta_v, eta_u, start)

    def promise(self, known: Constants) -> Promise | None:
        """What is known and what is not: no step is claimed."""
        return reduced_promise(self.both)
