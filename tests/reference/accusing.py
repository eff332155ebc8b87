"""Slow twin of `aggregators.pairs`: whom twos and threes of workers accuse, by plain loops over all rows."""

from __future__ import annotations

from itertools import combinations

import numpy as np

SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98)


def at_odds(z: np.ndarray, level: float) -> bool:
    """Whether differences z_1 .. z_t `[t, d]` sum up beyond what symmetric ones do."""
    total = z.sum(axis=0)
    before = np.cumsum(z, axis=0) - z
    squares, cross = (z**2).sum(), ((before * z).sum(axis=1) ** 2).sum()
    first = [r for r in (z**2).sum(axis=1) if r > 0]
    if not first:
        return False
    rho = first[0] ** 2
    bound = squares + 2 * np.sqrt((cross + rho) * (2 * np.log(1 / level) + np.log1p(cross / rho)))
    return bool(total @ total > bound)


def odd(rows: np.ndarray, i: int, j: int, k: int) -> int:
    """In how many rounds of rows `[t, n, d]` i is farther from j and k than these are apart."""

    def apart(a: int, b: int) -> np.ndarray:
        return np.sqrt(((rows[:, a] - rows[:, b]) ** 2).sum(axis=1))

    return int(((apart(j, k) < apart(i, j)) & (apart(j, k) < apart(i, k))).sum())


def chance(hits: int, rounds: int) -> float:
    """1 over the mixture of likelihood ratios against 1/3."""
    ratios = [(3 * q) ** hits * (1.5 * (1 - q)) ** (rounds - hits) for q in SHARES]
    return float(len(SHARES) / sum(ratios))


def accused(rows: np.ndarray, f: int, level: float) -> set[int]:
    """The workers accused after the rounds `[t, n, d]`, of whichever."""
    t, n, _ = rows.shape
    two, three = level / (n * (n - 1)), level / (n * (n - 1) * max(n - 2, 1))
    found = set()
    for i in range(n):
        others = [j for j in range(n) if j != i]
        if sum(at_odds(rows[:, i] - rows[:, j], two) for j in others) > f:
            found.add(i)
        partners = dict.fromkeys(others, 0)
        for j, k in combinations(others, 2):
            if chance(odd(rows, i, j, k), t) <= three:
                partners[j] += 1
                partners[k] += 1
        if sum(count <= f for count in partners.values()) < n - f - 1:
            found.add(i)
    return found
