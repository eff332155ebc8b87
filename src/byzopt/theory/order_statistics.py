"""Exact coefficients of rules that weigh order statistics, coordinate by coordinate (derived here).

The k-th smallest of n numbers, f of them arbitrary, lies between the (k - f)-th and the k-th smallest of the
N = n - f honest ones h, and reaches both ends. So Σ w_k x_(k) with w >= 0 is at most Σ c_k h_(k) with
c = (w_1 .. w_N), at least that with c = (w_{f+1} .. w_n), and the rest is the extremum of a linear form over
sorted vectors. Coordinates add: the coefficients hold in any dimension, and are attained in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import isclose

from byzopt.errors import require
from byzopt.theory.robustness import NOTHING, Coefficients, ratio


def weighed(weights: Sequence[float], f: int) -> Coefficients:
    """Σ_k w_k x_(k) over n = len(weights) values, f of them faulty. Nothing where one of f extremes weighs.

    κ₂ = N Σ (p_k - 1/N)² with p the isotonic regression of c: the norm of the projection of c on sorted
    vectors. κ: sorted vectors of mean 0 are mixtures of two blocks, N/(2j) on the j highest places and
    -N/(2k) on the k lowest, j + k <= N. About any point: one block, N/j on the j highest. All are exact.

    Errors: `InvalidInput` for weights that are negative or do not sum to 1.

    Args:
        weights: Weights of the sorted values.
        f: Number of faulty rows.
    """
    n = len(weights)
    ratio(n, f)
    what = "The weights of order statistics"
    require(min(weights) >= 0, what, "be at least 0", min(weights))
    require(isclose(sum(weights), 1, abs_tol=1e-9), what, "sum to 1", sum(weights))
    if any(weights[:f]) or any(weights[n - f :]):
        return NOTHING
    sides = (list(weights[: n - f]), list(weights[f:])[::-1])
    return Coefficients(*(max(form(c) for c in sides) for form in (_linear, _squared, _anywhere)))


def around_centre(centre: Coefficients, n: int, f: int) -> Coefficients:
    """The mean of the N = n - f rows nearest to a centre, in norm or in each coordinate.

    Every faulty row that is chosen is no farther from the centre than an honest one that is left out:
    κ₂ = (4 f/N) (κ₂ + 1) and κ = 2 (min(1, f/2) + (f/N) κ), from those of the centre.

    Args:
        centre: What is proved of the centre.
        n: Number of rows.
        f: Number of faulty rows.
    """
    ratio(n, f)
    share = f / (n - f)
    squared = None if centre.squared is None else 4 * share * (centre.squared + 1)
    linear = None if centre.linear is None else 2 * (min(1.0, f / 2) + share * centre.linear)
    return Coefficients(linear, squared)


def isotonic(values: Sequence[float]) -> list[float]:
    """The non-decreasing sequence nearest to `values`: neighbours out of order are pooled (PAVA), O(n).

    Args:
        values: The numbers.
    """
    pools: list[tuple[float, int]] = []  # sum and size; means increase
    for value in values:
        total, size = value, 1
        while pools and pools[-1][0] * size > total * pools[-1][1]:
            before, width = pools.pop()
            total, size = total + before, size + width
        pools.append((total, size))
    return [total / size for total, size in pools for _ in range(size)]


def _squared(c: Sequence[float]) -> float:
    N = len(c)
    return N * sum((p - 1 / N) ** 2 for p in isotonic(c))


def _linear(c: Sequence[float]) -> float:
    N = len(c)
    c = [value - 1 / N for value in c]  # the blocks do not see it, and the mean's coefficient is exactly 0
    high = [total / j for j, total in enumerate(accumulate(reversed(c)), 1)]
    low = [total / k for k, total in enumerate(accumulate(c), 1)]
    # The best blocks of at most j: then one pass finds the best pair.
    top, bottom = list(accumulate(high, max)), list(accumulate(low, min))
    return N / 2 * max((top[j - 1] - bottom[N - j - 1] for j in range(1, N)), default=0.0)


def _anywhere(c: Sequence[float]) -> float:
    return len(c) * max(total / j for j, total in enumerate(accumulate(reversed(c)), 1))
