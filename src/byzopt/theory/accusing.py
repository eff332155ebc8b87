"""When an accusation is sound: tests that liars cannot turn against honest workers, and their limits.

n workers, of whom at most f lie; honest rows of a round are independent draws of **one distribution**, given
everything before (the iterate, all earlier rows). Liars see all of it, and the honest rows of the round, and
may copy, straddle, alternate or wait. No distance tells who is honest: with n = 2 f + 1, f copies of one
honest row are a majority with it. So nobody is accused because he is far from a crowd of which f may lie.

**Drift, by pairs** (`drift`). For two honest workers z_t = g_i - g_j is symmetric given the past, whatever
the noise. Let S_t = z_1 + ... + z_t, Q_t = Σ‖z_s‖², y_t = <S_{t-1}, z_t> and R_t = Σ y_s². Then
‖S_t‖² = Q_t + 2 Σ y_s, and exp(λ Σ y_s - λ² R_t/2) is a supermartingale for every λ, because
E[exp(λ y - λ² y²/2)] = E[exp(-λ² y²/2) cosh(λ y)] <= 1 for symmetric y (de la Peña, 1999). Mixed over
λ ~ N(0, 1/ρ) and with Ville's inequality: with probability 1 - p, for all t at once,

    ‖S_t‖² <= Q_t + 2 sqrt((R_t + ρ)(2 log(1/p) + log(1 + R_t/ρ))).

ρ = ‖z_1‖⁴ is known before it is used. Only these two workers' rows are in it: a liar has no part in what two
honest ones say of each other. In D dimensions alike R ~ Q²/(2D), so the test adapts to D by itself.

**The odd one out, by threes** (`odd_limit`). Of three honest rows each is the one farther from both others
than these are apart with probability at most 1/3, by exchangeability. k such rounds of m have a mixture of
likelihood ratios (q/(1/3))^k ((1 - q)/(2/3))^(m - k) below 1/p for all m with probability 1 - p.

**Votes.** A worker is accused who is at odds with more than f others; or who is so often the odd one out that
fewer than n - f - 1 others have at most f partners against it. Two honest workers are never at odds, and an
honest one is never the odd one beside two honest ones, so that liars alone never suffice. With probability
1 - p over the whole run no honest worker is accused, for every n > 2 f. The margin is one of power: a liar
who drifts can be told from n = 2 f + 1 on, one who is only remote (large noise without drift) from
n = 2 f + 2 on, or from 2 f + 1 where other liars stay apart from it. Who copies an honest row is told never.
Data that differ between workers break the premise, and then honest workers are accused. So do rows that are
not fresh: momentum at the workers keeps a worker's noise for many rounds.
"""

from __future__ import annotations

from math import exp, inf, log

SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98)  # q of the mixture, in equal parts
ODD = 1 / 3


def odd_limit(rounds: int, level: float) -> int:
    """The least number of rounds, of `rounds`, as the odd one out of three that is not chance at `level`.

    More than `rounds` where no number is enough yet.

    Args:
        rounds: Number of rounds T.
        level: Level of the test.

    Examples:
        >>> from byzopt.theory.accusing import odd_limit
        >>> odd_limit(100, level=0.01) < 100
        True
    """
    wealth = -log(level)
    low, high = 0, rounds + 1
    while low < high:
        middle = (low + high) // 2
        if _log_wealth(middle, rounds) >= wealth:
            high = middle
        else:
            low = middle + 1
    return low


def _log_wealth(hits: int, rounds: int) -> float:
    """The logarithm of the mixture of likelihood ratios, for rates above 1/3: it grows with `hits`."""
    if hits > rounds:
        return inf
    logs = [hits * log(q / ODD) + (rounds - hits) * log((1 - q) / (1 - ODD)) for q in SHARES]
    top = max(logs)
    return top + log(sum(exp(each - top) for each in logs) / len(SHARES))
