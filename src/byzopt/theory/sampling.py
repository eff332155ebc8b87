"""How many liars a sample holds: exact tails, sizes of samples, and the constants of Byz-VR-MARINA-PP."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, comb, inf, log, sqrt

from byzopt.errors import require


def excess_probability(n: int, f: int, count: int, tolerated: int) -> float:
    """P(more than `tolerated` of `count` workers, drawn from n of whom f lie, lie): hypergeometric, exact.

    Args:
        n: Number of workers.
        f: How many of them lie.
        count: Size C of the sample.
        tolerated: f̂, how many liars in it are borne.

    Returns:
        The probability.

    Raises:
        InvalidInput: More liars or a larger sample than there are workers.

    Examples:
        >>> from byzopt.theory.sampling import excess_probability
        >>> excess_probability(n=4, f=1, count=2, tolerated=0)
        0.5
    """
    _check(n, f, count)
    most = min(f, count)
    bad = sum(comb(f, k) * comb(n - f, count - k) for k in range(tolerated + 1, most + 1))
    return float(Fraction(bad, comb(n, count)))


def outnumbered_probability(n: int, f: int, p: float, at_half: bool = False) -> float:
    """P(more of those who come lie than not), where each of n workers comes with probability p.

    Args:
        n: Number of workers.
        f: How many of them lie.
        p: Probability that a worker comes.
        at_half: Whether as many liars as others are enough, if any come.

    Returns:
        The probability.

    Raises:
        InvalidInput: More liars than there are workers, and a p outside [0, 1].

    Examples:
        >>> from byzopt.theory.sampling import outnumbered_probability
        >>> round(outnumbered_probability(n=3, f=1, p=0.5), 6)  # the liar comes and nobody else
        0.125
        >>> [round(outnumbered_probability(20, 5, 0.2, at_half), 4) for at_half in (False, True)]
        [0.0734, 0.1888]
    """
    _check(n, f, n)
    require(0 <= p <= 1, "Parameter `p` of a sample", "lie in [0, 1]", p)
    return sum(
        _binomial(f, liars, p) * _binomial(n - f, others, p)
        for liars in range(1, f + 1)
        for others in range(min(liars - (not at_half), n - f) + 1)
    )


def _binomial(n: int, k: int, p: float) -> float:
    return comb(n, k) * p**k * (1 - p) ** (n - k)


def least_tolerance(n: int, f: int, count: int, rounds: int, confidence: float = 0.99) -> int | None:
    """The least f̂ < C/2 with which all of T rounds are sound with this confidence, by the union bound
    T P(more than f̂ of C lie) <= 1 - confidence; None where there is none.

    Args:
        n: Number of workers.
        f: How many of them lie.
        count: Size C of the sample.
        rounds: Number T of rounds.
        confidence: Probability that no round has more than f̂ liars.

    Examples:
        >>> from byzopt.theory.sampling import least_tolerance
        >>> [least_tolerance(150, 30, count, rounds=500) for count in (28, 29, 40, 60, 100)]
        [None, 14, 17, 22, 29]
    """
    spare = (1 - confidence) / rounds
    for tolerated in range((count - 1) // 2 + 1):
        if excess_probability(n, f, count, tolerated) <= spare:
            return tolerated
    return None


def least_sample(n: int, f: int, rounds: int, confidence: float = 0.99) -> int | None:
    """The least sample C that `least_tolerance` has an answer for.

    The condition of FedRo (arXiv:2402.12780) with the exact tail in the place of a Chernoff bound, which asks
    for about twice as many (`chernoff_sample`).

    Args:
        n: Number of workers.
        f: How many of them lie.
        rounds: Number T of rounds.
        confidence: Probability that no round has more liars than are tolerated.

    Examples:
        >>> from byzopt.theory.sampling import least_sample
        >>> least_sample(150, 30, rounds=500), least_sample(150, 30, rounds=1500)
        (29, 31)
    """
    for count in range(1, n + 1, 2):  # an even sample bears no more liars than the odd one before it
        if least_tolerance(n, f, count, rounds, confidence) is not None:
            return count
    return None


def chernoff_sample(n: int, f: int, rounds: int, confidence: float = 0.99) -> int | None:
    """The least odd C with C >= ln(T/(1 - confidence)) / D(f̂/C ‖ f/n) and f̂ = (C - 1)/2, D the
    Kullback-Leibler divergence of coins: what `least_sample` is by a Chernoff bound.

    Args:
        n: Number of workers.
        f: How many of them lie.
        rounds: Number T of rounds.
        confidence: Probability that no round has more liars than are tolerated.

    Examples:
        >>> from byzopt.theory.sampling import chernoff_sample
        >>> chernoff_sample(150, 30, rounds=500)
        53
    """
    share = f / n
    for count in range(1, n + 1, 2):
        borne = (count - 1) / 2 / count
        if not share:
            return count
        if borne <= share:
            continue
        divergence = borne * log(borne / share) + (1 - borne) * log((1 - borne) / (1 - share))
        if count * divergence >= log(rounds / (1 - confidence)):
            return count
    return None


def good_samples(n: int, honest: int, count: int, delta: float) -> tuple[float, float]:
    """(p_G, P_G) of Byz-VR-MARINA-PP: the probability that at least (1 - δ) C of C sampled workers are
    honest, and that one honest worker is in the sample, given that.

    Args:
        n: Number of workers.
        honest: How many of them are honest.
        count: Size C of the sample.
        delta: Share δ of liars in a sample that the rule bears.

    Examples:
        >>> from byzopt.theory.sampling import good_samples
        >>> [round(x, 6) for x in good_samples(20, 15, count=2, delta=0.25)]
        [0.552632, 0.133333]
    """
    _check(n, n - honest, count)
    least = ceil((1 - delta) * count - 1e-9)
    ways = {k: comb(honest, k) * comb(n - honest, count - k) for k in range(least, min(honest, count) + 1)}
    good = sum(ways.values())
    if not good:
        return 0.0, 0.0
    inside = Fraction(sum(k * way for k, way in ways.items()), good * honest)
    return float(Fraction(good, comb(n, count))), float(inside)


def marina_pp_constant(
    n: int, honest: int, count: int, delta: float, p: float, cdelta: float, reach: float, omega: float = 0.0
) -> float:
    """A of Theorem 4.1 of arXiv:2311.14127: 32 p_G G P_G (30 ω + 11)(1 + 2 c δ)/(p² (1 - δ) C)
    + 16 (1 - p_G)(1 + 4 F²)/p².

    Args:
        n: Number of workers.
        honest: How many of them are honest.
        count: Size C of the sample in rounds without the coin.
        delta: Share δ of liars in a sample that the rule bears.
        p: Probability of the coin.
        cdelta: c δ, the rule's coefficient.
        reach: F, how much longer than the longest row the rule's answer may be.
        omega: ω of the compressor.

    Examples:
        >>> from byzopt.theory.sampling import marina_pp_constant
        >>> round(marina_pp_constant(20, 15, 1, delta=0.25, p=0.1, cdelta=1.5, reach=1.0))
        142800
    """
    chance, inside = good_samples(n, honest, count, delta)
    good = 32 * chance * honest * inside * (30 * omega + 11) * (1 + 2 * cdelta) / ((1 - delta) * count)
    return (good + 16 * (1 - chance) * (1 + 4 * reach**2)) / p**2


def marina_pp_step(lipschitz: float, constant: float) -> float:
    """The longest step of the theorem, 1/(L (1 + √A)).

    Args:
        lipschitz: L.
        constant: A.

    Examples:
        >>> from byzopt.theory.sampling import marina_pp_step
        >>> marina_pp_step(1.0, 9.0)
        0.25
    """
    return 1 / (lipschitz * (1 + sqrt(constant))) if lipschitz else inf


def _check(n: int, f: int, count: int) -> None:
    good = 0 <= f <= n and 1 <= count <= n
    require(good, "A sample", "be of 1 .. n workers of whom f <= n lie", f"n = {n}, f = {f}, C = {count}")
