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
from byzopt.methods.promised import guaranteed, over_pairs
from byzopt.servers import Extragradient, NesterovMomentum, ThreeSequences
from byzopt.servers.nesterov import check_convexity
from byzopt.theory import inexact
from byzopt.theory.inexact import InexactOracle
from byzopt.theory.premises import at_most, checked_premise, constant_premise, convexity
from byzopt.theory.promise import Constants, Premise, Promise, Standing
from byzopt.wire import Direct
from byzopt.workers import Plain


@METHODS.register("nesterov")
@dataclass(frozen=True)
class Nesterov(MethodRecipe):
    """D-NAG as released: v <- β v + g, x <- x - lr (g + β v), PyTorch's SGD with Nesterov momentum.

    `beta` is free (0.9 in the released experiments, with lr 0.1); where `mu` is given β is the theory's
    (1 - √(μ lr))/(1 + √(μ lr)) instead. No theorem covers free (lr, β); where it settles, the common floor
    ζ²/(2μ(1 - α)) holds. β = 0 is `robust_gd`. Source: released code of arXiv:2602.03329.

    Args:
        beta: β of the extrapolation, in [0, 1).
        mu: μ of strong convexity; where given, β is the theory's.

    Examples:
        >>> from byzopt import Cohort, Nesterov, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = Nesterov()
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
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
        """No rate; the floor of wherever it settles, which nobody knows beforehand."""
        what = "the iterates settle at a zero of g"
        settles = Premise(what, Standing.UNKNOWN, "no theorem says so for free (lr, β)")

        def made(oracle: InexactOracle) -> Promise:
            floor = inexact.common_floor(oracle, known.mu or 0.0)
            remark = f"if the iterates settle, the gap there is at most {floor:.4g}"
            # The floor is compared between pairs, and then dropped: its premise does not stand.
            return Promise("", "", (settles,), remarks=(remark,), lacks=("no theorem covers free (lr, β)",))

        name = "common floor of the zeros of g"
        return over_pairs(known, name, "gap", [convexity(known)], made)


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

    Args:
        mu: μ of strong convexity, at most the true one.
        alpha: Relative error α of the aggregate; above 0 the small-τ variant is taken where it is slower.
        tau: τ set by hand, in (0, 1]; None: that of the theory.

    Examples:
        >>> from byzopt import NAG, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = NAG(mu=0.1)
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    mu: float = 0.01
    alpha: float = 0.0
    tau: float | None = None

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        return Method(Plain(), Direct(), rule.as_filter(), ThreeSequences(lr, self.mu, self.alpha, self.tau))

    def promise(self, known: Constants) -> Promise:
        """Theorem B, or its small-τ form where `alpha` is set, with 1/lr >= L for L and `mu` <= μ for μ."""
        small, lipschitz = self.alpha > 0, max(known.lipschitz or 0.0, self.mu)

        def made(oracle: InexactOracle) -> Promise:
            step = at_most("the step is at most 1/L", known.lr, 1 / lipschitz)
            L = 1 / known.lr if known.lr and step.stands else lipschitz
            widened = InexactOracle(oracle.zeta_squared, max(oracle.alpha, self.alpha))
            guarantee = inexact.nag(widened, max(L, self.mu), self.mu, small_tau=small)
            step_premises = [step]
            if small:
                step_premises.append(at_most("`alpha` is at least κ₂ B²", oracle.alpha, self.alpha))
            return guaranteed(known, widened, guarantee, step_premises)

        free = checked_premise("τ is that of the theorem", self.tau is None, f"tau = {self.tau}")
        premises = [constant_premise(known, "lipschitz"), *declared(known, self.mu), free]
        return over_pairs(known, "Theorem B", "gap", premises, made)


@METHODS.register("accelerated_extragradient")
@dataclass(frozen=True)
class AcceleratedExtragradient(MethodRecipe):
    """AEG, Theorem B2: two gradient rounds an iteration, at y and at the new x; order √(L/μ) rounds.

        y = τ z + (1 - τ) x,  x <- y - lr g(y);   z <- z + b (x - z) - η g(x);   answers x
        τ = min(1, √(lr μ/2) tau_factor),  η = min(1/(2μ), lr/(2τ) fast_factor),  b = μ η

    lr = 1/(2L) in theory; `mu` should be at most the true μ. Factors (0.4, 0.32) are Theorem B2's (τ = 0.2 s,
    η = 0.4 s/μ, b = 0.4 s; α <= min(1/50, s/3)); (1, 1) are Kovalev's (arXiv:2205.15136), which leave no
    slack for an error. Source: later released code of arXiv:2602.03329.

    Args:
        mu: μ of strong convexity, at most the true one.
        tau_factor: Factor of τ, the weight of the fast sequence.
        fast_factor: Factor of η, the step of the fast sequence.

    Examples:
        >>> from byzopt import AcceleratedExtragradient, Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = AcceleratedExtragradient(mu=0.1)
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    mu: float = 0.01
    tau_factor: float = 0.4
    fast_factor: float = 0.32

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        step = Extragradient(lr, self.mu, self.tau_factor, self.fast_factor)
        return Method(Plain(), Direct(), rule.as_filter(), step)

    def promise(self, known: Constants) -> Promise:
        """Theorem B2, with 1/(2 lr) >= L for L and `mu` <= μ for μ."""
        lipschitz = max(known.lipschitz or 0.0, self.mu)

        def made(oracle: InexactOracle) -> Promise:
            step = at_most("the step is at most 1/(2L)", known.lr, 1 / (2 * lipschitz))
            L = 1 / (2 * known.lr) if known.lr and step.stands else lipschitz
            return guaranteed(known, oracle, inexact.aeg(oracle, max(L, self.mu), self.mu), [step])

        factors = (self.tau_factor, self.fast_factor)
        factor_premise = checked_premise("the factors are (0.4, 0.32)", factors == (0.4, 0.32), factors)
        premises = [constant_premise(known, "lipschitz"), *declared(known, self.mu), factor_premise]
        return over_pairs(known, "Theorem B2", "gap", premises, made)


def declared(known: Constants, mu: float) -> list[Premise]:
    """μ, and that the recipe's `mu` is no larger: f is then mu-strongly convex too."""
    what = "the method's `mu` is at most μ"
    return [convexity(known), at_most(what, mu, known.mu or 0.0)]
