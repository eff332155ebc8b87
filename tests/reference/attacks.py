"""Slow float64 twins of the attacks, written with loops straight from their formulas.

Every twin takes honest rows and the Byzantine workers' own rows as lists of lists and gives rows.
"""

from __future__ import annotations

from math import ceil, sqrt
from statistics import NormalDist

Row = list[float]
Rows = list[Row]


def mean(rows: Rows) -> Row:
    return [sum(row[k] for row in rows) / len(rows) for k in range(len(rows[0]))]


def std(rows: Rows, ddof: int = 1) -> Row:
    if len(rows) == 1:
        return [0.0] * len(rows[0])
    m = mean(rows)
    return [sqrt(sum((r[k] - m[k]) ** 2 for r in rows) / (len(rows) - ddof)) for k in range(len(m))]


def dot(a: Row, b: Row) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def sub(a: Row, b: Row) -> Row:
    return [x - y for x, y in zip(a, b, strict=True)]


def along(start: Row, step: float, way: Row) -> Row:
    return [x + step * y for x, y in zip(start, way, strict=True)]


def unit(a: Row) -> Row:
    length = sqrt(dot(a, a))
    return [x / length for x in a] if length > 0 else a


def negative(rows: Rows, scale: float = 1.0) -> Rows:
    return [[-scale * x for x in row] for row in rows]


def reversed_mean(honest: Rows, b: int, scale: float) -> Rows:
    return negative([mean(honest)] * b, scale)


def alie(honest: Rows, b: int, z: float = 1.0, sign: int = 1, ddof: int = 1) -> Rows:
    return [along(mean(honest), sign * z, std(honest, ddof))] * b


def alie_quantile(n: int, f: int) -> float:
    q = n // 2 + 1 - f
    return NormalDist().inv_cdf((n - f - q) / (n - f))


def mimic_variance(rounds: list[Rows], z0: Row, warmup: int) -> tuple[list[Row], Row]:
    """What is sent in each round, `rounds` holding the honest rows of each, and the direction at the end."""
    sent, z, mu, target = [], z0, [0.0] * len(z0), 0
    for t, honest in enumerate(rounds, start=1):
        if t <= warmup:
            m = mean(honest)
            mu = [((t - 1) * a + b) / t for a, b in zip(mu, m, strict=True)]
            w = [0.0] * len(z)
            for v in honest:
                offset = sub(v, mu)
                w = along(w, dot(offset, z), offset)
            w = unit(w)
            z = unit(w if t == 1 else [(t - 1) * a + b for a, b in zip(z, w, strict=True)])
            scores = [dot(v, z) for v in honest]
            target = scores.index(max(scores))
        sent.append(honest[target])
    return sent, z


def label_shift(labels: list[int], classes: int, shift: int) -> list[int]:
    return [(y + shift) % classes for y in labels]


def line_search(damage, evaluations: int, step: float) -> float:  # type: ignore[no-untyped-def]
    t, best, used = 0.0, damage(0.0), 1
    while used < evaluations:
        used += 1
        if (tried := damage(t + step)) <= best:
            step *= 0.8
            break
        t, best, step = t + step, tried, 2 * step
    while used < evaluations:
        used += 1
        if (tried := damage(t + step)) > best:
            t, best = t + step, tried
        step *= 0.8
    return t


def way_of(honest: Rows, way: str) -> Row:
    if way == "std":
        return [-x for x in std(honest)]
    if way == "unit":
        return [-x for x in unit(mean(honest))]
    return [-((x > 0) - (x < 0)) for x in mean(honest)]


def sq_dist(a: Row, b: Row) -> float:
    return dot(sub(a, b), sub(a, b))


def largest(allowed, high: float = 1e6) -> float:  # type: ignore[no-untyped-def]
    """The end of the interval [0, γ] on which `allowed` holds, by bisection."""
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return low


def crowd(honest: Rows, way: str, kind: str) -> Row:
    m, p = mean(honest), way_of(honest, way)
    if dot(p, p) == 0:
        return m
    total = max if kind == "max" else sum
    bound = max(total(sq_dist(v, u) for u in honest) for v in honest)
    gamma = largest(lambda g: total(sq_dist(along(m, g, p), v) for v in honest) <= bound)
    return along(m, gamma, p)


def krum_winner(rows: Rows, neighbours: int) -> int:
    scores = []
    for i, v in enumerate(rows):
        others = sorted(sq_dist(v, u) for j, u in enumerate(rows) if j != i)
        scores.append(sum(others[:neighbours]))
    return scores.index(min(scores))


def fang_krum(honest: Rows, b: int, f: int) -> Row:
    n, h, d = len(honest) + b, len(honest), len(honest[0])
    sign = [float((x > 0) - (x < 0)) for x in mean(honest)]
    near = []
    for i, v in enumerate(honest):
        others = sorted(sq_dist(v, u) for j, u in enumerate(honest) if j != i)
        near.append(sum(others[: max(h - 2, 1)]))
    size = sqrt(min(near) / (max(n - 2 * b - 1, 1) * d)) + sqrt(max(dot(v, v) for v in honest) / d)
    for _ in range(20):
        forged = [-size * s for s in sign]
        if krum_winner(honest + [forged] * b, min(max(n - f - 2, 1), n - 1)) >= h:
            break
        size /= 2
    return [-size * s for s in sign]


def cut(way: Row, longest: float) -> Row:
    length = sqrt(dot(way, way))
    return way if length <= longest else [x * longest / length for x in way]


