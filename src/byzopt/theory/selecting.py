"""Coefficients of rules that select rows (derived here; docs/constants.md has the arguments).

n rows, f of them faulty, N = n - f; var and mu are the mean squared and the mean length of the honest rows
about their mean v̄.
"""

from __future__ import annotations

from math import sqrt

from byzopt.errors import require
from byzopt.theory.robustness import NOTHING, Coefficients, both, ratio


def trusted_row(n: int, f: int) -> Coefficients:
    """One row that is known to be honest: at most (N - 1) var, and N/2 mu, from the mean.

    Args:
        n: Number of rows.
        f: Number of faulty rows.

    Examples:
        >>> from byzopt.theory.selecting import trusted_row
        >>> trusted_row(20, 3).squared
        16
    """
    ratio(n, f)
    return Coefficients((n - f) / 2, n - f - 1)


def least_spread(n: int, f: int, twice: bool = False) -> Coefficients:
    """The mean of the N rows of least variance (MVA), or of least top eigenvalue (SMEA): κ₂ = 4 r.

    For the latter even ‖A - v̄‖² <= 4 r · (top eigenvalue of the honest covariance), if the search has ended.
    `twice`: of a set whose variance (MVA), or top eigenvalue (SMEA), is at most 2 var: (1 + √2)² r.

    Args:
        n: Number of rows.
        f: Number of faulty rows.
        twice: Whether the set is at most twice the least.

    Examples:
        >>> from byzopt.theory.selecting import least_spread
        >>> round(least_spread(20, 3).squared, 4)
        0.8571
    """
    return Coefficients(squared=(1 + sqrt(2 if twice else 1)) ** 2 * ratio(n, f))


def least_diameter(n: int, f: int) -> Coefficients:
    """The mean of the N rows of least diameter (MDA): κ₂ = 8 f²/N and κ = 2 f.

    Args:
        n: Number of rows.
        f: Number of faulty rows.

    Examples:
        >>> from byzopt.theory.selecting import least_diameter
        >>> round(least_diameter(20, 3).squared, 4)
        4.2353
    """
    ratio(n, f)
    return Coefficients(2.0 * f, 8 * f**2 / (n - f))


def medoid(n: int, f: int) -> Coefficients:
    """The row of least sum of distances to all: κ = 2 (N - 1)/(n - 2 f), κ₂ = 2 N (N - 1)/(n - 2 f)².

    Args:
        n: Number of rows.
        f: Number of faulty rows.

    Examples:
        >>> from byzopt.theory.selecting import medoid
        >>> round(medoid(20, 3).linear, 4)
        2.2857
    """
    ratio(n, f)
    N, left = n - f, n - 2 * f
    return Coefficients(2 * (N - 1) / left, 2 * N * (N - 1) / left**2)


def krum(n: int, f: int, q: int, power: int = 2) -> Coefficients:
    """The row of least score, the sum of distance^`power` to its q nearest others; q <= N - 1.

    c = q - f + 1 of them, itself counted, are honest. κ₂ = (√(2 N q/((N - 1) c)) + √((N - c)/c))², power 2.

    Args:
        n: Number of rows.
        f: Number of faulty rows.
        q: Number of nearest others in a score.
        power: Of the distances in a score.

    Examples:
        >>> from byzopt.theory.selecting import krum
        >>> round(krum(20, 3, q=15).squared, 3)
        4.497
    """
    N, c = n - f, _honest(n, f, q)
    if N == 1:
        return Coefficients(0.0, 0.0)
    share = q / ((N - 1) * c)
    # The mean squared distance from the winner to the c rows, in units of Σ ‖v_i - v_j‖² at the best honest
    # i, which is at most 2 N var, and at most N (N/2 + 1) mu².
    reach = share**2 * (N - 1) if power == 1 else share ** (2 / power)
    linear = sqrt(reach * N * (N / 2 + 1))
    linear = min(linear, 2 * q / c) if power == 1 else linear
    squared = (sqrt(2 * N * reach) + sqrt((N - c) / c)) ** 2
    return Coefficients(linear + _offside(N, c), squared)


def multi_krum(n: int, f: int, q: int, count: int, power: int = 2) -> Coefficients:
    """The mean of the `count` <= N rows of least score.

    Their scores are on average at most those of the honest rows, so that Krum's bound holds for their mean.
    With `count` = N and power 2 at most f rows are exchanged, which is less. Nothing for power 4.

    Args:
        n: Number of rows.
        f: Number of faulty rows.
        q: Number of nearest others in a score.
        count: Number of rows averaged, at most n - f.
        power: Of the distances in a score.

    Examples:
        >>> from byzopt.theory.selecting import multi_krum
        >>> round(multi_krum(20, 3, q=15, count=17).squared, 3)
        1.045
    """
    N, c = n - f, _honest(n, f, q)
    if count == 1 or N == 1:
        return krum(n, f, q, power)
    if power == 4:
        return NOTHING
    one = krum(n, f, q, power)
    if power == 1:
        return one._replace(linear=2 * q / c + _offside(N, c))
    one = one._replace(linear=N * sqrt(q / ((N - 1) * c)) + _offside(N, c))
    if count < N:
        return one
    first = sqrt(f * N * (N + f) * q / ((N - 1) * c))
    squared = (first + f * sqrt((N - c) / c) + sqrt(f * N)) ** 2 / N**2
    linear = (first * sqrt(N / 2) + f * _offside(N, c) + N * min(1.0, f / 2)) / N
    return both(one, Coefficients(linear, squared))


def _honest(n: int, f: int, q: int) -> int:
    """How many of a row and its q nearest are honest, at least."""
    ratio(n, f)
    what = "The number of neighbours"
    require(f <= q <= n - f - 1, what, "lie in f..n - f - 1", f"{q} with n = {n}, f = {f}")
    return q - f + 1


def _offside(N: int, c: int) -> float:
    """The mean of c of the N honest rows is at most this times mu from that of all."""
    return min(1, N - c) * N / (2 * c)
