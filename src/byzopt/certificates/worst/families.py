"""Structured rows that are the worst for many rules: few honest clusters, and the faulty rows near one of
them.

All functions give float64 arrays `[n, d]` whose first f rows are faulty.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from byzopt.certificates.worst.populations import Rows

BESIDE = (0.0, 1e-3, -1e-3, 0.1, -0.1, 0.4, -0.4)  # of the way from the mean to a cluster, beyond it
AFAR = (-1.0, 2.0, 10.0, -10.0, 1e4)  # of that way, for faulty rows that are no cluster's


def two_clusters(n: int, f: int) -> Iterator[Rows]:
    """Two clusters of all sizes at 0 and 1, the faulty rows at every place."""
    for ones in range(1, n - f):
        honest = np.zeros((n - f, 1))
        honest[:ones] = 1
        for place in places(honest[[0, -1]], honest.mean(axis=0)):
            yield assembled(honest, np.broadcast_to(place, (f, 1)))


def bulks(n: int, f: int) -> Iterator[Rows]:
    """Clusters on a line such that the mean of the n//2 + 1 rows that lie closest together is at a row.

    These are the worst rows of rules that begin at the bulk of the rows, or look from there. The bulk is `at`
    honest rows at 0 with `beside` others at 1, and faulty rows as far on the other side as puts its mean at
    0; some of the faulty ones may stand at 0 themselves. The rest is just too far from all these.
    """
    mates = n // 2 + 1 - f
    for at in range(mates + 1):
        beside = mates - at
        for there in range(0 if at else 1, f):
            back = beside / (f - there)
            rest = 1 + max(1.0, back) * (1 + 1e-3)
            honest = np.repeat([0.0, 1.0, rest], [at, beside, n - f - mates])[:, None]
            yield assembled(honest, np.repeat([0.0, -back], [there, f - there])[:, None])


def afar(n: int, f: int) -> Iterator[Rows]:
    """Two clusters far from the origin, and the faulty rows as far, or a bit less, in another direction."""
    for many in sorted({1, f, f + 1, (n - f) // 2} & set(range(1, n - f))):
        for length in (1e4, 10.0):
            for angle in (np.pi, np.pi / 2, np.pi / 3, 0.1):
                for part in (1 - 1e-3, 1.0, 1 + 2 / length, 0.5, 0.0):
                    honest = np.zeros((n - f, 2))
                    honest[:, 0] = length
                    honest[:many, 0] += 1
                    way = np.array([[np.cos(angle), np.sin(angle)]])
                    yield assembled(honest, np.repeat(part * length * way, f, axis=0))


def places(points: Rows, mean: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Where faulty rows may stand: at each of the points `[k, d]` and beside it, at means, mirrored, far
    away."""
    for point in points:
        for part in BESIDE:
            yield point + part * (point - mean)
        for part in AFAR:
            yield mean + part * (point - mean)
    yield mean
    yield points.mean(axis=0)


def drawn(n: int, f: int, numbers: np.random.Generator) -> Rows:
    """One of the other families by lot: three clusters on a line or at angles, a simplex of k honest
    axes, or stairs."""
    lot = numbers.random()
    if f and lot < 0.4:
        return _stairs(n - f, f, numbers)
    honest, points = (_three_clusters if lot < 0.75 else _simplex)(n - f, numbers)
    if f == 0:
        return honest
    spots = list(places(points, honest.mean(axis=0)))
    first, second = (spots[numbers.integers(len(spots))] for _ in range(2))
    faulty = np.tile(first, (f, 1))
    way = numbers.random()
    if way < 0.3:  # in two groups
        faulty[: numbers.integers(f + 1)] = second
    elif way < 0.4:  # each at a cluster of its own
        faulty = points[np.arange(f) % len(points)]
    return assembled(honest, faulty)


def assembled(honest: Rows, faulty: NDArray[np.float64]) -> Rows:
    """The faulty rows, then the honest ones."""
    return np.concatenate([faulty, honest])


def alike(rows: Rows, f: int) -> list[Rows]:
    """The rows with all faulty ones where one of them stands, for each of them: ties that may be worse."""
    return [np.concatenate([np.tile(rows[j], (f, 1)), rows[f:]]) for j in range(f)]


def _stairs(many: int, f: int, numbers: np.random.Generator) -> Rows:
    """On a line: f honest rows that the rule may throw out, one or all of them far up, others on steps below,
    the bulk at zero, sometimes a row or two below it, and the faulty ones farther below.

    These are the worst rows of rules that throw out what is far away: each step is just far enough, and what
    lies below lets the faulty rows go as far down from the bulk as the topmost row is from the lowest.
    """
    honest = np.zeros((many, 1))
    steps = min(f, many - 1)
    lowest = float(numbers.random())
    honest[:steps, 0] = np.linspace(1, lowest, steps) if numbers.random() < 0.5 else lowest
    honest[0] = 1
    below = int(numbers.choice([0, 1, 1, 2]))
    depth = 1.5 * numbers.random()
    honest[max(steps, many - below) :] = -depth
    down = (1 + depth) * (1 - 1e-3) if numbers.random() < 0.5 else 0.5 + 1.5 * numbers.random()
    return assembled(honest, np.full((f, 1), -down))


def _three_clusters(many: int, numbers: np.random.Generator) -> tuple[Rows, Rows]:
    first, second = np.sort(numbers.integers(0, many + 1, 2))
    length = numbers.choice([0.1, 0.5, 1.0, 2.0, 10.0])
    angle = numbers.choice([0.0, np.pi, *(np.pi * np.arange(1, 6) / 6)])
    points = np.array([[0.0, 0.0], [1.0, 0.0], [length * np.cos(angle), length * np.sin(angle)]])
    return points[np.repeat([0, 1, 2], [first, second - first, many - second])], points


def _simplex(many: int, numbers: np.random.Generator) -> tuple[Rows, Rows]:
    """k axes with c rows at one on each, and what is left at zero or, on an axis of its own, at the last
    one."""
    axes = int(numbers.integers(2, many + 1))
    copies = int(numbers.integers(1, many // axes + 1))
    points = np.eye(axes)
    honest = np.repeat(points, copies, axis=0)
    rest = np.tile(numbers.choice([0.0, 1.0]) * points[-1], (many - len(honest), 1))
    return np.concatenate([honest, rest]), np.concatenate([points[-2:], np.zeros((1, axes)), rest[:1]])