def hug(rounds: list[Rows], noise: float, horizon: int, tau: float) -> list[Row]:
    d = len(rounds[0][0])
    sent, moved, ascent = [], [0.0] * d, [0.0] * d
    for t, honest in enumerate(rounds, start=1):
        m = mean(honest)
        ascent = along(ascent, 1, m)
        goal = [-0.95 * tau * min(t / horizon, 1) * u for u in unit(ascent)]
        move = cut(sub(goal, moved), 0.9 * noise)
        moved = along(moved, 1, move)
        sent.append(along(m, 1, move))
    return sent


def furthest_within(kept: Rows, w: Row, radius: float) -> Row:
    centre = mean(kept)
    reach = largest(lambda s: all(sq_dist(along(centre, s, w), c) <= radius**2 for c in kept))
    return along(centre, reach, w)


def straddle(rounds: list[Rows], b: int, noise: float, tau: float) -> list[Row]:
    h, d = len(rounds[0]), len(rounds[0][0])
    keep = max((h + b) // 2 + 1 - b, 1)
    offsets = [sub(v, mean(rounds[0])) for v in rounds[0]]
    lengths = [dot(o, o) for o in offsets]
    w = unit(offsets[lengths.index(max(lengths))])
    sums, own, sent = [[0.0] * d for _ in range(h)], [0.0] * d, []
    for honest in rounds:
        sums = [along(s, 1, v) for s, v in zip(sums, honest, strict=True)]
        kept = sorted(sums, key=lambda s: -dot(s, w))[:keep]
        m = mean(honest)
        goal = sub(furthest_within(kept, w, 0.999 * tau), own)
        row = along(m, 1, cut(sub(goal, m), 0.9 * noise))
        own = along(own, 1, row)
        sent.append(row)
    return sent


def a_only(rounds: list[Rows], points: Rows, noise: float, tau: float) -> list[Row]:
    sent, moved, seen = [], [0.0] * len(points[0]), []
    for honest, x in zip(rounds, points, strict=True):
        offset = sub(x, points[0])
        seen.append(sqrt(dot(offset, offset)))
        far = seen[-1] > sum(seen) / len(seen)
        goal = [-0.95 * tau * u if far else 0.0 for u in unit(offset)]
        move = cut(sub(goal, moved), 0.9 * noise)
        moved = along(moved, 1, move)
        sent.append(along(mean(honest), 1, move))
    return sent


def rop(rounds: list[Rows], z: float, sine: float, cosine: float, memory: float, place: float) -> list[Row]:
    sent, past = [], mean(rounds[0])
    for honest in rounds:
        m = mean(honest)
        r = unit([memory * a + (1 - memory) * b for a, b in zip(past, m, strict=True)])
        q = unit(along([1.0] * len(m), -sum(r), r))
        start = [place * a + (1 - place) * b for a, b in zip(past, m, strict=True)]
        sent.append(along(along(start, z * sine, q), z * cosine, r))
        past = m
    return sent


def anti_cge(honest: Rows, f: int, margin: float) -> Row:
    lengths = sorted((sqrt(dot(v, v)) for v in honest), reverse=True)
    rho = lengths[min(max(f, 1), len(lengths)) - 1]
    return [-margin * rho * u for u in unit(mean(honest))]


def sparse(x: Row, rounds: list[Rows], share: float, scale: float, z: float) -> list[Row]:
    """One row a round: m - a s, a = `scale` at the most salient places of round 1, `z` at all others."""
    first = mean(rounds[0])
    salient = sorted(range(len(x)), key=lambda k: -abs(x[k] * first[k]))
    chosen = set(salient[: max(1, ceil(share * len(x) - 1e-9))])
    out = []
    for honest in rounds:
        m, s = mean(honest), std(honest)
        out.append([m[k] - (scale if k in chosen else z) * s[k] for k in range(len(m))])
    return out


def nearest_z(honest: Rows, places: set[int], scale: float) -> float:
    """By bisection, as released: the largest z at which the lie's squared distances from all honest rows sum
    up to no more than those of the honest row for which this sum is least."""
    m, s = mean(honest), std(honest)

    def total(row: Row) -> float:
        return sum((a - b) ** 2 for other in honest for a, b in zip(row, other, strict=True))

    def lie(z: float) -> Row:
        return [m[k] - (scale if k in places else z) * s[k] for k in range(len(m))]

    least = min(total(row) for row in honest)
    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if total(lie(middle)) <= least else (low, middle)
    return low


def trapsetter(x, own, directions, loss, n, pull, steps):  # type: ignore[no-untyped-def]
    """The lie, from two directions already as long as they should be, point by point of the grid."""
    worst, trap = None, x
    for i in range(-steps, steps + 1):
        for j in range(-steps, steps + 1):
            point = along(along(x, i / steps, directions[0]), j / steps, directions[1])
            if worst is None or loss(point) > worst:
                worst, trap = loss(point), point
    b, u = len(own), mean(own)
    return [n / b * pull * (x[k] - trap[k]) - (n - b) / b * u[k] for k in range(len(x))]


def neurotoxin(points: Rows, sent: list[Row], keep: float, scale: float, bound: float | None) -> list[Row]:
    """What one liar sends in each round, `points` holding where workers were asked, `sent` its own rows."""
    out, last = [], points[0]
    for x, row in zip(points, sent, strict=True):
        moved = [abs(a - b) for a, b in zip(x, last, strict=True)]
        order = sorted(range(len(x)), key=lambda k: moved[k])
        kept = set(order[: max(1, int(keep * len(x) + 1e-9))]) if any(moved) else set(order)
        lie = [scale * v if k in kept else 0.0 for k, v in enumerate(row)]
        out.append(lie if bound is None else cut(lie, bound))
        last = x
    return out
