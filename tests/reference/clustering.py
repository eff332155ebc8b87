"""Rules that cluster, thin out, elect or fit planes, written from their sources: float64, plain loops.

Slow on purpose; shares nothing with the library. Each follows the algorithm named, with the readings of the
library's docstrings where the source leaves something open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from scipy.optimize import minimize
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import PCA

from tests.reference.detection import cosine, cut, length, mean

Vector = np.ndarray
Rows = Sequence[Vector]


def weighted_median_point(rows: Rows, weights: Sequence[float], steps: int = 3000) -> Vector:
    """Weiszfeld's iteration from the weighted mean, then the better of it and any row."""
    points, w = np.stack(list(rows)), np.array(weights)
    z = w @ points / w.sum()
    for _ in range(steps):
        pulls = w / np.maximum(np.linalg.norm(points - z, axis=1), 1e-300)
        before, z = z, pulls @ points / pulls.sum()
        if np.abs(z - before).max() <= 1e-12:
            break
    return min([z, *points], key=lambda point: w @ np.linalg.norm(points - point, axis=1))


def auto_gm(rows: Rows, reach: float = 1.0, lam: float | None = None) -> Vector:
    """Li, Ngai, Voigt: the weights by the search of Blades' listing, over how many rows have one."""
    n = len(rows)
    z = weighted_median_point(rows, [1 / n] * n)
    lam = n * reach * float(np.median([length(row - z) for row in rows])) if lam is None else lam
    value = np.inf
    for _ in range(100):
        away = [length(row - z) for row in rows]
        order, level = sorted(away), np.inf
        for p in range(n):
            tried = (sum(order[: p + 1]) + lam) / (p + 1)
            if tried < order[p]:
                break
            level = tried
        shares = [max(0.0, level - a) / lam for a in away]
        kept = [i for i in range(n) if shares[i] > 0]
        z = weighted_median_point([rows[i] for i in kept], [shares[i] for i in kept])
        now = sum(shares[i] * length(rows[i] - z) for i in kept) + lam / 2 * sum(s * s for s in shares)
        if value - now <= 1e-12 * now:
            break
        value = now
    return z


