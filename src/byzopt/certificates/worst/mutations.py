"""Small changes to rows `[n, d]`, of which the first f are faulty, and populations of rows that so change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from byzopt.certificates.worst.populations import Map, Rows

Mutation = Callable[
    [Rows, int, float, np.random.Generator], None
]  # changes the rows in place, by about `size` spreads
CLUSTER = 0.1  # rows so near to each other, in spreads, move together
BAKED = 1e-3  # of the size of a move: how far copies stand from what they copy, so that no exact ties arise


def _row(rows: Rows, f: int, size: float, numbers: np.random.Generator) -> None:
    rows[numbers.integers(len(rows))] += size * numbers.standard_normal(rows.shape[1])


def _cluster(rows: Rows, f: int, size: float, numbers: np.random.Generator) -> None:
    about = rows[numbers.integers(f, len(rows))]
    near = np.linalg.norm(rows - about, axis=1) < CLUSTER
    near[:f] &= numbers.random() < 0.5
    rows[near] += size * numbers.standard_normal(rows.shape[1])


def _faulty_together(rows: Rows, f: int, size: float, numbers: np.random.Generator) -> None:
    rows[:f] += size * numbers.standard_normal(rows.shape[1])


def _faulty_stretched(rows: Rows, f: int, size: float, numbers: np.random.Generator) -> None:
    mean = rows[f:].mean(axis=0)
    rows[:f] = mean + (rows[:f] - mean) * (1 + size * numbers.standard_normal())


def _faulty_placed(rows: Rows, f: int, size: float, numbers: np.random.Generator) -> None:
    """The faulty rows, or the first few of them, at an honest row or at a mean of some."""
    some = numbers.integers(f, len(rows), size=numbers.choice([1, 1, 2, max(1, (len(rows) - f) // 2)]))
    count = f if numbers.random() < 0.6 else numbers.integers(f + 1)
    noise = BAKED * size * numbers.standard_normal((count, rows.shape[1]))
    rows[:count] = rows[some].mean(axis=0) + noise


def _copied(rows: Rows, f: int, size: float, numbers: np.random.Generator) -> None:
    """A row goes to where another stands."""
    to, source = numbers.integers(len(rows), size=2)
    rows[to] = rows[source] + BAKED * size * numbers.standard_normal(rows.shape[1])


def _axis_scaled(rows: Rows, f: int, size: float, numbers: np.random.Generator) -> None:
    """One coordinate shrinks, perhaps to nothing, or grows."""
    axis, mean = numbers.integers(rows.shape[1]), rows[f:].mean(axis=0)
    factor = 0.0 if numbers.random() < 0.2 and rows.shape[1] > 1 else np.exp(size * numbers.standard_normal())
    rows[:, axis] = mean[axis] + factor * (rows[:, axis] - mean[axis])


def _honest_stretched(rows: Rows, f: int, size: float, numbers: np.random.Generator) -> None:
    """All honest rows move from their mean or towards it, the faulty ones stay."""
    mean = rows[f:].mean(axis=0)
    rows[f:] = mean + (rows[f:] - mean) * np.exp(size * numbers.standard_normal())


def _tightened(rows: Rows, f: int, size: float, numbers: np.random.Generator) -> None:
    """The rows of a cluster close up."""
    near = np.linalg.norm(rows - rows[numbers.integers(len(rows))], axis=1) < 3 * CLUSTER
    centre = rows[near].mean(axis=0)
    rows[near] = centre + (rows[near] - centre) * numbers.choice([BAKED, 0.5])


def _shifted(rows: Rows, f: int, size: float, numbers: np.random.Generator) -> None:
    mean = rows[f:].mean(axis=0)
    rows += size * numbers.standard_normal(rows.shape[1]) if numbers.random() < 0.7 else size * mean


def _resized(rows: Rows, f: int, size: float, numbers: np.random.Generator) -> None:
    rows *= np.exp(size * numbers.standard_normal())


def _swapped(rows: Rows, f: int, size: float, numbers: np.random.Generator) -> None:
    """Two rows change places: where it counts who sends what."""
    one, other = numbers.integers(len(rows), size=2)
    rows[[one, other]] = rows[[other, one]]


ALWAYS: tuple[Mutation, ...] = (
    _row,
    _row,
    _cluster,
    _faulty_together,
    _faulty_stretched,
    _faulty_placed,
    _copied,
    _axis_scaled,
    _honest_stretched,
    _tightened,
)


def mutations_for(translates: bool, scales: bool, positional: bool) -> tuple[Mutation, ...]:
    """The moves that matter for a rule that is equivariant to translations and scales, or reads places."""
    extra = [(_shifted, not translates), (_resized, not scales), (_swapped, positional)]
    return (*ALWAYS, *(move for move, matters in extra if matters))


@dataclass(frozen=True)
class Loose:
    """R sets of rows `[R, n, d]`, of which every row can move by itself; the first f are faulty."""

    sets: Rows
    f: int
    moves: Sequence[Mutation]

    def rows(self, numbers: np.random.Generator) -> Rows:
        """The rows as they are."""
        return self.sets

    def moved(self, to: Map) -> Loose:
        """The same elsewhere and in another unit."""
        shift, factor, back = to
        return replace(self, sets=(self.sets - shift) * factor + back)

    def answered(self, answers: Rows) -> Loose:
        """The same: they do not follow the answers."""
        return self

    def lengths(self, many: int, numbers: np.random.Generator) -> Loose:
        """The same: the faulty rows are on no way. Only for one length."""
        return self

    def mutated(self, largest: float, numbers: np.random.Generator) -> Loose:
        """Changed copies: one move, sometimes several, of sizes from 1e-4 of `largest` up to it."""
        sets = self.sets.copy()
        for rows in sets:
            for _ in range(1 + (numbers.random() < 0.3)):
                size = largest * 10 ** (-4 * numbers.random())
                self.moves[int(numbers.integers(len(self.moves)))](rows, self.f, size, numbers)
        return replace(self, sets=sets)

    def chosen(self, other: Loose, mask: NDArray[np.bool_]) -> Loose:
        """Those of `other` where the mask `[R]` is true, else one's own."""
        return replace(self, sets=np.where(mask[:, None, None], other.sets, self.sets))

    def taken(self, order: NDArray[np.int64]) -> Loose:
        """Those at these indices."""
        return replace(self, sets=self.sets[order])
