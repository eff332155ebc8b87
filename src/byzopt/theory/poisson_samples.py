"""What noise on Poisson samples promises of one sample: one more or less, or another; and how much it takes.

A batch holds each sample of a worker by itself with probability q, and nobody sees which, nor how many. The
sum of a batch's clipped gradients is divided by the number that is expected, which says nothing of it.
"""

from __future__ import annotations

from math import exp, inf, log, log1p, sqrt

from byzopt.errors import require
from byzopt.theory.privacy import gaussian_epsilon, rdp_epsilon, root


def poisson_epsilon(q: float, noise: float, steps: int, delta: float) -> float:
    """The least ε that is shown here for a sample more or less in Poisson samples: that of `rdp_epsilon`, or,
    where it is smaller, that of as many releases which all hold the sample, as `gaussian_epsilon` has it.

    Args:
        q: Rate of sampling, in (0, 1].
        noise: Standard deviation of the noise over the sensitivity.
        steps: Number of releases.
        delta: δ in (0, 1).

    Raises:
        InvalidInput: What is out of range.

    Examples:
        >>> from byzopt.theory.poisson_samples import poisson_epsilon
        >>> round(poisson_epsilon(0.01, 1.0, 1000, 1e-5), 6), round(poisson_epsilon(1.0, 30.0, 500, 1e-5), 6)
        (2.107753, 3.124648)
    """
    return min(rdp_epsilon(q, noise, steps, delta), gaussian_epsilon(delta, sqrt(steps) / noise))


def replaced_epsilon(q: float, noise: float, steps: int, delta: float) -> float:
    """The same for a sample that is replaced by another: one is taken away, and one is added.

    What is (ε, δ')-private each time is (2 ε, (1 + e^ε) δ')-private together; of δ' the largest is taken with
    which that is at most δ. Where all releases hold the sample a replaced one moves a sum by 2, which
    `gaussian_epsilon` accounts for: the smaller of the two.

    Args:
        q: Rate of sampling, in (0, 1].
        noise: Standard deviation of the noise over the sensitivity of adding a sample.
        steps: Number of releases.
        delta: δ in (0, 1).

    Raises:
        InvalidInput: What is out of range.

    Examples:
        >>> from byzopt.theory.poisson_samples import replaced_epsilon
        >>> round(replaced_epsilon(0.01, 1.0, 1000, 1e-5), 4)
        4.9451
    """
    whole = gaussian_epsilon(delta, 2 * sqrt(steps) / noise)

    def spent(log_delta: float) -> float:
        return poisson_epsilon(q, noise, steps, exp(log_delta))

    def fits(minus_log: float) -> bool:
        epsilon = spent(-minus_log)
        return log1p(exp(-epsilon)) + epsilon - minus_log <= log(delta)

    low, high = -log(delta), -log(delta) + 1.0
    while high < 600 and not fits(high):  # e^-600 is still a float64
        high += 50.0
    return min(whole, 2 * spent(-root(fits, low, high))) if fits(high) else whole


def poisson_noise(q: float, epsilon: float, delta: float, steps: int) -> float:
    """The noise over the sensitivity with which so many releases on Poisson samples are (ε, δ)-private for a
    sample more or less, by `poisson_epsilon`.

    Args:
        q: Rate of sampling, in (0, 1].
        epsilon: ε > 0.
        delta: δ in (0, 1).
        steps: Number of releases.

    Raises:
        InvalidInput: What is out of range.

    Examples:
        >>> from byzopt.theory.poisson_samples import poisson_epsilon, poisson_noise
        >>> noise = poisson_noise(0.01, 2.0, 1e-5, 1000)
        >>> round(noise, 3), poisson_epsilon(0.01, noise, 1000, 1e-5) <= 2.0
        (1.023, True)
    """
    require(0 < epsilon < inf, "Parameter `epsilon`", "be positive and finite", epsilon)
    high = 1.0
    while poisson_epsilon(q, high, steps, delta) > epsilon:
        high *= 2
    return root(lambda noise: poisson_epsilon(q, noise, steps, delta) <= epsilon, 0.0, high)
