"""FLDetector written from its source: float64, plain loops, the Hessian by one BFGS update after another."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt

import numpy as np
from sklearn.cluster import KMeans

Vector = np.ndarray


def hessian(pairs: Sequence[tuple[Vector, Vector]]) -> np.ndarray:
    """The BFGS matrix of pairs (s, y), oldest first, from σ I with σ = <y, s>/‖s‖² of the last pair."""
    s, y = pairs[-1]
    b = (y @ s) / (s @ s) * np.eye(len(s))
    for s, y in pairs:
        bs = b @ s
        b = b - np.outer(bs, bs) / (s @ bs) + np.outer(y, y) / (y @ s)
    return b


def scatter(values: Vector, k: int) -> tuple[float, Vector]:
    found = KMeans(n_clusters=k, n_init=3, random_state=0).fit(values.reshape(-1, 1))
    return float(found.inertia_), found.labels_


def upper(means: Vector, drawn: Sequence[Vector]) -> set[int]:
    """Whose averages stand out, by the gap statistic and two means of scikit-learn."""
    scaled = (means - means.min()) / (means.max() - means.min())
    gaps, spreads = [], []
    for k in (1, 2):
        logs = [log(scatter(each, k)[0]) for each in drawn]
        gaps.append(float(np.mean(logs)) - log(scatter(scaled, k)[0]))
        spreads.append(sqrt(1 + 1 / len(drawn)) * float(np.std(logs)))
    if gaps[0] - gaps[1] + spreads[1] >= 0:
        return set()
    label = scatter(scaled, 2)[1]
    far = max((0, 1), key=lambda c: scaled[label == c].mean())
    return {i for i in range(len(means)) if label[i] == far}


def scores(rows: Sequence[np.ndarray], points: Sequence[Vector], answers: Sequence[Vector], t: int) -> Vector:
    """The shares of round t (from 0), given all rows `[n, d]`, points and aggregates up to there."""
    pairs = [(points[j] - points[j - 1], answers[j] - answers[j - 1]) for j in range(1, t)]
    bend = hessian(pairs[-10:]) @ (points[t] - points[t - 1])
    away = np.array([np.linalg.norm(rows[t - 1][i] + bend - rows[t][i]) for i in range(len(rows[t]))])
    return away / away.sum()
