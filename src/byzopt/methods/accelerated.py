"""Gradient descent's faster relatives on a robust gradient (arXiv:2602.03329).

    honest i : send ∇L_i(point asked at)
    server   : g = Agg(rows), fed to an accelerated scheme as an inexact gradient, ‖g - ∇L‖² <= ζ² + α ‖∇L‖²

Symbols: L smoothness, μ strong convexity, s = √(μ/L); ζ² = κ G², α = κ B². Assumptions of the theorems: full
gradients, (f, κ)-robust rule, (G, B)-heterogeneity; α of order s for acceleration. All memory is the
server's. Under attacks that shift all liars alike (ALIE, IPM) measured floors grow with f by a power between
1 and 2, the bound's κ by 1: it is for the worst attack. Theory: `byzopt.theory.inexact`; the exact recursion
of the paper's theorem is not known to us, and the schemes and constants here are those of Theorems B and B2
there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from byzopt.aggregators import Aggregator
from byzopt.errors import require
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.promised import oracle_of, promise_of, unknown
from byzopt.servers import Extragradient, NesterovMomentum, ThreeSequences
from byzopt.servers.nesterov import check_convexity
from byzopt.theory import inexact
from byzopt.theory.promise import Constants, Promise
from byzopt.wire import Direct
from byzopt.workers import Plain


@METHODS.register("nesterov")
@dataclass(frozen=True)
class Nesterov(MethodRecipe):
    """D-NAG as released: v <- β v + g, x <- x - lr (g + β v), PyTorch's SGD with Nesterov momentum.

    `beta` is free (0.9 in the released experiments, with lr 0.1); where `mu` is given β is the theory's
    (1 - √(μ lr))/(1 + √(μ lr)) instead. No theorem covers free (lr, β); where it settles, the common floor
    ζ²/(2μ(1 - α)) holds. β = 0 is `robust_gd`. Source: released code of arXiv:2602.03329.
    """

    beta: float = 0.9
    mu: float | None = None

    def __post_init__(self) -> None:
        require(0 <= self.beta < 1, "Parameter `beta` of nesterov", "lie in [0, 1)", self.beta)
        if self.mu is not None:
            check_convexity(self.mu)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        return Method(Plain(), Direct(), rule.as_filter(), NesterovMomentum(lr, self._weight(lr)))

    def _weight(self, lr: float) -> float:
        if self.mu is None:
            return self.beta
        root = sqrt(self.mu * lr)
        require(root <= 1, "Parameter `mu` of nesterov", "be at most 1/lr", self.mu)
        return (1 - root) / (1 + root)

    def promise(self, known: Constants) -> Promise:
        """No rate; the floor of wherever it settles."""
        oracle, missing = oracle_of(known), unknown(known, "mu")
        floor = inexact.common_floor(oracle, known.mu) if oracle and known.mu else None
        no_rate = "no theorem covers free (lr, β)"
        told = ("the floor holds where the iterates settle, at a zero of g",)
        floor = floor if floor is not None and floor < float("inf") else None
        return Promise(
            "common floor of the zeros of g", "gap", floor=floor, missing=(no_rate, *missing), remarks=told
        )


@METHODS.register("nag")
@dataclass(frozen=True)
class NAG(MethodRecipe):
    """Nesterov's scheme in three sequences, Theorem B: order √(L/μ) rounds, floor of order κG²/μ.

        y = τ z + (1 - τ) x,  g at y,  x <- y - lr g,  z <- z + 2τ (y - z) - (2τ/μ) g;   answers x

    lr = 1/L in theory; `mu` should be at most the true μ. τ = 0.22 √(μ lr), for α <= min(1/8, 0.99 s). Where
    the relative error is larger (up to 1/8), give it as `alpha`: τ = min(0.22 s, μ lr/(5α)), the small-τ
    variant, whose rate falls from s to descent's μ/L. `tau` sets τ by hand.

    That α of order s is the limit is no slack of the proof: errors that turn the gradient by a right angle,
    e = √α ∇f rotated, make the plain scheme unstable from an α proportional to s on; the small-τ variant and
    PIGS bear them.
    """

    mu: float = 0.01
    alpha: float = 0.0
    tau: float | None = None

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        return Method(Plain(), Direct(), rule.as_filter(), ThreeSequences(lr, self.mu, self.alpha, self.tau))

    def promise(self, known: Constants) -> Promise:
        """Theorem B, or its small-τ form where `alpha` is set."""
        mu, lipschitz = known.mu or 0.0, known.lipschitz or 0.0
        return promise_of(
            known,
            "Theorem B",
            ("lipschitz", "mu"),
            lambda oracle: inexact.nag(oracle, max(lipschitz, mu), mu, small_tau=self.alpha > 0),
        )


@METHODS.register("accelerated_extragradient")
@dataclass(frozen=True)
class AcceleratedExtragradient(MethodRecipe):
    """AEG, Theorem B2: two gradient rounds an iteration, at y and at the new x; order √(L/μ) rounds.

        y = τ z + (1 - τ) x,  x <- y - lr g(y);   z <- z + b (x - z) - η g(x);   answers x
        τ = min(1, √(lr μ/2) tau_factor),  η = min(1/(2μ), lr/(2τ) fast_factor),  b = μ η

    lr = 1/(2L) in theory; `mu` should be at most the true μ. Factors (0.4, 0.32) are Theorem B2's (τ = 0.2 s,
    η = 0.4 s/μ, b = 0.4 s; α <= min(1/50, s/3)); (1, 1) are Kovalev's (arXiv:2205.15136), which leave no
    slack for an error. Source: later released code of arXiv:2602.03329.
    """

    mu: float = 0.01
    tau_factor: float = 0.4
    fast_factor: float = 0.32

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        step = Extragradient(lr, self.mu, self.tau_factor, self.fast_factor)
        return Method(Plain(), Direct(), rule.as_filter(), step)

    def promise(self, known: Constants) -> Promise:
        """Theorem B2."""
        mu, lipschitz = known.mu or 0.0, known.lipschitz or 0.0
        needs = ("lipschitz", "mu")
        return promise_of(
            known, "Theorem B2", needs, lambda oracle: inexact.aeg(oracle, max(lipschitz, mu), mu)
        )
