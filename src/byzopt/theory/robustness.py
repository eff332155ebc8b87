"""Robustness coefficients of rules, in the two definitions that the field uses, kept apart by name.

Linear form (arXiv:2603.12512, Definition 1):  ‖Agg - v̄‖  <= κ  · (1/N) Σ ‖v_i - v̄‖
Squared form (arXiv:2302.01772, Definition 2): ‖Agg - v̄‖² <= κ₂ · (1/N) Σ ‖v_i - v̄‖²
for every set of N = n - f rows that could be the honest ones, v̄ their mean. Functions take the counts n
(rows) and f (faulty rows) with 0 <= 2 f < n and raise `InvalidInput` otherwise.

Whatever is proved of a rule is a `Coefficients`, and `closed` takes the least over all routes from one form
to another. What is written here and in `theory.order_statistics` and `theory.selecting` is *derived here*
(docs/constants.md has the arguments) unless it names a paper; `theory.published` has what papers state.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from byzopt.errors import require


class Coefficients(NamedTuple):
    """What is proved of a rule, or of one answer; None where nothing is.

    `linear` is κ, `squared` κ₂, and `anywhere` the linear coefficient about any point p in place of the mean:
    ‖Agg - p‖ <= anywhere · (1/N) Σ ‖v_i - p‖, which is what counts after a stage that moves the mean.

    Args:
        linear: κ; None: nothing is proved.
        squared: κ₂; None: nothing is proved.
        anywhere: The linear coefficient about any point; None: nothing is proved.

    Examples:
        >>> from byzopt import TrimmedMean
        >>> found = TrimmedMean(f=3).coefficients(n=20)
        >>> round(found.squared, 3), round(found.linear, 3)  # f/(n - 2 f) and (n - f)/(2 (n - 2 f))
        (0.214, 0.607)
    """

    linear: float | None = None
    squared: float | None = None
    anywhere: float | None = None


NOTHING = Coefficients()


def ratio(n: int, f: int) -> float:
    """r = f / (n - 2 f).

    Args:
        n: Number of rows.
        f: Number of faulty rows, 0 <= 2 f < n.

    Examples:
        >>> from byzopt.theory.robustness import ratio
        >>> ratio(20, 3)
        0.21428571428571427
    """
    require(0 <= 2 * f < n, "The count `f`", "satisfy 0 <= 2 f < n", f"f = {f} with n = {n}", "Lower f.")
    return f / (n - 2 * f)


def least_linear(n: int, f: int) -> float:
    """No rule has a κ below ½ (1 + r) when f >= 1: take f ones and n - f zeros on a line.

    Args:
        n: Number of rows.
        f: Number of faulty rows, 0 <= 2 f < n.

    Examples:
        >>> from byzopt.theory.robustness import least_linear
        >>> least_linear(20, 3)
        0.6071428571428571
    """
    return (1 + ratio(n, f)) / 2 if f else 0.0


def least_squared(n: int, f: int) -> float:
    """No rule has a κ₂ below r (arXiv:2302.01772, Proposition 6).

    Args:
        n: Number of rows.
        f: Number of faulty rows, 0 <= 2 f < n.

    Examples:
        >>> from byzopt.theory.robustness import least_squared
        >>> least_squared(20, 3)
        0.21428571428571427
    """
    return ratio(n, f)


def linear_from_squared(kappa_squared: float, n: int, f: int, leverage: float | None = None) -> float:
    """κ <= √(κ₂ · min(C, N/2)), C being a bound on max‖v_i - v̄‖ / mean‖v_i - v̄‖ if one is known.

    mean‖z_i‖² <= max‖z_i‖ · mean‖z_i‖ for z_i = v_i - v̄, and ‖z_i‖ = ‖Σ of the others‖ <= (N/2) mean‖z‖.

    Args:
        kappa_squared: κ₂ of the rule.
        n: Number of rows.
        f: Number of faulty rows, 0 <= 2 f < n.
        leverage: Bound C on max‖v_i - v̄‖/mean‖v_i - v̄‖; None: n/2.

    Examples:
        >>> from byzopt.theory.robustness import linear_from_squared
        >>> round(linear_from_squared(1.0, 20, 3), 3)
        2.915
    """
    return sqrt(kappa_squared * _leverage(n, f, leverage))


def squared_from_linear(kappa: float) -> float:
    """κ₂ <= κ², for the mean of squares is at least the square of the mean.

    Args:
        kappa: κ of the rule.

    Examples:
        >>> from byzopt.theory.robustness import squared_from_linear
        >>> squared_from_linear(2.0)
        4.0
    """
    return kappa**2


def squared_from_pairs(c: float, delta: float, honest: int) -> float:
    """κ₂ = 2 c δ N/(N - 1) of a (δ, c)-robust rule, which is stated with the mean over pairs.

    (δ, c): E‖Agg - v̄‖² <= c δ · (1/(N (N - 1))) Σ_{i,l} E‖v_i - v_l‖² (arXiv:2206.00529); needs N >= 2.

    Args:
        c: c of the (δ, c)-robust rule.
        delta: δ of the (δ, c)-robust rule.
        honest: Number N of honest workers.

    Examples:
        >>> from byzopt.theory.robustness import squared_from_pairs
        >>> round(squared_from_pairs(c=1.0, delta=0.1, honest=11), 3)
        0.22
    """
    require(honest >= 2, "The number of honest workers", "be at least 2", honest)
    return 2 * c * delta * honest / (honest - 1)


def smallest(*found: float | None) -> float | None:
    """The smallest of those that are known.

    Args:
        found: What is proved, or known.

    Examples:
        >>> from byzopt.theory.robustness import smallest
        >>> smallest(3.0, None, 2.0)
        2.0
    """
    return min((one for one in found if one is not None), default=None)


def both(a: Coefficients, b: Coefficients) -> Coefficients:
    """The least of two proofs, form by form.

    Args:
        a: The one.
        b: The other.
    """
    return Coefficients(*map(smallest, a, b))


def closed(known: Coefficients, n: int, f: int) -> Coefficients:
    """The least coefficients over all routes between the forms.

    `anywhere` holds about the mean too; about any point the mean costs its own distance once and the rows
    twice, hence 2κ + 1.

    Args:
        known: What is known of the problem.
        n: Number of rows.
        f: Number of faulty rows, 0 <= 2 f < n.
    """
    by_squares = None if known.squared is None else linear_from_squared(known.squared, n, f)
    linear = smallest(known.linear, known.anywhere, by_squares)
    if linear is None:
        return known
    squared = smallest(known.squared, squared_from_linear(linear))
    return Coefficients(linear, squared, smallest(known.anywhere, 2 * linear + 1))


def carried(known: Coefficients, n: int, f: int, fewer: int) -> Coefficients:
    """What is proved for f faulty rows, said of `fewer` of them: the mean over all sets of n - f of N rows.

    ‖Agg - v̄‖² is at most the mean of the squares over the sets, and their variance is no larger on average.
    About its own mean a set's mean length may be: by that mean's distance, at most (f - fewer)/(n - f) of it.

    Args:
        known: What is known of the problem.
        n: Number of rows.
        f: Number of faulty rows, 0 <= 2 f < n.
        fewer: Number of faulty rows that is asked about.
    """
    linear = None if known.linear is None else known.linear * (n - fewer) / (n - f)
    return closed(known._replace(linear=linear), n, fewer)


def geometric_median(n: int, f: int, subgradient: float = 0.0) -> Coefficients:
    """A point with ‖Σ of the unit vectors from all n rows to it‖ = `subgradient`; 0: the geometric median.

    κ₂ = (n + ε)/(n - 2 f - ε) and κ = (n - f)/(n - 2 f - ε), twice that about any point, for
    ε = `subgradient`, which is lessened by 1 for every row that the point equals. Nothing where
    n - 2 f - ε <= 0. Sharp for the median itself: n/(n - 2 f) is approached.

    Args:
        n: Number of rows.
        f: Number of faulty rows, 0 <= 2 f < n.
        subgradient: Length of the sum of unit vectors; 0 at the median itself.

    Examples:
        >>> from byzopt.theory.robustness import geometric_median
        >>> round(geometric_median(20, 3).squared, 4)
        1.4286
    """
    ratio(n, f)
    left = n - 2 * f - subgradient
    if not left > 0:
        return NOTHING
    return Coefficients((n - f) / left, (n + subgradient) / left, 2 * (n - f) / left)


def moved_by(known: Coefficients, away: float, lengths: tuple[float, float]) -> Coefficients:
    """What holds `away` from a point of which `known` is proved.

    `lengths`: the mean, and the root mean square, of the distances from that point to the n - f rows nearest
    to it. Any n - f rows are that far from it on average at least, so that their own spread cannot be much
    smaller: mean‖v_i - p‖² = variance + ‖p - v̄‖² <= (1 + κ₂) variance.

    Args:
        known: What is known of the problem.
        away: Distance from the point.
        lengths: Mean and root mean square of the distances.
    """
    if away == 0 or known.linear is None or known.squared is None:
        return known
    mean, root = lengths
    if not mean > 0:
        return NOTHING
    linear = known.linear + (1 + known.linear) * away / mean
    squared = (sqrt(known.squared) + sqrt(1 + known.squared) * away / root) ** 2
    anywhere = None if known.anywhere is None else known.anywhere + (1 + known.anywhere) * away / mean
    return Coefficients(linear, squared, anywhere)


def nnm_dispersion(n: int, f: int, leverage: float | None = None) -> float:
    """What NNM leaves: (1/N) Σ ‖y_i - v̄‖ <= this · (1/N) Σ ‖v_i - v̄‖ over the honest rows.

    The least of 2ρ + 2 min(ρ C, 1) with ρ = f/N, the sum being split before the maximum is taken, and, by
    the squared form, √(4ρ C); C = N/2 unless a smaller `leverage` is known.

    Args:
        n: Number of rows.
        f: Number of faulty rows, 0 <= 2 f < n.
        leverage: Bound C on max‖v_i - v̄‖/mean‖v_i - v̄‖; None: n/2.

    Examples:
        >>> from byzopt.theory.robustness import nnm_dispersion
        >>> round(nnm_dispersion(20, 3), 4)
        2.3529
    """
    rho, c = f / (n - f), _leverage(n, f, leverage)
    return min(2 * (rho + min(rho * c, 1.0)), sqrt(4 * rho * c))


def nnm_variance(n: int, f: int) -> float:
    """What NNM leaves: (1/N) Σ ‖y_i - v̄‖² <= 4 f/N · (1/N) Σ ‖v_i - v̄‖²; published: twice that. Tight.

    Args:
        n: Number of rows.
        f: Number of faulty rows, 0 <= 2 f < n.

    Examples:
        >>> from byzopt.theory.robustness import nnm_variance
        >>> round(nnm_variance(20, 3), 4)
        0.7059
    """
    ratio(n, f)
    return 4 * f / (n - f)


def nnm(inner: Coefficients, n: int, f: int) -> Coefficients:
    """NNM and then a rule: κ₂ = (4 f/N) (κ₂ + 1), and κ = `anywhere` of the rule times `nnm_dispersion`.

    Args:
        inner: What is proved of the rule behind it.
        n: Number of rows.
        f: Number of faulty rows, 0 <= 2 f < n.
    """
    inner = closed(inner, n, f)
    squared = None if inner.squared is None else nnm_variance(n, f) * (inner.squared + 1)
    linear = None if inner.anywhere is None else nnm_dispersion(n, f) * inner.anywhere
    return closed(Coefficients(linear, squared), n, f)


def partly_nnm(inner: Coefficients, n: int, f: int) -> Coefficients:
    """Rows that are moved any part of their way to where NNM has them, and then a rule.

    ‖y_i - v̄‖² is at most the larger of ‖v_i - v̄‖² and what NNM leaves of it, hence mean‖y_i - v̄‖² at most
    1 + 4 f/N times the variance, and κ₂ = (1 + 4 f/N) (κ₂ + 1); κ = `anywhere` of the rule times
    1 + `nnm_dispersion`. Not sharp.

    Args:
        inner: What is proved of the rule behind it.
        n: Number of rows.
        f: Number of faulty rows, 0 <= 2 f < n.

    Examples:
        >>> from byzopt.theory.robustness import Coefficients, partly_nnm
        >>> round(partly_nnm(Coefficients(squared=1.0), 20, 3).squared, 4)
        3.4118
    """
    inner = closed(inner, n, f)
    squared = None if inner.squared is None else (1 + nnm_variance(n, f)) * (inner.squared + 1)
    linear = None if inner.anywhere is None else (1 + nnm_dispersion(n, f)) * inner.anywhere
    return closed(Coefficients(linear, squared), n, f)


def _leverage(n: int, f: int, leverage: float | None) -> float:
    ratio(n, f)
    require(leverage is None or leverage >= 1, "The leverage constant C", "be at least 1", leverage)
    return min(max(1.0, (n - f) / 2), n - f if leverage is None else leverage)
