"""Robustness coefficients as papers state them. Those that the rules give are the least that is proved, which
here is always less: see `theory.robustness`."""

from __future__ import annotations

from math import sqrt

from byzopt.theory.robustness import ratio


def geometric_median_linear(n: int, f: int) -> float:
    """Geometric median: κ = 2 (1 + r) (arXiv:2603.12512).

    Args:
        n: Number of rows.
        f: Number of faulty rows.

    Examples:
        >>> from byzopt.theory.published import geometric_median_linear
        >>> round(geometric_median_linear(20, 3), 4)
        2.4286
    """
    return 2 * (1 + ratio(n, f))


def geometric_median_squared(n: int, f: int) -> float:
    """Geometric median: κ₂ = 4 (1 + r)² (arXiv:2302.01772, Proposition 3).

    Args:
        n: Number of rows.
        f: Number of faulty rows.

    Examples:
        >>> from byzopt.theory.published import geometric_median_squared
        >>> round(geometric_median_squared(20, 3), 4)
        5.898
    """
    return geometric_median_linear(n, f) ** 2


def median_linear(n: int, f: int, d: int = 1) -> float:
    """Coordinate-wise median: κ = 2 √d (1 + r) (arXiv:2603.12512).

    Args:
        n: Number of rows.
        f: Number of faulty rows.
        d: Number of parameters.

    Examples:
        >>> from byzopt.theory.published import median_linear
        >>> round(median_linear(20, 3, d=4), 4)
        4.8571
    """
    return 2 * (1 + ratio(n, f)) * sqrt(d)


def median_squared(n: int, f: int) -> float:
    """Coordinate-wise median: κ₂ = 4 (1 + r)² (arXiv:2302.01772).

    Args:
        n: Number of rows.
        f: Number of faulty rows.

    Examples:
        >>> from byzopt.theory.published import median_squared
        >>> round(median_squared(20, 3), 4)
        5.898
    """
    return geometric_median_squared(n, f)


def trimmed_mean_squared(n: int, f: int) -> float:
    """Trimmed mean: κ₂ = 6 r (1 + r) (arXiv:2302.01772, Proposition 2).

    Args:
        n: Number of rows.
        f: Number of faulty rows.

    Examples:
        >>> from byzopt.theory.published import trimmed_mean_squared
        >>> round(trimmed_mean_squared(20, 3), 4)
        1.5612
    """
    r = ratio(n, f)
    return 6 * r * (1 + r)


def krum_squared(n: int, f: int) -> float:
    """Krum that looks at n - f - 1 others (`extra=1`): κ₂ = 6 (1 + r) (arXiv:2302.01772).

    Args:
        n: Number of rows.
        f: Number of faulty rows.

    Examples:
        >>> from byzopt.theory.published import krum_squared
        >>> round(krum_squared(20, 3), 4)
        7.2857
    """
    return 6 * (1 + ratio(n, f))


def nnm_linear(kappa: float, n: int, f: int, leverage: float) -> float:
    """NNM and a rule with κ: (8κ + 4) ρ C, ρ = f/(n - f), max <= C · mean of ‖v_i - v̄‖ (arXiv:2603.12512).

    Args:
        kappa: κ of the rule behind.
        n: Number of rows.
        f: Number of faulty rows.
        leverage: Bound C on max‖v_i - v̄‖/mean‖v_i - v̄‖; None: n/2.

    Examples:
        >>> from byzopt.theory.published import nnm_linear
        >>> round(nnm_linear(1.0, 20, 3, leverage=2.0), 4)
        4.2353
    """
    ratio(n, f)
    return (8 * kappa + 4) * f / (n - f) * leverage


def nnm_squared(kappa_squared: float, n: int, f: int) -> float:
    """NNM and a rule with κ₂: (8 f/(n - f)) (κ₂ + 1) (arXiv:2302.01772, Lemma 1).

    Args:
        kappa_squared: κ₂ of the rule.
        n: Number of rows.
        f: Number of faulty rows.

    Examples:
        >>> from byzopt.theory.published import nnm_squared
        >>> round(nnm_squared(1.0, 20, 3), 4)
        2.8235
    """
    ratio(n, f)
    return 8 * f / (n - f) * (kappa_squared + 1)
