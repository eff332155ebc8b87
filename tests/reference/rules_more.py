"""More slow float64 twins, written straight from the papers: every subset is tried, every loop is plain.

They share nothing with the library but the readings in its docstrings where a paper leaves something open
(ties, centred clipping's τ, CAF at f = 0).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np

from tests.reference.rules import dist, mean, median, nnm


def even(rows, indices):
    return mean([rows[i] for i in indices])


def medoid(rows, f=0):
    sums = [sum(dist(a, b) for b in rows) for a in rows]
    return rows[sums.index(min(sums))]


def cge(rows, f):
    zero = np.zeros(rows.shape[1])
    order = sorted(range(len(rows)), key=lambda i: (dist(rows[i], zero), i))
    return even(rows, order[: len(rows) - f])


def faba(rows, f):
    left = list(range(len(rows)))
    for _ in range(f):
        centre = even(rows, left)
        left.remove(max(left, key=lambda i: dist(rows[i], centre)))
    return even(rows, left)


def aksel(rows, f=0):
    centre = median(rows)
    dists = [dist(row, centre) for row in rows]
    limit = sorted(dists)[(len(rows) - 1) // 2]
    return even(rows, [i for i, value in enumerate(dists) if value <= limit])


def best_subset(rows, f, cost):
    """The n - f indices of least cost, by trying all; and that cost."""
    subsets = list(combinations(range(len(rows)), len(rows) - f))
    costs = [cost(rows[list(subset)]) for subset in subsets]
    least = int(np.argmin(costs))
    return list(subsets[least]), costs[least]


def diameter(rows):
    return max(dist(a, b) for a in rows for b in rows)


def variance(rows):
    centre = mean(rows)
    return sum(dist(row, centre) ** 2 for row in rows)


def top_eigenvalue(rows):
    """Largest eigenvalue of the d x d covariance matrix, summed outer product by outer product."""
    centre = mean(rows)
    covariance = sum(np.outer(row - centre, row - centre) for row in rows) / len(rows)
    return float(np.linalg.eigvalsh(covariance)[-1])


def mda(rows, f):
    return even(rows, best_subset(rows, f, diameter)[0])


def mva(rows, f):
    return even(rows, best_subset(rows, f, variance)[0])


def smea(rows, f):
    return even(rows, best_subset(rows, f, top_eigenvalue)[0])


def around(values, centre, count):
    """The mean of the `count` numbers nearest to `centre`; ties: the smaller."""
    nearest = sorted(values, key=lambda value: (abs(value - centre), value))[:count]
    return sum(nearest) / count


def meamed(rows, f):
    n = len(rows)
    return np.array([around(column, np.median(column), n - f) for column in rows.T])


def phocas(rows, f):
    n = len(rows)
    return np.array([around(column, np.mean(np.sort(column)[f : n - f]), n - f) for column in rows.T])


def bulyan(rows, f):
    left, chosen = list(range(len(rows))), []
    while len(chosen) < len(rows) - 2 * f:
        scores = []
        for i in left:
            others = sorted(dist(rows[i], rows[j]) ** 2 for j in left if j != i)
            scores.append((sum(others[: max(1, len(left) - f - 2)]), sum(others), i))
        chosen.append(min(scores)[2])
        left.remove(chosen[-1])
    picked = rows[sorted(chosen)]
    return np.array([around(column, np.median(column), len(rows) - 4 * f) for column in picked.T])


def monna(rows, f, trusted=0):
    order = sorted(range(len(rows)), key=lambda i: (i != trusted, dist(rows[i], rows[trusted]), i))
    return even(rows, order[: len(rows) - f])


def caf(rows, f):
    """Weights are lowered along the top eigenvector of the weighted d x d covariance matrix."""
    n = len(rows)
    c, least, best = [1.0] * n, np.inf, mean(rows)
    while sum(c) > n - 2 * f + 1e-9:
        centre = sum(w * row for w, row in zip(c, rows, strict=True)) / sum(c)
        spread = [np.outer(row - centre, row - centre) for row in rows]
        covariance = sum(w * outer for w, outer in zip(c, spread, strict=True)) / sum(c)
        values, vectors = np.linalg.eigh(covariance)
        if values[-1] < least:
            least, best = values[-1], centre
        shares = [float((row - centre) @ vectors[:, -1]) ** 2 for row in rows]
        most = max(share for share, w in zip(shares, c, strict=True) if w > 0)
        c = [max(0.0, w * (1 - share / most)) if w > 0 else 0.0 for w, share in zip(c, shares, strict=True)]
    return best


def centered_clipping(rows, start, tau=None, iterations=1):
    z = start
    for _ in range(iterations):
        dists = [dist(row, z) for row in rows]
        bound = float(np.median(dists)) if tau is None else tau
        pulls = [(row - z) * min(1.0, bound / far) for row, far in zip(rows, dists, strict=True) if far > 0]
        z = z + sum(pulls, np.zeros_like(z)) / len(rows)
    return z


def bulk(rows):
    """The mean of the rows no farther from a row than n // 2 others, for the row of which that is nearest.

    Means of rows that tie are averaged. Distances here are equal to 12 digits or not at all.
    """
    reach = [sorted(dist(row, other) for other in rows)[len(rows) // 2] for row in rows]
    hoods = [
        [j for j, other in enumerate(rows) if dist(row, other) <= radius * (1 + 1e-12)]
        for row, radius in zip(rows, reach, strict=True)
        if radius <= min(reach) * (1 + 1e-12)
    ]
    return np.mean([even(rows, hood) for hood in hoods], axis=0)


def median_of_means(rows, order, groups):
    """`order[j]` goes to group j mod `groups`."""
    means = [even(rows, [int(i) for i in order[g::groups]]) for g in range(groups)]
    return median(np.array(means))


TWINS: dict[str, Callable[..., np.ndarray]] = {
    twin.__name__: twin
    for twin in (medoid, cge, faba, aksel, mda, mva, smea, meamed, phocas, bulyan, monna, caf)
}


def normalise(rows, most=100.0):
    """Every row at the median of the lengths, one stretched at most `most` times."""
    lengths = [dist(row, np.zeros(len(row))) for row in rows]
    middle = float(np.median(lengths))
    factors = [min(middle / size, most) if size else 1.0 for size in lengths]
    return np.array([factor * row for factor, row in zip(factors, rows, strict=True)])


def capped_nnm(rows, f, cap=1.0):
    """Every row on its way to the mean of its n - f nearest, no farther than `cap` medians of these ways."""
    means = nnm(rows, f)
    sizes = [dist(a, b) for a, b in zip(means, rows, strict=True)]
    most = cap * float(np.median(sizes))
    cuts = [min(1.0, most / size) if size else 1.0 for size in sizes]
    return np.array([v + cut * (y - v) for v, y, cut in zip(rows, means, cuts, strict=True)])