def shares_by_search(away: Vector, lam: float) -> Vector:
    """The weights of AutoGM by a general solver, to hold the closed form against."""
    n = len(away)
    found = minimize(
        lambda a: a @ away + lam / 2 * a @ a,
        np.full(n, 1 / n),
        jac=lambda a: away + lam * a,
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": lambda a: np.ones(n)},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    return found.x


def clipped_clustering(rows: Rows, linkage: str = "average") -> Vector:
    """Li, Ngai, Voigt, on one round's norms; clusters by scikit-learn."""
    n, size = len(rows), float(np.median([length(row) for row in rows]))
    apart = np.array([[0.0 if i == j else 1 - cosine(rows[i], rows[j]) for j in range(n)] for i in range(n)])
    label = AgglomerativeClustering(n_clusters=2, metric="precomputed", linkage=linkage).fit(apart).labels_
    kept = [i for i in range(n) if label[i] == np.bincount(label).argmax()]
    return mean([cut(rows[i], size) for i in kept])


def thinned(row: Vector, share: float) -> Vector:
    """`row` with all but its largest `share` of values set to 0."""
    count = max(1, int(np.ceil(share * len(row) - 1e-9)))
    limit = sorted(abs(row))[len(row) - count]
    return np.array([x if abs(x) >= limit else 0.0 for x in row])


def lasa(
    rows: Rows,
    sparsity: float = 0.3,
    norm_radius: float = 1.0,
    sign_radius: float = 1.0,
    layers: tuple[int, ...] | None = None,
) -> Vector:
    """Xu, Zhang, Hu: clip, thin out, and filter each layer by length and positive direction purity."""
    size = float(np.median([length(row) for row in rows]))
    thin = [thinned(cut(row, size), 1 - sparsity) for row in rows]
    answer, start = [], 0
    for width in layers or (len(rows[0]),):
        parts = [row[start : start + width] for row in thin]
        start += width
        norms = [length(part) for part in parts]
        purity = [0.5 * (1 + sum(np.sign(part)) / max(1, sum(abs(np.sign(part))))) for part in parts]
        kept = []
        for i in range(len(parts)):
            scores = [
                abs(found[i] - np.median(found)) / np.std(found) if np.std(found) > 1e-12 else 0.0
                for found in (norms, purity)
            ]
            if scores[0] < norm_radius and scores[1] < sign_radius:
                kept.append(parts[i])
        answer.append(mean(kept or parts))
    return np.concatenate(answer)


def fedseca(rows: Rows, sparsity: float = 0.9, released: bool = False) -> Vector:
    """Benjamin et al., equations 2 to 7: concordance, say, election, clipping, clamping, thinning, mean; or
    as their code votes and clamps."""
    n, d = len(rows), len(rows[0])
    say = []
    for one in rows:
        agreement = [sum(np.sign(one) * np.sign(other)) / d for other in rows]
        say.append(max(0.0, sum(np.sign(agreement)) / n))
    size = float(np.median([length(row) for row in rows]))
    short = [cut(row, size) for row in rows]
    raw = [thinned(row, 1 - sparsity) != 0 for row in rows]
    answer = np.zeros(d)
    for j in range(d):
        voters = [i for i in range(n) if raw[i][j] or not released]
        elected = np.sign(round(sum(n * say[i] * np.sign(rows[i][j]) for i in voters)))
        middle = float(np.median([abs(row[j]) for row in short]))
        sizes = [abs((rows if released else short)[i][j]) for i in range(n)]
        taken = [min(middle, sizes[i]) for i in range(n) if raw[i][j] and elected * np.sign(rows[i][j]) > 0]
        answer[j] = elected * sum(taken) / len(taken) if taken else 0.0
    return answer


def boba(rows: Rows, f: int, trusted: tuple[int, ...] = (0, 1), least: float = 0.0) -> Vector:
    """Bao, Wu, He, both stages; principal directions by scikit-learn, on the rows themselves."""
    own = np.stack([rows[i] for i in trusted])
    others = np.stack([row for i, row in enumerate(rows) if i not in trusted])
    count, pca = len(others) - f, PCA(n_components=len(trusted) - 1).fit(own)
    chosen: set[int] = set()
    for _ in range(100):
        back = pca.inverse_transform(pca.transform(others))
        order = sorted(range(len(others)), key=lambda i: length(others[i] - back[i]))[:count]
        if set(order) == chosen:
            break
        chosen = set(order)
        pca = PCA(n_components=len(trusted) - 1).fit(others[sorted(order)])
    corners = np.column_stack([pca.transform(own), np.ones(len(own))])
    places = pca.transform(others)
    shares = np.column_stack([places, np.ones(len(others))]) @ np.linalg.pinv(corners)
    lowest = shares.min(axis=1)
    inside = [i for i in range(len(others)) if lowest[i] >= least]
    if len(inside) < count:
        inside = sorted(range(len(others)), key=lambda i: -lowest[i])[:count]
    return pca.inverse_transform(places[inside].mean(axis=0)[None])[0]


def rlr(rows: Rows, answer: Vector, threshold: int) -> Vector:
    """Ozdayi et al., section 4: `answer` turned round where fewer votes than `threshold` agree."""
    votes = [abs(sum(np.sign(column))) for column in zip(*rows, strict=True)]
    return np.array([x if vote >= threshold else -x for x, vote in zip(answer, votes, strict=True)])


def gas(rows: Rows, f: int, rule: Callable[..., Vector], groups: Sequence[Sequence[int]]) -> Vector:
    """Liu et al., algorithm 1, for columns that were dealt to `groups`."""
    scores = np.zeros(len(rows))
    for group in groups:
        parts = [row[list(group)] for row in rows]
        answer = rule(np.stack(parts))
        scores += [length(part - answer) for part in parts]
    order = sorted(range(len(rows)), key=lambda i: scores[i])
    return mean([rows[i] for i in order[: len(rows) - f]])


def foundation(rows: Rows, copies: int, rule: Callable[..., Vector]) -> Vector:
    """Fang et al., NDSS 2025: the rule on the rows and on copies of that furthest from both extremes."""
    top, bottom = np.max(np.stack(rows), axis=0), np.min(np.stack(rows), axis=0)
    scores = [min(length(row - top), length(row - bottom)) for row in rows]
    chosen = rows[scores.index(max(scores))]
    return rule(np.stack([*rows, *[chosen] * copies]))


def best_two(apart: Vector, joined: Callable[[Sequence[float]], float]) -> set[frozenset[int]]:
    """The two clusters that are left of n rows by joining the nearest ones, one join after another."""
    clusters = [frozenset([i]) for i in range(len(apart))]
    while len(clusters) > 2:
        pairs = combinations(clusters, 2)
        a, b = min(pairs, key=lambda two: joined([apart[i, j] for i in two[0] for j in two[1]]))
        clusters = [c for c in clusters if c not in (a, b)] + [a | b]
    return set(clusters)


TWINS: dict[str, Callable[..., Vector]] = {
    twin.__name__: twin for twin in (auto_gm, clipped_clustering, lasa, fedseca, boba)
}
