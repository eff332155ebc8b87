"""SafeguardSGD (arXiv:2012.14368): thresholds, and the orders of its theorem's parameters.

Logarithms and constants of the orders are not stated in the text that we know; they are taken as 1. Constants
of the problem (L, the Hessian's, V) are 1 there too; V is written out in the thresholds.
"""

from __future__ import annotations

from math import ceil, exp, log, sqrt
from typing import NamedTuple

from byzopt.errors import require
from byzopt.theory.byzantine_sgd import log_factor


class Scales(NamedTuple):
    """ν² of the added noise, step γ, windows T0 <= T1, and rounds T, up to logarithms.

    Args:
        variance: ν² of the added noise.
        step: Length γ of the steps.
        short: T0, the short window.
        long: T1, the long window.
        rounds: Number of rounds T.
    """

    variance: float
    step: float
    short: float
    long: float
    rounds: float


def threshold(window: int, rounds: int, n: int, noise: float, p_fail: float = 0.05) -> float:
    """Th = 8 V sqrt(T_w log(16 n T/p)) for sums of raw gradients over windows of T_w; the test is 2 Th.

    Args:
        window: Rounds T_w of a window.
        rounds: Number of rounds T.
        n: Number of workers.
        noise: Bound V on the length of honest noise.
        p_fail: Probability of failure, in (0, 1).

    Examples:
        >>> from byzopt.theory.safeguard import threshold
        >>> round(threshold(window=100, rounds=1000, n=20, noise=1.0), 1)
        316.7
    """
    require(window >= 1, "A window", "be at least 1 round", window)
    return 8 * noise * sqrt(window * log_factor(n, rounds, p_fail))


def windows_expel_honest(windows: tuple[int, ...], rounds: int, n: int, p_fail: float = 0.05) -> float:
    """With what probability at most any honest worker is expelled by the thresholds of V, whatever f < n/2
    liars do: 2n exp(-8Λ) in each window. The median is selected within Th and tested with 2 Th, so that all
    honest are kept while their sums stray by Th/2 = 4 V sqrt(T_w Λ) (Pinelis).

    Args:
        windows: Rounds of the windows.
        rounds: Number of rounds T.
        n: Number of workers.
        p_fail: Probability of failure, in (0, 1).

    Examples:
        >>> from byzopt.theory.safeguard import windows_expel_honest
        >>> windows_expel_honest((100, 600), rounds=1000, n=20) < 1e-9
        True
    """
    count = sum(ceil(rounds / window) for window in windows)
    return min(1.0, 2 * n * count * exp(-8 * log_factor(n, rounds, p_fail)))


def window_slack(window: int, rounds: int, n: int, noise: float, p_fail: float = 0.05) -> float:
    """The largest ζ >= ‖∇f_i - ∇f‖ with which that still holds at p_fail: sums drift by T_w ζ.

    Args:
        window: Rounds T_w of a window.
        rounds: Number of rounds T.
        n: Number of workers.
        noise: Bound V on the length of honest noise.
        p_fail: Probability of failure, in (0, 1).
    """
    count = ceil(rounds / window)
    left = 4 * sqrt(log_factor(n, rounds, p_fail)) - sqrt(2 * log(2 * n * count / p_fail))
    return max(0.0, noise * left / sqrt(window))


def crowd_factor(n: int, f: int) -> float:
    """C₃ = δ² + 1/n. Errors: `InvalidInput` unless 2 f < n.

    Args:
        n: Number of workers.
        f: Number of faulty ones, 2 f < n.

    Examples:
        >>> from byzopt.theory.safeguard import crowd_factor
        >>> round(crowd_factor(20, 3), 4)
        0.0725
    """
    require(0 <= 2 * f < n, "The count `f`", "satisfy 0 <= 2 f < n", f"f = {f} with n = {n}", "Lower f.")
    return (f / n) ** 2 + 1 / n


def scales(n: int, f: int, d: int, eps: float, gap: float, second_order: bool = True) -> Scales:
    """ν² = C₃, γ = ε²/(d C₃), T0 = 1/γ, T1 = 1/(γ sqrt ε), T = (f_0 - f*) d C₃/ε⁴.

    For first-order points alone d is dropped, and ν is 0.

    Args:
        n: Number of workers.
        f: Number of faulty ones, 2 f < n.
        d: Number of parameters.
        eps: Accuracy ε.
        gap: f(x^0) - f*.
        second_order: Whether second-order points are wanted.
    """
    require(0 < eps < 1, "The accuracy ε", "lie in (0, 1)", eps)
    size, c3 = (d if second_order else 1), crowd_factor(n, f)
    step = eps**2 / (size * c3)
    return Scales(
        c3 if second_order else 0.0, step, 1 / step, 1 / (step * sqrt(eps)), gap * size * c3 / eps**4
    )
