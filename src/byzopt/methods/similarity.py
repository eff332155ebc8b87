"""Optimisation under similarity on a robust gradient: PIGS and its acceleration (arXiv:2602.03329).

    honest i : send ∇L_i(point asked at)
    server   : g = Agg(rows);  x <- argmin ⟨g - ∇q(x_k), x⟩ + q(x) + ‖x - x_k‖²/(2η), inexactly

q is a trusted loss that the server owns (the task's `proxy`): one honest worker's, or that of the server's
own samples. Symbols: Δ smoothness of L - q, μ strong convexity of L, ζ² = κ G², α = κ B². Rounds grow with
Δ/μ, not with L/μ; a biased q enlarges Δ and does not move the fixed points, which are the zeros of g.
Inner steps cost no round and are reported apart. Theory: `byzopt.theory.inexact`, Theorems C and D.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite, sqrt

from byzopt.aggregators import Aggregator
from byzopt.errors import require
from byzopt.methods.accelerated import declared
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.promised import guaranteed, over_pairs
from byzopt.servers import LBFGS, ExtragradientProx, Inner, SimilarityProx
from byzopt.servers.inner import MACHINE, Rule
from byzopt.theory import inexact
from byzopt.theory.inexact import InexactOracle
from byzopt.theory.premises import at_most, checked_premise, constant_premise, convexity
from byzopt.theory.promise import EDGE, Constants, Premise, Promise, Standing
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

    Args:
        delta: Similarity constant Δ of the server's loss; None: `lr` is the step η itself.
        mu: μ of strong convexity.
        longer: Whether to take the longer step 0.65/max(Δ, μ).
        inner: Who solves the subproblem.
        stop: When a solve ends: "relative", "absolute" or "machine".
        sec: Divisor of the relative tolerance.
        tol: Absolute tolerance of the squared gradient norm of the subproblem.

    Examples:
        >>> from byzopt import PIGS, Cohort, Quadratic, WorkerProxy, simulate
        >>> task = Quadratic(spread=0.4, proxy=WorkerProxy()).build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = PIGS(delta=0.5, mu=0.1)
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
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
        """Theorem C, or its longer step: whichever the step η admits, with Δ' >= max(Δ, μ) in Δ's place.

        L only enters the start of the bound.
        """
        delta, mu = known.delta or 0.0, known.mu or 0.0
        scale = 1.0 if self.delta is None else inexact.pigs_eta(self.delta, self.mu, self.longer)
        eta = None if known.lr is None and self.delta is None else scale * (known.lr or 1.0)
        exact = self.stop != "relative" or self.sec >= 10
        longer = exact and (self.longer if eta is None else eta > inexact.pigs_eta(delta, mu or 1.0) * EDGE)

        def made(oracle: InexactOracle) -> Promise:
            most = inexact.pigs_eta(delta, mu, longer)
            step = at_most(f"η is at most {'0.65' if longer else '0.25'}/max(Δ, μ)", eta, most)
            wide = (0.65 if longer else 0.25) / eta if eta and step.stands else max(delta, mu)
            worse = inexact.worsened(oracle, accuracy_left(self.stop, self.tol))
            guarantee = inexact.pigs(worse, wide, mu, longer, known.lipschitz)
            edge = {"lr": most / scale}  # in the unit of the recipe's own lr
            return guaranteed(known, worse, replace(guarantee, steps=guarantee.steps | edge), [step])

        premises = [
            constant_premise(known, "delta"),
            convexity(known),
            *solved(known, self.stop, self.sec, 10.0 if longer else 1.0),
        ]
        if known.lipschitz is not None:
            premises.append(constant_premise(known, "lipschitz"))
        return over_pairs(known, "Theorem C", "gap", premises, made)


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

    Args:
        mu: μ of strong convexity.
        delta: Similarity constant Δ of the server's loss; None: `lr` is the step θ itself.
        alpha: Relative error α of the aggregate.
        lipschitz: L of smoothness, which α is multiplied with.
        tau_factor: Factor of τ, the weight of the fast sequence.
        fast_factor: Factor of η, the step of the fast sequence.
        inner: Who solves the subproblem.
        stop: When a solve ends: "relative", "absolute" or "machine".
        sec: Divisor of the relative tolerance.
        tol: Absolute tolerance of the squared gradient norm of the subproblem.

    Examples:
        >>> from byzopt import AEGProx, Cohort, Quadratic, WorkerProxy, simulate
        >>> task = Quadratic(spread=0.4, proxy=WorkerProxy()).build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = AEGProx(mu=0.1, delta=0.5)
        >>> outcome = simulate(task, "nnm >> rfa", lr=0.1, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
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
        pair = (self.alpha, self.lipschitz)
        good = all(isfinite(value) and value >= 0 for value in pair)
        require(good, "`alpha` and `lipschitz` of aeg_prox", "be finite and at least 0", pair)

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
        """Theorem D, with 1/(4θ) in Δ's place; Δ' is among the steps."""
        lipschitz, delta, prime = known.lipschitz or 0.0, known.delta or 0.0, self.delta_prime
        scale = 1.0 if prime is None else 1 / (4 * prime)
        theta = None if known.lr is None and prime is None else scale * (known.lr or 1.0)

        def made(oracle: InexactOracle) -> Promise:
            worse = inexact.worsened(oracle, accuracy_left(self.stop, self.tol))
            least = inexact.delta_prime(delta, self.mu, worse.alpha, lipschitz)
            step = at_most("θ is at most 1/(4Δ')", theta, 1 / (4 * least))
            wide = 1 / (4 * theta) if theta and step.stands else least
            guarantee = inexact.aeg_prox(worse, lipschitz, wide, self.mu)
            edge = {"lr": 1 / (4 * least) / scale, "delta_prime": least}
            return guaranteed(known, worse, replace(guarantee, steps=guarantee.steps | edge), [step])

        factors = (self.tau_factor, self.fast_factor)
        factor_premise = checked_premise(
            "the factors are (0.3 √2, 0.36)", factors == (0.3 * sqrt(2), 0.36), factors
        )
        premises = [
            constant_premise(known, "lipschitz"),
            constant_premise(known, "delta"),
            *declared(known, self.mu),
            factor_premise,
        ]
        return over_pairs(
            known, "Theorem D", "gap", [*premises, *solved(known, self.stop, self.sec, 1.0)], made
        )


def accuracy_left(stop: Rule, tol: float) -> float:
    """The squared length of ∇φ that an inner stop may leave however short the step is."""
    return MACHINE**2 if stop == "machine" else tol


def solved(known: Constants, stop: Rule, sec: float, least: float) -> list[Premise]:
    """That inner solves are as good as the theorem asks, and meet their stop."""
    settings = f"stop = {stop}, sec = {sec:g}"
    accurate = checked_premise(
        f"the inner stop is relative with sec >= {least:g}, or stricter",
        stop != "relative" or sec >= least,
        settings,
    )
    what = "every inner solve meets its stop"
    if known.unmet is None:
        return [accurate, Premise(what, Standing.UNKNOWN, "no solve was looked at")]
    good, how = known.unmet == 0, f"{known.unmet} did not in the first {known.watched} rounds"
    partly = good and (known.watched or 0) < known.rounds
    return [accurate, Premise(what, Standing.ESTIMATED, how) if partly else checked_premise(what, good, how)]


def _check(delta: float | None, mu: float) -> None:
    require(isfinite(mu) and mu >= 0, "Parameter `mu`", "be finite and at least 0", mu)
    good = delta is None or (isfinite(delta) and delta >= 0 and max(delta, mu) > 0)
    require(good, "Parameter `delta`", "be finite, at least 0, and positive unless mu is", delta)
