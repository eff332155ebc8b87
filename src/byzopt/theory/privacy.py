"""What noise promises: budgets (ε, δ) of differential privacy.

A message clipped to length C moves by Δ <= 2 C when what it was computed from is replaced. With noise N(0, s²
I) it is a Gaussian mechanism, and k such releases, each after the others were seen, are together what one is
with μ = Δ √k / s (Dong, Roth, Su, arXiv:1905.02383, Corollary 3.3): (ε, δ)-private exactly where

    δ >= Φ(-ε/μ + μ/2) - e^ε Φ(-ε/μ - μ/2)          (Balle, Wang, arXiv:1805.06530, Theorem 8).

Where a batch is drawn anew by Poisson sampling at rate q, and nobody sees who was drawn, privacy is better
than that; `rdp_epsilon` and `pld_epsilon` account for it, and `theory.poisson_samples`. `safe_dshb` with
`sampling = "poisson"` draws so. Of batches that are drawn in any other way these functions say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erfc, exp, inf, lgamma, log, log1p, pi, sqrt
from typing import NamedTuple

from byzopt.errors import MissingExtra, require

ORDERS = range(2, 257)  # of Rényi's divergence
_TRIES = 200  # halvings; float64 has no more than 64 to give, and some for the range


class Uses(NamedTuple):
    """What a run does with the data of honest workers.

    Args:
        rounds: Number of rounds T.
        shared: Rounds that use one sample, at most; None: not known.
        weight: The squares of how often each round's batch holds one sample, added up over the rounds, at
            most; None: not known.
        batch: Samples of a minibatch; None: not known, or all of a worker's.
        open: Whether the server owns a worker's loss, without noise.
        pooled: What a worker's samples hold of other samples or other workers'; empty: nothing; None: not
            known.
        rate: The largest probability with which a Poisson sample holds one of a worker's; None: not known.
        most: The largest number of samples that a worker has; None: not known.

    Examples:
        >>> from byzopt.theory.privacy import Uses
        >>> Uses(rounds=100).shared is None
        True
    """

    rounds: int
    shared: int | None = None
    weight: float | None = None
    batch: int | None = None
    open: bool = False
    pooled: str | None = None
    rate: float | None = None
    most: int | None = None


def noise_over_signal(noise: float, d: int, workers: int, rounds: int) -> float:
    """How far honest noise moves an iterate, over how far all that it hides could move it at most.

    The mean over h workers of noise with deviation σ C in each of d coordinates has length about σ C √(d/h).
    Over T rounds it walks √T times as far, while what was clipped to C goes T times C at most, if it always
    points one way. The ratio is σ √(d/(h T)), for any constant rate and any momentum.

    Args:
        noise: σ, the deviation in each coordinate over the length C.
        d: Number of coordinates.
        workers: Number h of honest workers.
        rounds: Number T of rounds.

    Examples:
        >>> from byzopt.theory.privacy import noise_over_signal
        >>> noise_over_signal(noise=5.0, d=400, workers=16, rounds=100)
        2.5
    """
    return noise * sqrt(d / (workers * rounds))


def gaussian_delta(epsilon: float, mu: float) -> float:
    """The least δ with which Gaussian mechanisms of μ in all are (ε, δ)-private.

    Args:
        epsilon: ε >= 0.
        mu: μ >= 0, sensitivity over noise, times the root of the number of releases.

    Raises:
        InvalidInput: A negative ε or μ, or one that is no number.

    Examples:
        >>> from byzopt.theory.privacy import gaussian_delta
        >>> round(gaussian_delta(1.0, 1.0), 6)
        0.126937
    """
    require(epsilon >= 0, "Parameter `epsilon`", "be at least 0", epsilon)
    _check_mu(mu)
    if mu == 0 or epsilon == inf:
        return 0.0
    far = -epsilon / mu - mu / 2
    # In its tail Φ is below all floats long before e^ε is above them.
    tail = exp(epsilon + _log_phi(far))
    return max(0.0, _phi(-epsilon / mu + mu / 2) - tail)


def gaussian_epsilon(delta: float, mu: float) -> float:
    """The least ε with which Gaussian mechanisms of μ in all are (ε, δ)-private.

    Args:
        delta: δ in (0, 1).
        mu: As in `gaussian_delta`.

    Raises:
        InvalidInput: A δ outside (0, 1), or a μ that is negative or not finite.

    Examples:
        >>> from byzopt.theory.privacy import gaussian_epsilon
        >>> round(gaussian_epsilon(1e-5, 500**0.5 / 30), 6)  # 500 releases, noise 30 times the sensitivity
        3.124648
    """
    _check_delta(delta)
    _check_mu(mu)
    if gaussian_delta(0.0, mu) <= delta:
        return 0.0
    high = 1.0
    while gaussian_delta(high, mu) > delta:
        high *= 2
    return root(lambda epsilon: gaussian_delta(epsilon, mu) <= delta, 0.0, high)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest μ that is (ε, δ)-private, a little below it by rounding.

    Args:
        epsilon: ε > 0.
        delta: δ in (0, 1).

    Examples:
        >>> from byzopt.theory.privacy import gaussian_epsilon, gaussian_mu
        >>> round(gaussian_epsilon(1e-5, gaussian_mu(2.0, 1e-5)), 9)
        2.0
    """
    _check_delta(delta)
    require(0 < epsilon < inf, "Parameter `epsilon`", "be positive and finite", epsilon)
    high = 1.0
    while gaussian_delta(epsilon, high) <= delta:
        high *= 2
    return 1 / root(lambda other: gaussian_delta(epsilon, 1 / other) <= delta, 1 / high, 1e18)


