"""Slow float64 twins of the rules, written straight from their papers with loops over workers."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def dist(a, b):
    return float(np.sqrt(np.sum((a - b) ** 2)))


def mean(rows, f=0):
    return sum(rows) / len(rows)


def median(rows, f=0):
    ordered, n = np.sort(rows, axis=0), len(rows)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def trimmed_mean(rows, f):
    kept = np.sort(rows, axis=0)[f : len(rows) - f]
    return kept.sum(axis=0) / len(kept)


def krum_scores(rows, f, extra=0, power=2):
    n = len(rows)
    scores = []
    for i in range(n):
        others = sorted(dist(rows[i], rows[j]) ** power for j in range(n) if j != i)
        scores.append(sum(others[: n - f - 2 + extra]))
    return np.array(scores)


def krum(rows, f, extra=0, power=2):
    return rows[int(np.argmin(krum_scores(rows, f, extra, power)))]


def multi_krum(rows, f, m=None, extra=0, power=2):
    order = np.argsort(krum_scores(rows, f, extra, power), kind="stable")
    return mean(rows[order[: len(rows) - f if m is None else m]])


def objective(rows, z):
    return sum(dist(row, z) for row in rows)


def geometric_median(rows, f=0, steps=3000):
    """Vardi and Zhang's modified Weiszfeld iteration from the mean, then the better of it and any row."""
    z = mean(rows)
    for _ in range(steps):
        lengths = np.array([dist(row, z) for row in rows])
        away = lengths > 0
        if not away.any():
            return z
        inverse = 1 / lengths[away]
        aim = (inverse[:, None] * rows[away]).sum(axis=0) / inverse.sum()
        pull = np.linalg.norm((inverse[:, None] * (rows[away] - z)).sum(axis=0))
        stay = min(1.0, (~away).sum() / pull) if pull else 1.0
        z = (1 - stay) * aim + stay * z
    return min([z, *rows], key=lambda point: objective(rows, point))


def rfa(rows, f=0, iterations=8, nu=0.1, start=None):
    z = np.zeros(rows.shape[1]) if start is None else start
    for _ in range(iterations):
        beta = np.array([1 / max(dist(row, z), nu) for row in rows])
        z = (beta[:, None] * rows).sum(axis=0) / beta.sum()
    return z


def nnm(rows, f):
    n, out = len(rows), []
    for i in range(n):
        order = sorted(range(n), key=lambda j: (-1.0 if j == i else dist(rows[i], rows[j]), j))
        out.append(mean(rows[order[: n - f]]))
    return np.array(out)


def worst_ratios(rows, answer, f, always=None):
    """The largest linear and squared ratio of `answer`'s error to the dispersion over every honest subset, of
    those that hold the row `always` if one is given."""
    linear = squared = 0.0
    for subset in combinations(range(len(rows)), len(rows) - f):
        if always is not None and always not in subset:
            continue
        honest = rows[list(subset)]
        centre = mean(honest)
        lengths = np.array([dist(row, centre) for row in honest])
        error = dist(answer, centre)
        if error > 1e-9 * (1 + np.abs(rows).max()):
            linear = max(linear, error / max(lengths.mean(), 1e-300))
            squared = max(squared, error**2 / max((lengths**2).mean(), 1e-300))
    return linear, squared
