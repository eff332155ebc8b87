"""How far from a crowd an honest row of one round may lie, when f of the crowd may lie about themselves.

Honest rows of a round are independent Gaussian vectors of one law, of **any covariance**: noise along one
direction or along a million. A ball, whoever chose its centre, holds c of n rows within radius r, so at least
m = c - f honest ones, S. For an honest row v outside of S, with x̄ and s² = Σ_S‖v_j - x̄‖² of S,

    ‖v - centre‖ <= r sqrt(1 + m ‖v - x̄‖²/s²),

for s² + m ‖x̄ - centre‖² <= m r². In one dimension ‖v - x̄‖² m/s² is (m + 1)/(m - 1) times the square of a
Student t of m - 1 degrees. In several, a sum of squares has its largest tail beyond 1.5365 where all variance
is along one direction (Székely and Bakirov, 2003), and its distribution there is the largest in convex order:
tails grow at most by 1/P(Z² > 1.5365) = 4.65. A union over all S and v, and over all c, gives `limits`.

With m = 1 (c = f + 1, so always for n = 2 f + 1 when all f liars copy one honest row) there is no limit: then
nobody is remote. Rows that are heavier than Gaussian, or differ by rank, can lie beyond.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb, exp, lgamma, log, pi, sqrt

from byzopt.errors import require

SPREAD = 4.65  # 1/P(Z² > 1.5365), rounded up


@lru_cache(maxsize=1024)
def crowd_radii(n: int, f: int, level: float = 0.001) -> tuple[tuple[int, float], ...]:
    """Pairs (c, K): about c of n rows within r of a centre, at most f of all rows faulty, honest rows lie
    within K r. All K together fail in a round with probability `level` at most; c is a majority, and f + 2 or
    more. None where no such c is below n.

    Errors: `InvalidInput` unless 0 <= 2 f < n and 0 < level < 1.
    """
    require(0 <= 2 * f < n, "Outlying rows", "have 0 <= 2 f < n", f"f = {f}, n = {n}")
    require(0 < level < 1, "The level", "lie in (0, 1)", level)
    sizes = range(max(n // 2 + 1, f + 2), n)
    return tuple((c, max(_reach(n - j, c - j, level / len(sizes)) for j in range(f + 1))) for c in sizes)


def _reach(honest: int, m: int, level: float) -> float:
    """The K of m rows among `honest` ones, of which any others may be outside."""
    cases = comb(honest, m) * (honest - m)
    return sqrt(1 + (m + 1) / (m - 1) * student(level / SPREAD / cases, m - 1) ** 2)


def student(tail: float, degrees: int) -> float:
    """A t with P(|T| > t) <= `tail` for Student's T: from two closed bounds of the tail integral, the better.

    Exact to first order as the tail vanishes, for one degree.

    Args:
        tail: Probability of the tail.
        degrees: Degrees of freedom.
    """
    v = degrees
    c = lgamma((v + 1) / 2) - lgamma(v / 2) - log(v * pi) / 2
    far = exp((log(2 / tail) + c + (v - 1) / 2 * log(v)) / v)
    if v == 1:
        return far
    near = sqrt(v * (exp(max(0.0, 2 / (v - 1) * (log(2 / tail) + c + log(v / (v - 1))))) - 1))
    return min(far, max(near, 1.0))
