"""Exact facts about one and two averages: noise gains, increments, and the largest stable step.

η are weights of the new gradient. White noise of variance σ² goes in; gains are relative to σ².
"""

from __future__ import annotations

from math import inf

from byzopt.errors import require


def variance(eta_v: float, eta_u: float = 1.0) -> float:
    """Var u/σ² = η_v² η_u² (1 + a b)/((1 - a b)(1 - a²)(1 - b²)), a = 1 - η_v, b = 1 - η_u.

    η_u = 1 is one average: η/(2 - η). Equal weights: η (2 - 2η + η²)/(2 - η)³.

    Args:
        eta_v: Weight of the new in the first average, in (0, 1].
        eta_u: Weight of the new in the second average, in (0, 1].

    Examples:
        >>> from byzopt.theory.averaging import variance
        >>> round(variance(0.1), 4)  # η/(2 - η)
        0.0526
    """
    a, b = _rests(eta_v, eta_u)
    return (eta_v * eta_u) ** 2 * (1 + a * b) / ((1 - a * b) * (1 - a * a) * (1 - b * b))


def increment(eta_v: float, eta_u: float = 1.0) -> float:
    """E‖u_t - u_(t-1)‖²/σ² = 2 Var u η_v η_u/(1 + a b): what a compressor of differences has to follow.

    One average: 2 η²/(2 - η). Equal weights: 2 η³/(2 - η)³.

    Args:
        eta_v: Weight of the new in the first average, in (0, 1].
        eta_u: Weight of the new in the second average, in (0, 1].

    Examples:
        >>> from byzopt.theory.averaging import increment
        >>> round(increment(0.1), 4)
        0.0105
    """
    a, b = _rests(eta_v, eta_u)
    return 2 * variance(eta_v, eta_u) * eta_v * eta_u / (1 + a * b)


def stability_limit(eta_v: float, eta_u: float = 1.0) -> float:
    """The step γL at which descent on a quadratic along the average of exact gradients loses stability.

    Two averages: min{1/((1 - η_v)(1 - η_u)) - 1, 2 (2 - η_v)(2 - η_u)/(η_v η_u)}, about 2 η for equal small
    weights. One average: 2 (2 - η)/η. By the Jury test of (z - 1)(z - 1 + η_v)(z - 1 + η_u) + γL η_v η_u z².

    Args:
        eta_v: Weight of the new in the first average, in (0, 1].
        eta_u: Weight of the new in the second average, in (0, 1].

    Examples:
        >>> from byzopt.theory.averaging import stability_limit
        >>> round(stability_limit(0.5), 4)  # 2 (2 - η)/η
        6.0
    """
    a, b = _rests(eta_v, eta_u)
    lag = 1 / (a * b) - 1 if a * b > 0 else inf
    return min(lag, 2 * (1 + a) * (1 + b) / (eta_v * eta_u))


def _rests(eta_v: float, eta_u: float) -> tuple[float, float]:
    require(0 < eta_v <= 1, "`eta_v`", "lie in (0, 1]", eta_v)
    require(0 < eta_u <= 1, "`eta_u`", "lie in (0, 1]", eta_u)
    return 1 - eta_v, 1 - eta_u
