"""Trial-based trust and hybrids in float64, from the papers' formulas, one worker after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Loss = Callable[[np.ndarray], float]


def bant(
    loss: Loss, x: np.ndarray, rows: np.ndarray, trust: list[float], step: float, beta: float
) -> tuple[np.ndarray, list[float]]:
    """The aggregate of one round of Bant and the trust after it; with NaN rows, which gain nothing."""
    n, before = len(rows), loss(x)
    gains = []
    for row in rows:
        after = loss(x - step * row) if np.isfinite(row).all() else np.nan
        gains.append(max(0.0, before - after) if np.isfinite(after) else 0.0)
    sound = [bool(np.isfinite(row).all()) for row in rows]
    if sum(gains) > 0:
        shares = [gain / sum(gains) for gain in gains]
    else:  # the authors' code: everybody, with next to no weight
        beta, shares = 0.001, [one / sum(sound) for one in sound]
    trust = [(1 - beta) * old + beta * new for old, new in zip(trust, shares, strict=True)]
    weights = [t if share > 0 else 0.0 for t, share in zip(trust, shares, strict=True)]
    total, g = sum(weights), np.zeros(rows.shape[1])
    for i in range(n):
        if weights[i] > 0:
            g += weights[i] / total * rows[i]
    return g, trust


def hybrid(loss: Loss, x: np.ndarray, answers: list[np.ndarray], step: float) -> int:
    """Which of the rules' answers is taken: that with the least loss after the step, the first of equals."""
    losses = [loss(x - step * answer) for answer in answers]
    return losses.index(min(losses))
