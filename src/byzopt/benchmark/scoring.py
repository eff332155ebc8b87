"""The score of a row: the worst attack, pointwise, and what chance in the seeds leaves open of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import inf, isfinite
from random import Random
from statistics import fmean
from typing import NamedTuple

from byzopt.benchmark.protocol import Cell
from byzopt.benchmark.rows import Hit, Row
from byzopt.stress.catalogue import NO_ATTACK

RESAMPLES = 4000  # of the seeds, where not all that there are can be taken
ALL = 10_000  # resamples of k seeds out of k are all taken up to so many
LEVEL = 0.95


class Score(NamedTuple):
    """A row's score: the figure under the worst attack of the set, with an interval over resampled seeds.

    Args:
        value: Mean over seeds of the figure under the attack that is worst for it.
        low: Lower end of the interval.
        high: Upper end of the interval.
        attack: The worst attack's name.
        clean: The mean without attack.
        known: The worst that any attack has done, those of others too.
        known_attack: Its name.
    """

    value: float
    low: float
    high: float
    attack: str
    clean: float
    known: float
    known_attack: str


def complete(row: Row) -> bool:
    """Whether a row was measured under every attack of the set under which it was taken."""
    return set(Cell.of(row.cell).attacks) <= row.hits.keys()


def score(row: Row) -> Score | None:
    """The score of a row.

    Args:
        row: A row of a table.

    Returns:
        Its score; None where an attack of the set was not measured.

    Examples:
        >>> from byzopt.benchmark import Row, score
        >>> cell = "digits-dirichlet1-n20-f3"
        >>> row = Row(cell, "mine", "Mine", "", "", "1", "1", "accuracy", True, [0, 1, 2], {})
        >>> print(score(row))  # nothing is measured yet
        None
    """
    if not complete(row):
        return None
    means = {name: fmean(figures(row, struck)) for name, struck in row.hits.items()}
    attacked = [name for name in means if name != NO_ATTACK]
    at = worst(row, {name: means[name] for name in attacked})
    others = {name: fmean(figures(row, struck)) for name, struck in row.outside.items()}
    known = worst(row, {at: means[at], **others})
    low, high = interval(resampled(row))
    return Score(means[at], low, high, at, means[NO_ATTACK], {**means, **others}[known], known)


def figures(row: Row, struck: Hit) -> list[float]:
    """The figure of each seed; a run that failed has the worst there is."""
    failed = 0.0 if row.rises else inf
    return [failed if value is None else value for value in struck.values]


def worst(row: Row, means: Mapping[str, float]) -> str:
    """The attack of the worst mean, the first of equal ones."""
    return min(means, key=means.__getitem__) if row.rises else max(means, key=means.__getitem__)


def resamples(count: int) -> list[tuple[int, ...]]:
    """Places of seeds drawn with replacement, as many as there are: all such draws, or a fixed sample.

    Args:
        count: Number of seeds.

    Returns:
        The draws, equal for equal counts: rows resampled by them stay paired.
    """
    if count**count <= ALL:
        return list(product(range(count), repeat=count))
    random = Random(0)
    return [tuple(random.choices(range(count), k=count)) for _ in range(RESAMPLES)]


def share(row: Row, reference: Row | None, value: float) -> float:
    """A figure as a share of the way from knowing nothing to training by the mean without attack, in [0, 1].

    `reference` is the row of the mean in the same cell, whose clean figure is 1; None: the row's own.
    """
    floor = Cell.of(row.cell).rules.floor
    start = (row.start if floor is None else floor) or 0.0
    calm = (reference or row).hits[NO_ATTACK]
    ceiling = fmean(figures(row, calm))
    if not isfinite(value) or ceiling == start:
        return 0.0
    return min(1.0, max(0.0, (value - start) / (ceiling - start)))


def apart(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the first of two quantities, of which more is better, is better in nearly all resamples of the
    seeds, paired."""
    return sum(a > b for a, b in zip(one, other, strict=True)) >= (1 + LEVEL) / 2 * len(one)


def resampled(row: Row) -> list[float]:
    """A row's score in every resample of the seeds."""
    attacked = [figures(row, struck) for name, struck in row.hits.items() if name != NO_ATTACK]
    at_worst = min if row.rises else max
    return [
        at_worst(fmean(values[k] for k in seeds) for values in attacked)
        for seeds in resamples(len(row.seeds))
    ]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The ends of the middle `LEVEL` of values."""
    ordered = sorted(values)
    skip = int((1 - LEVEL) / 2 * len(ordered))
    return ordered[skip], ordered[len(ordered) - 1 - skip]
