"""How different honest rows may be before no rule can promise a direction, and no method an end.

Notation: n rows, f of them faulty, N = n - f; m and var the mean and variance of the honest ones, h =
var/‖m‖², r = f/(n - 2 f).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from typing import NamedTuple

from byzopt.errors import require


def indistinct(n: int, f: int) -> float:
    """1/r = (n - 2 f)/f: the h beyond which no rule that sees rows alone can promise ⟨answer, m⟩ > 0.

    Derived here. Let f rows lie at a - D and the others at a > 0, on a line. If the f are the faulty ones,
    m = a. If f of those at a are, m = a - f D/N, which is negative for D > a N/f, and h =
    (f/N) (1 - f/N) D²/(a - f D/N)², which takes every value above (n - 2 f)/f as D grows from there. The rows
    are the same in both cases, and no answer points along both means. So a rule may be right on many rows of
    that h, but not on all. 0 where n <= 2 f: not even equal honest rows can be told from the faulty.

    Args:
        n: Number of rows.
        f: How many of them are faulty.

    Returns:
        1/r; infinite for f = 0.

    Examples:
        >>> from byzopt.theory.disagreement import indistinct
        >>> round(indistinct(20, 3), 3), round(indistinct(20, 6), 3)
        (4.667, 1.333)
    """
    require(0 <= f <= n, "The number of faulty rows", f"be from 0 to n = {n}", f)
    return max(0.0, (n - 2 * f) / f) if f else inf


class Dissimilarity(NamedTuple):
    """G² and B² of var <= G² + B² ‖m‖².

    Args:
        constant: G², in squared units of the rows.
        slope: B².

    Examples:
        >>> from byzopt.theory.disagreement import Dissimilarity
        >>> round(Dissimilarity(0.0, 2.0).breakdown, 3)
        0.25
    """

    constant: float
    slope: float

    @property
    def breakdown(self) -> float:
        """1/(2 + B²): no method can promise an end where f/n is that large (arXiv:2309.13591)."""
        return 1 / (2 + self.slope)


def fitted(variances: Sequence[float], squares: Sequence[float]) -> Dissimilarity:
    """The least squares fit of var = G² + B² ‖m‖² with G², B² >= 0 to measured rounds.

    A fit to some rounds, not a bound at all points, which the theorem is about.

    Args:
        variances: Of the honest rows, for each round.
        squares: ‖m‖² for each round.

    Returns:
        The fit.

    Examples:
        >>> from byzopt.theory.disagreement import fitted
        >>> fit = fitted([3.0, 5.0, 9.0], [1.0, 2.0, 4.0])
        >>> round(fit.constant, 6), round(fit.slope, 6)
        (1.0, 2.0)
    """
    points = [(y, x) for y, x in zip(variances, squares, strict=True) if isfinite(x) and isfinite(y)]
    require(bool(points), "A fit of the honest rows' variance", "have a finite round", "none")
    ys, xs = zip(*points, strict=True)
    mean_y, mean_x = sum(ys) / len(ys), sum(xs) / len(xs)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for y, x in points) / spread if spread else 0.0
    if slope <= 0:
        return Dissimilarity(mean_y, 0.0)
    constant = mean_y - slope * mean_x
    if constant >= 0:
        return Dissimilarity(constant, slope)
    return Dissimilarity(0.0, sum(x * y for y, x in points) / sum(x * x for x in xs))
