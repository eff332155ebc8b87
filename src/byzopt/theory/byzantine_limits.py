"""What no method can do against a fraction δ of liars (arXiv:1803.08917, Theorems 4.3 and 4.4).

On one line: honest messages are N(±θ, V²) with a secret sign. The proofs' constructions are rebuilt here.
"""

from __future__ import annotations

from math import erf, isfinite, pi, sqrt
from statistics import NormalDist

from byzopt.errors import require


def convex_rounds(n: int, delta: float, noise: float, diameter: float, eps: float) -> float:
    """D²V²/(ε²n) + δ²V²D²/ε²: Theorem 4.3's rounds for a gap below ε, up to its constant.

    Args:
        n: Number of workers.
        delta: Share δ of workers that lie.
        noise: Bound V on the length of honest noise.
        diameter: D >= ‖x_1 - x*‖.
        eps: Accuracy ε.

    Examples:
        >>> from byzopt.theory.byzantine_limits import convex_rounds
        >>> convex_rounds(n=10, delta=0.0, noise=1.0, diameter=1.0, eps=0.1)
        10.0
    """
    _check(delta, noise, eps)
    return (diameter * noise / eps) ** 2 * (1 / n + delta**2)


def strongly_convex_rounds(n: int, delta: float, noise: float, mu: float, distance: float) -> float:
    """V²/(nμ²ε̂²) + δ²V²/(μ²ε̂²): Theorem 4.4's rounds for |x - x*| < ε̂, up to its constant.

    Args:
        n: Number of workers.
        delta: Share δ of workers that lie.
        noise: Bound V on the length of honest noise.
        mu: μ of strong convexity.
        distance: ε̂, from the start to the optimum.

    Examples:
        >>> from byzopt.theory.byzantine_limits import strongly_convex_rounds
        >>> strongly_convex_rounds(n=10, delta=0.0, noise=1.0, mu=1.0, distance=0.1)
        10.0
    """
    _check(delta, noise, distance)
    return (noise / (mu * distance)) ** 2 * (1 / n + delta**2)


def convex_floor(n: int, delta: float, noise: float, diameter: float, rounds: int) -> float:
    """DV sqrt((1/n + δ²)/T): the gap that Theorem 4.3 leaves after T rounds, up to its constant.

    Args:
        n: Number of workers.
        delta: Share δ of workers that lie.
        noise: Bound V on the length of honest noise.
        diameter: D >= ‖x_1 - x*‖.
        rounds: Number of rounds T.

    Examples:
        >>> from byzopt.theory.byzantine_limits import convex_floor
        >>> round(convex_floor(n=100, delta=0.0, noise=1.0, diameter=1.0, rounds=100), 4)
        0.01
    """
    _check(delta, noise, diameter)
    require(rounds >= 1, "The number of rounds", "be at least 1", rounds)
    return diameter * noise * sqrt((1 / n + delta**2) / rounds)


def total_variation(theta: float, noise: float, rounds: int) -> float:
    """erf(θ sqrt(T)/(V sqrt 2)): between the two laws N(±θ, V²/T) of a worker's mean of T messages.

    Args:
        theta: Slope θ of the hard instance.
        noise: Bound V on the length of honest noise.
        rounds: Number of rounds T.

    Examples:
        >>> from byzopt.theory.byzantine_limits import total_variation
        >>> round(total_variation(theta=0.1, noise=1.0, rounds=100), 4)
        0.6827
    """
    _check(0, noise, theta)
    return erf(theta * sqrt(rounds) / (noise * sqrt(2)))


def fraction(theta: float, noise: float, rounds: int) -> float:
    """a' = TV/(1 + TV): the Byzantine share at which both signs give messages of one law.

    Args:
        theta: Slope θ of the hard instance.
        noise: Bound V on the length of honest noise.
        rounds: Number of rounds T.

    Examples:
        >>> from byzopt.theory.byzantine_limits import fraction
        >>> round(fraction(theta=0.1, noise=1.0, rounds=100), 4)
        0.4057
    """
    tv = total_variation(theta, noise, rounds)
    return tv / (1 + tv)


def indistinguishable_rounds(delta: float, noise: float, theta: float) -> float:
    """T_ind: up to here a' <= δ, and every rule is right half the time, for every n.

    Args:
        delta: Share δ of workers that lie.
        noise: Bound V on the length of honest noise.
        theta: Slope θ of the hard instance.

    Examples:
        >>> from byzopt.theory.byzantine_limits import indistinguishable_rounds
        >>> round(indistinguishable_rounds(delta=0.3, noise=1.0, theta=0.1), 1)
        32.0
    """
    _check(delta, noise, theta)
    share = delta / (1 - delta)
    return (noise / theta * NormalDist().inv_cdf((1 + share) / 2)) ** 2


def indistinguishable_rounds_small(delta: float, noise: float, theta: float) -> float:
    """(π/2)(δ/(1 - δ))²V²/θ²: `indistinguishable_rounds` for small δ, from below.

    Args:
        delta: Share δ of workers that lie.
        noise: Bound V on the length of honest noise.
        theta: Slope θ of the hard instance.

    Examples:
        >>> from byzopt.theory.byzantine_limits import indistinguishable_rounds_small
        >>> round(indistinguishable_rounds_small(delta=0.3, noise=1.0, theta=0.1), 1)
        28.9
    """
    _check(delta, noise, theta)
    return pi / 2 * (delta / (1 - delta) * noise / theta) ** 2


def hug_rounds(delta: float, noise: float, theta: float, log: float) -> float:
    """16Λ(δV/((1 - δ)θ))²: up to here a worker that hugs τ_B turns the mean's sign. High by 2 to 3 times.

    Args:
        delta: Share δ of workers that lie.
        noise: Bound V on the length of honest noise.
        theta: Slope θ of the hard instance.
        log: Logarithmic factor Λ.
    """
    _check(delta, noise, theta)
    return 16 * log * (delta * noise / ((1 - delta) * theta)) ** 2


def _check(delta: float, noise: float, scale: float) -> None:
    require(0 <= delta < 0.5, "The Byzantine fraction δ", "lie in [0, 1/2)", delta)
    require(isfinite(noise) and noise >= 0, "The noise V", "be finite and at least 0", noise)
    require(isfinite(scale) and scale > 0, "The scale (ε, ε̂ or θ)", "be finite and positive", scale)
