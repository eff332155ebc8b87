"""Robustness coefficients as papers state them. Those that the rules give are the least that is proved, which
here is always less: see `theory.robustness`."""

from __future__ import annotations

from math import sqrt

from byzopt.theory.robustness import ratio


def geometric_median_linear(n: int, f: int) -> float:
    """Geometric median: κ = 2 (1 + r) (arXiv:2603.12512)."""
    return 2 * (1 + ratio(n, f))


def geometric_median_squared(n: int, f: int) -> float:
    """Geometric median: κ₂ = 4 (1 + r)² (arXiv:2302.01772, Proposition 3)."""
    return geometric_median_linear(n, f) ** 2


def median_linear(n: int, f: int, d: int = 1) -> float:
    """Coordinate-wise median: κ = 2 √d (1 + r) (arXiv:2603.12512)."""
    return 2 * (1 + ratio(n, f)) * sqrt(d)


def median_squared(n: int, f: int) -> float:
    """Coordinate-wise median: κ₂ = 4 (1 + r)² (arXiv:2302.01772)."""
    return geometric_median_squared(n, f)


def trimmed_mean_squared(n: int, f: int) -> float:
    """Trimmed mean: κ₂ = 6 r (1 + r) (arXiv:2302.01772, Proposition 2)."""
    r = ratio(n, f)
    return 6 * r * (1 + r)


def krum_squared(n: int, f: int) -> float:
    """Krum that looks at n - f - 1 others (`extra=1`): κ₂ = 6 (1 + r) (arXiv:2302.01772)."""
    return 6 * (1 + ratio(n, f))


def nnm_linear(kappa: float, n: int, f: int, leverage: float) -> float:
    """NNM and a rule with κ: (8κ + 4) ρ C, ρ = f/(n - f), max <= C · mean of ‖v_i - v̄‖ (arXiv:2603.12512)."""
    ratio(n, f)
    return (8 * kappa + 4) * f / (n - f) * leverage


def nnm_squared(kappa_squared: float, n: int, f: int) -> float:
    """NNM and a rule with κ₂: (8 f/(n - f)) (κ₂ + 1) (arXiv:2302.01772, Lemma 1)."""
    ratio(n, f)
    return 8 * f / (n - f) * (kappa_squared + 1)
