"""Optimisation under similarity on a robust gradient: PIGS and its acceleration (arXiv:2602.03329).

    honest i : send ∇L_i(point asked at)
    server   : g = Agg(rows);  x <- argmin ⟨g - ∇q(x_k), x⟩ + q(x) + ‖x - x_k‖²/(2η), inexactly

q is a trusted loss that the server owns (the task's `proxy`): one honest worker's, or that of the server's
own samples. Symbols: Δ smoothness of L - q, μ strong convexity of L, ζ² = κ G², α = κ B². Rounds grow with
Δ/μ, not with L/μ; a biased q enlarges Δ and does not move the fixed points, which are the zeros of g.
Inner steps cost no round and are reported apart. Theory: `byzopt.theory.inexact`, Theorems C and D.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

from byzopt.aggregators import Aggregator
from byzopt.errors import require
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.promised import promise_of
from byzopt.servers import LBFGS, ExtragradientProx, Inner, SimilarityProx
from byzopt.servers.inner import Rule
from byzopt.theory import inexact
from byzopt.theory.promise import Constants, Promise
from byzopt.wire import Direct
from byzopt.workers import Plain


@METHODS.register("pigs")
@dataclass(frozen=True)
class PIGS(MethodRecipe):
    """x <- argmin ⟨g - ∇q(x_k), x⟩ + q(x) + ‖x - x_k‖²/(2η): called FedProxProx in the released code.

    η is lr, set by hand (32 .. 1 in the released runs); where `delta` is given, η = lr/(4 max(Δ, `mu`)), so
    that lr = 1 is Theorem C's step, or with `longer` lr · 0.65/max(Δ, μ), which wants `sec` >= 10.
    `inner` solves the subproblem to ‖∇φ‖² <= max(‖x - x_k‖²/(4η² `sec`), `tol`), or with `stop` "absolute"
    to `tol`, with "machine" to machine precision. Needs a task with a proxy.
    """

    delta: float | None = None
    mu: float = 0.0
    longer: bool = False
    inner: Inner = LBFGS()
    stop: Rule = "relative"
    sec: float = 10.0
    tol: float = 1e-10

    def __post_init__(self) -> None:
        _check(self.delta, self.mu)
        require(
            not self.longer or self.delta is not None, "`longer` of pigs", "come with `delta`", self.delta
        )

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        scale = 1.0 if self.delta is None else inexact.pigs_eta(self.delta, self.mu, self.longer)
        step = SimilarityProx(scale * lr, self.inner, self.stop, self.sec, self.tol)
        return Method(Plain(), Direct(), rule.as_filter(), step)

    def promise(self, known: Constants) -> Promise:
        """Theorem C, or its longer step. L only enters the start of the bound."""
        delta, mu = known.delta or 0.0, known.mu or 0.0
        return promise_of(
            known,
            "Theorem C",
            ("delta", "mu"),
            lambda oracle: inexact.pigs(oracle, delta, mu, self.longer, known.lipschitz),
        )


@METHODS.register("aeg_prox")
@dataclass(frozen=True)
class AEGProx(MethodRecipe):
    """The accelerated extragradient whose slow step is PIGS's subproblem: order √(Δ'/μ) rounds, two each.

        y = τ z + (1 - τ) x,  x <- argmin ⟨g(y) - ∇q(y), x⟩ + q(x) + ‖x - y‖²/(2θ);
        z <- z + b (x - z) - η g(x);   answers x

    θ is lr, set by hand; where `delta` is given, θ = lr/(4Δ'), Δ' = max(Δ, μ, 1.55 √α L) with `alpha` and
    `lipschitz`: the relative error at the extrapolated point scales with L, so that stepping by Δ itself
    needs α <= (5/12)(Δ/L)². Δ' is reported. Factors (0.3 √2, 0.36) are Theorem D's: τ = 0.15 s',
    η = 0.3 s'/μ, b = 0.3 s', α <= min(1/100, s'/6), s' = √(μ/Δ'). τ, η, b from θ and `mu` as in
    `accelerated_extragradient`; the inner solve as in `pigs`. Needs a task with a proxy.
    """

    mu: float = 0.01
    delta: float | None = None
    alpha: float = 0.0
    lipschitz: float = 0.0
    tau_factor: float = 0.3 * sqrt(2)
    fast_factor: float = 0.36
    inner: Inner = LBFGS()
    stop: Rule = "relative"
    sec: float = 10.0
    tol: float = 1e-10

    def __post_init__(self) -> None:
        _check(self.delta, self.mu)
        scaled = self.alpha == 0 or self.delta is None or self.lipschitz > 0
        require(scaled, "`alpha` of aeg_prox", "come with `lipschitz`, the smoothness L", self.lipschitz)
        found = (self.alpha, self.lipschitz)
        good = all(isfinite(value) and value >= 0 for value in found)
        require(good, "`alpha` and `lipschitz` of aeg_prox", "be finite and at least 0", found)

    @property
    def delta_prime(self) -> float | None:
        """Δ', by which the method steps; None where θ is set by hand."""
        if self.delta is None:
            return None
        return inexact.delta_prime(self.delta, self.mu, self.alpha, self.lipschitz)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        theta = lr if self.delta_prime is None else lr / (4 * self.delta_prime)
        factors = (self.tau_factor, self.fast_factor)
        step = ExtragradientProx(theta, self.mu, *factors, self.inner, self.stop, self.sec, self.tol)
        return Method(Plain(), Direct(), rule.as_filter(), step)

    def promise(self, known: Constants) -> Promise:
        """Theorem D; Δ' is among the steps."""
        mu, lipschitz, delta = known.mu or 0.0, known.lipschitz or 0.0, known.delta or 0.0
        return promise_of(
            known,
            "Theorem D",
            ("lipschitz", "delta", "mu"),
            lambda oracle: inexact.aeg_prox(oracle, lipschitz, delta, mu),
        )


def _check(delta: float | None, mu: float) -> None:
    require(isfinite(mu) and mu >= 0, "Parameter `mu`", "be finite and at least 0", mu)
    good = delta is None or (isfinite(delta) and delta >= 0 and max(delta, mu) > 0)
    require(good, "Parameter `delta`", "be finite, at least 0, and positive unless mu is", delta)
