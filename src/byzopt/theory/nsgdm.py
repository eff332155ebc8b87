"""Byz-NSGDM (arXiv:2603.12512): Theorem 1 and the inequalities behind it, as numbers in and numbers out.

Notation: κ linear robustness coefficient of the rule, q = 1 + 2κ, T rounds, η weight of the new gradient,
γ step length, Δ0 = f(x^0) - f*, Δ* = mean of f* - f_i*, V0 = mean of E‖v_i^0 - ∇f_i(x^0)‖, G honest workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, isfinite, log, sqrt
from typing import NamedTuple

from byzopt.errors import require
from byzopt.schedules import horizon_exponents
from byzopt.theory.premises import below
from byzopt.theory.promise import EDGE


@dataclass(frozen=True)
class Problem:
    """The constants of Theorem 1: honest losses (L0, L1)-smooth, noise σ, heterogeneity ζ, and the start.

    `start_gap` Δ0, `star_gap` Δ*, `momentum_gap` V0, `honest` G. Errors: negative or non-finite constants.

    Args:
        l0: L0 of (L0, L1)-smoothness.
        l1: L1 of (L0, L1)-smoothness.
        start_gap: f(x^0) - f*.
        honest: Number of honest workers.
        zeta: Heterogeneity ζ.
        sigma: Root mean square length σ of a message's noise.
        star_gap: Mean of f* - f_i* over the honest.
        momentum_gap: V0, how far the first momenta are from the gradients.
    """

    l0: float
    l1: float
    start_gap: float
    honest: int
    zeta: float = 0.0
    sigma: float = 0.0
    star_gap: float = 0.0
    momentum_gap: float = 0.0

    def __post_init__(self) -> None:
        require(self.honest >= 1, "The number of honest workers", "be at least 1", self.honest)
        for name, value in vars(self).items():
            require(isfinite(value) and value >= 0, f"Constant `{name}`", "be finite and at least 0", value)


class StepCaps(NamedTuple):
    """Theorem 1's three upper limits of γ0; the third is always the smallest.

    Args:
        smoothness: Cap by (L0, L1)-smoothness.
        curvature: Cap by the curvature.
        lag: Cap by the momentum's lag.
    """

    smoothness: float
    curvature: float
    lag: float


class NSGDMBound(NamedTuple):
    """Theorem 1's nine terms; their sum bounds the minimum over the T query points of E‖∇f‖.

    Args:
        start: Term of the start.
        momentum_start: Term of the first momentum.
        heterogeneity: Term of ζ.
        curvature: Term of the curvature.
        lag: Term of the momentum's lag.
        star_curvature: Term of the f_i*.
        star_lag: Term of the f_i* by the momentum's lag.
        noise: Term of the noise.
        attacked_noise: Term of the noise under attack.
    """

    start: float
    momentum_start: float
    heterogeneity: float
    curvature: float
    lag: float
    star_curvature: float
    star_lag: float
    noise: float
    attacked_noise: float

    @property
    def total(self) -> float:
        """The bound itself."""
        return sum(self)


def step_caps(l1: float, kappa: float, rounds: int) -> StepCaps:
    """1/(2 L1), T^(1/4)/(√32 L1) and 1/(√(128 q) L1) (Theorem 1); infinite for L1 = 0.

    Args:
        l1: L1 of (L0, L1)-smoothness.
        kappa: κ, the linear coefficient.
        rounds: Number of rounds T.
    """
    _check(kappa, rounds)
    if l1 == 0:
        return StepCaps(inf, inf, inf)
    return StepCaps(1 / (2 * l1), rounds**0.25 / (sqrt(32) * l1), 1 / (sqrt(128 * (1 + 2 * kappa)) * l1))


def max_gamma0(l1: float, kappa: float, rounds: int = 1) -> float:
    """The largest γ0 that Theorem 1 admits: 1/(8 √(2q) L1), whatever the number of rounds.

    Args:
        l1: L1 of (L0, L1)-smoothness.
        kappa: κ, the linear coefficient.
        rounds: Number of rounds T.
    """
    return min(step_caps(l1, kappa, rounds))


def best_gamma0(problem: Problem, kappa: float) -> float:
    """The admissible γ0 best for large T: min{cap, √(e^(1/2) Δ0 / (8q (L0 + 4 L1² Δ*)))}.

    Args:
        problem: Constants of the problem.
        kappa: κ, the linear coefficient.
    """
    slope = 8 * (1 + 2 * kappa) * (problem.l0 + 4 * problem.l1**2 * problem.star_gap)
    free = sqrt(exp(0.5) * problem.start_gap / slope) if slope else inf
    return min(max_gamma0(problem.l1, kappa), free)


def theorem_bound(
    problem: Problem, kappa: float, rounds: int, gamma0: float, printed: bool = True, p: float = 2.0
) -> NSGDMBound:
    """Theorem 1: γ = γ0 T^(-3/4), η = T^(-1/2), and γ0 at most `max_gamma0`.

    `printed=False` halves the floor 4κζ (term 3) by bounding ‖v_i - v̄‖ directly and not through pairs.
    `p` < 2 uses `horizon_exponents(p)` and noise with p moments (Remark 3, constants ours). Errors: γ0 above
    the cap.

    Args:
        problem: Constants of the problem.
        kappa: κ, the linear coefficient.
        rounds: Number of rounds T.
        gamma0: Scale γ0 of the schedule.
        printed: Whether to take the formula as printed.
        p: Moment of the noise that is finite, in (1, 2].
    """
    cap = max_gamma0(problem.l1, kappa, rounds)
    require(0 < gamma0 <= cap * EDGE, "The step scale γ0", f"lie in (0, {below(cap)}]", gamma0, "Lower it.")
    powers = horizon_exponents(p)
    gamma, eta = gamma0 * rounds**-powers.gamma, rounds**-powers.eta
    return _terms(problem, kappa, rounds, gamma, eta, 0.5, printed, p)


def bound_at(
    problem: Problem,
    kappa: float,
    rounds: int,
    gamma: float,
    eta: float,
    printed: bool = True,
    p: float = 2.0,
) -> NSGDMBound:
    """The same nine terms for any constant γ <= ln 2 / L1 and η in (0, 1] (derived; the paper's proof).

    e^(1/2) becomes e^(ET) with E = 8 L1² γ² + 32 q L1² γ²/η, so that the bound may be infinite.

    Args:
        problem: Constants of the problem.
        kappa: κ, the linear coefficient.
        rounds: Number of rounds T.
        gamma: Length γ of the steps.
        eta: Constant weight η of the new gradient, in (0, 1].
        printed: Whether to take the formula as printed.
        p: Moment of the noise that is finite, in (1, 2].
    """
    good = gamma > 0 and gamma * problem.l1 <= log(2) * EDGE
    require(good, "The step γ", "lie in (0, ln 2 / L1]", gamma)
    require(0 < eta <= 1, "The weight η", "lie in (0, 1]", eta)
    horizon_exponents(p)
    growth = (8 + 32 * (1 + 2 * kappa) / eta) * (problem.l1 * gamma) ** 2 * rounds
    return _terms(problem, kappa, rounds, gamma, eta, growth, printed, p)


def longest_step(l1: float) -> float:
    """The longest single step that `bound_at` and `bound_along` admit: ln 2 / L1.

    Args:
        l1: L1 of (L0, L1)-smoothness.
    """
    return log(2) / l1 if l1 else inf


def bound_along(problem: Problem, kappa: float, gammas: Sequence[float], eta: float) -> NSGDMBound:
    """The nine terms for steps γ_1 >= γ_2 >= ... that do not grow, and constant η (derived; the same proof).

    With E_k = (8 + 32 q/η) L1² γ_k² and weights w_0 = 1, w_k = w_(k-1)/(1 + E_k) the proof's sum telescopes:
    Σ w_k γ_k E‖∇f(x^(k-1))‖ <= Δ0 + 2 q V0 Σ w_k γ_k (1 - η)^k + c Σ w_k γ_k² + (floor and noise) Σ w_k γ_k,
    with c from the terms in L0 and Δ*. The least gradient norm is at most the weighted mean. A lagged step
    γ_j enters with later, smaller weights w_k γ_k <= w_j γ_j. For equal steps this is at most `bound_at`.
    Errors: steps that grow, or a first one above ln 2 / L1.

    Args:
        problem: Constants of the problem.
        kappa: κ, the linear coefficient.
        gammas: Length of each step.
        eta: Constant weight η of the new gradient, in (0, 1].
    """
    _check(kappa, len(gammas))
    falls = all(a >= b > 0 for a, b in pairwise(gammas)) and gammas[0] > 0
    require(falls, "The steps γ_k", "be positive and not grow", "steps that do")
    good = gammas[0] * problem.l1 <= log(2) * EDGE
    require(good, "The first step γ", "lie in (0, ln 2 / L1]", gammas[0])
    require(0 < eta <= 1, "The weight η", "lie in (0, 1]", eta)
    q, square = 1 + 2 * kappa, problem.l1**2
    weight, stay, length, first, curved = 1.0, 1.0, 0.0, 0.0, 0.0
    for gamma in gammas:
        weight /= 1 + (8 + 32 * q / eta) * square * gamma**2
        stay *= 1 - eta
        length += weight * gamma
        first += weight * gamma * stay
        curved += weight * gamma**2
    if length == 0:
        return NSGDMBound(*(inf,) * 9)
    mean, noise = curved / length, sqrt(eta) * problem.sigma
    return NSGDMBound(
        start=problem.start_gap / length,
        momentum_start=2 * q * problem.momentum_gap * first / length,
        heterogeneity=4 * kappa * problem.zeta,
        curvature=2 * problem.l0 * mean,
        lag=8 * q * problem.l0 * mean / eta,
        star_curvature=8 * square * problem.star_gap * mean,
        star_lag=32 * q * square * problem.star_gap * mean / eta,
        noise=2 * noise / sqrt(problem.honest),
        attacked_noise=4 * kappa * noise,
    )


def descent_bound(
    loss: float, grad_norm: float, error: float, gamma: float, l0: float, l1: float, mean_grad_norm: float
) -> float:
    """Right-hand side of the descent inequality: an upper limit of f(x - γ v/‖v‖).

    f - γ‖∇f‖ + 2γ‖∇f - v‖ + ½ γ² e^(γ L1) (L0 + L1 · mean‖∇f_i‖), all at x; `error` is ‖∇f - v‖.

    Args:
        loss: f(x).
        grad_norm: ‖∇f(x)‖.
        error: Length of the aggregate's error.
        gamma: Length γ of the steps.
        l0: L0 of (L0, L1)-smoothness.
        l1: L1 of (L0, L1)-smoothness.
        mean_grad_norm: Mean over workers of ‖∇f_i(x)‖.
    """
    curvature = gamma**2 / 2 * exp(gamma * l1) * (l0 + l1 * mean_grad_norm)
    return loss - gamma * grad_norm + 2 * gamma * error + curvature


def quartic(l1: float, shifts: Sequence[float], radius: float, sigma: float = 0.0) -> Problem:
    """The quartic's constants for one choice of L1 > 0: f_i(x) = ‖x‖⁴ + ⟨s_i, x⟩, v_i^0 = 0.

    `shifts` the honest ‖s_i‖ (the s_i sum to zero), `radius` ‖x^0‖, `sigma` √(d · variance).
    From ‖∇²f‖ = 12 r² and ‖∇f‖ = 4 r³ follow L0 = 16/L1² + L1 max‖s_i‖, f* - f_i* = 3 (‖s_i‖/4)^(4/3) and
    V0 <= 4 r³ + mean‖s_i‖.

    Args:
        l1: L1 of (L0, L1)-smoothness.
        shifts: Lengths ‖s_i‖ of the honest workers' shifts.
        radius: ‖x^0‖.
        sigma: √(d · variance) of the noise.
    """
    require(l1 > 0 and len(shifts) > 0, "The quartic", "have L1 > 0 and an honest worker", (l1, len(shifts)))
    honest = len(shifts)
    return Problem(
        l0=16 / l1**2 + l1 * max(shifts),
        l1=l1,
        start_gap=radius**4,
        honest=honest,
        zeta=sqrt(sum(s**2 for s in shifts) / honest),
        sigma=sigma,
        star_gap=sum(3 * (s / 4) ** (4 / 3) for s in shifts) / honest,
        momentum_gap=4 * radius**3 + sum(shifts) / honest,
    )


def _terms(
    c: Problem, kappa: float, rounds: int, gamma: float, eta: float, growth: float, printed: bool, p: float
) -> NSGDMBound:
    _check(kappa, rounds)
    q, late = 1 + 2 * kappa, (p - 1) / p
    # Noise with p moments: a martingale constant 2^((2-p)/p) (Hilbert spaces), which is 1 for p = 2.
    noise = 2 ** ((2 - p) / p) * c.sigma * eta**late
    return NSGDMBound(
        start=_grown(c.start_gap / (gamma * rounds), growth),
        momentum_start=_grown(2 * q * c.momentum_gap / (eta * rounds), growth),
        heterogeneity=(4 if printed else 2) * kappa * c.zeta,
        curvature=2 * c.l0 * gamma,
        lag=8 * q * c.l0 * gamma / eta,
        star_curvature=8 * c.l1**2 * c.star_gap * gamma,
        star_lag=32 * q * c.l1**2 * c.star_gap * gamma / eta,
        noise=2 * noise / c.honest**late,
        attacked_noise=4 * kappa * noise,
    )


def _grown(value: float, growth: float) -> float:
    """value · e^growth, infinite where a float ends."""
    if value == 0:
        return 0.0
    return value * exp(growth) if growth < 700 else inf


def _check(kappa: float, rounds: int) -> None:
    require(kappa >= 0, "The coefficient κ", "be at least 0", kappa)
    require(rounds >= 1, "The number of rounds", "be at least 1", rounds)