def noise_multiplier(epsilon: float, delta: float, releases: int) -> float:
    """The noise, in multiples of the clipping length C, with which so many releases are (ε, δ)-private when
    what a message was computed from may be replaced: 2 √k / μ.

    Args:
        epsilon: ε > 0.
        delta: δ in (0, 1).
        releases: Number k of messages.

    Examples:
        >>> from byzopt.theory.privacy import noise_multiplier
        >>> round(noise_multiplier(epsilon=2.0, delta=1e-5, releases=100), 3)
        39.876
    """
    require(releases >= 1, "The number of releases", "be at least 1", releases)
    return 2 * sqrt(releases) / gaussian_mu(epsilon, delta)


def rdp_epsilon(q: float, noise: float, steps: int, delta: float) -> float:
    """ε of `steps` Gaussian mechanisms on Poisson samples, by Rényi's divergence of orders 2 to 256.

    A batch holds each sample with probability q, and nobody sees which; a sample more or less moves the sum
    of the batch by 1 at most, and its noise has standard deviation `noise`. Mironov et al., arXiv:1908.10530,
    Section 3.3; to ε by Canonne et al., arXiv:2004.00010, Proposition 12.

    Args:
        q: Rate of sampling, in (0, 1].
        noise: Standard deviation of the noise over the sensitivity.
        steps: Number of releases.
        delta: δ in (0, 1).

    Examples:
        >>> from byzopt.theory.privacy import rdp_epsilon
        >>> round(rdp_epsilon(0.01, 1.0, 1000, 1e-5), 6)
        2.107753
    """
    _check_delta(delta)
    _check_mechanism(q, noise, steps)
    return max(0.0, min(_converted(a, steps * _rdp(q, noise, a), delta) for a in ORDERS))


def pld_epsilon(q: float, noise: float, steps: int, delta: float) -> float:
    """The same, nearly exactly, by the privacy loss distribution of `dp-accounting`.

    Args:
        q: Rate of sampling, in (0, 1].
        noise: Standard deviation of the noise over the sensitivity.
        steps: Number of releases.
        delta: δ in (0, 1).

    Raises:
        MissingExtra: dp-accounting is not installed.
    """
    _check_delta(delta)
    _check_mechanism(q, noise, steps)
    try:
        import dp_accounting
        from dp_accounting.pld import PLDAccountant
    except ImportError as error:
        raise MissingExtra(
            f'pld_epsilon needs dp-accounting. Found: {error}. Run pip install "byzopt[privacy]".'
        ) from None
    event = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(noise))
    return float(PLDAccountant().compose(event, steps).get_epsilon(delta))


def _rdp(q: float, noise: float, order: int) -> float:
    """Rényi's divergence of one release."""
    if q == 1:
        return order / (2 * noise**2)
    terms = [
        lgamma(order + 1)
        - lgamma(k + 1)
        - lgamma(order - k + 1)
        + k * log(q)
        + (order - k) * log1p(-q)
        + k * (k - 1) / (2 * noise**2)
        for k in range(order + 1)
    ]
    top = max(terms)
    return (top + log(sum(exp(term - top) for term in terms))) / (order - 1)


def _converted(order: int, divergence: float, delta: float) -> float:
    return divergence + log1p(-1 / order) - log(delta * order) / (order - 1)


def _phi(x: float) -> float:
    return erfc(-x / sqrt(2)) / 2


def _log_phi(x: float) -> float:
    """log Φ(x); far below 0 that of its lower bound φ(x)(1 - 1/x²)/|x|: privacy comes out no better."""
    if x > -30:
        return log(_phi(x))
    return -x * x / 2 - log(-x) - log(2 * pi) / 2 + log1p(-1 / x**2)


def root(good: Callable[[float], bool], low: float, high: float) -> float:
    """The least argument in [low, high] from which on `good` is true, rounded up.

    Args:
        good: False below some argument, true from it on.
        low: Where it may be false.
        high: Where it is true.

    Examples:
        >>> from byzopt.theory.privacy import root
        >>> root(lambda x: x * x >= 2, 0.0, 2.0)
        1.4142135623730951
    """
    for _ in range(_TRIES):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if good(middle):
            high = middle
        else:
            low = middle
    return high


def _check_delta(delta: float) -> None:
    require(0 < delta < 1, "Parameter `delta`", "lie in (0, 1)", delta)


def _check_mu(mu: float) -> None:
    remedy = "Without noise nothing is promised."
    require(0 <= mu < inf, "Parameter `mu`", "be finite and at least 0", mu, remedy)


def _check_mechanism(q: float, noise: float, steps: int) -> None:
    require(0 < q <= 1, "Parameter `q`", "lie in (0, 1]", q)
    require(0 < noise < inf, "Parameter `noise`", "be positive and finite", noise)
    require(steps >= 1, "Parameter `steps`", "be at least 1", steps)
