"""Rows in few clusters, whose faulty ones follow from where the clusters are and move with them.

The worst rows of most rules lie on an edge: the faulty rows stand just near enough to be taken, as near to
the rule's centre as a cluster that is thrown out for them, at a point where the rule stops. Rows that move
one by one fall off such an edge. Here the faulty rows say where they are in terms of the rest, so that the
search walks along it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byzopt.certificates.worst.populations import Map, Rows

Places = NDArray[np.int64]
MOST = 5  # clusters
KINDS = ("point", "point", "put", "home", "homes", "faulty", "some", "part", "beside", "axis")  # of moves
MINDED = ("shift", "unit")  # for rules that mind where the origin is, or the unit
PARTS = (-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 10.0, 1e4)  # of the way between two places: -1 and 2 are mirrored
GRAIN = 1e-5  # of the honest spread: no two rows are equal, so that no exact tie decides


@dataclass(frozen=True)
class Structures:
    """R sets of n rows: where the clusters are, and who is where.

    `points` `[R, k, d]` are the clusters, `homes` `[R, N]` says in which of them each honest row is. `wide`
    ones have N more coordinates, one for each honest row, which alone is not 0 there but its cluster's
    `radii` `[R, k]`: a cluster is then a simplex, whose mean is nearer to its rows than these are to each
    other.

    Places are the k points, the honest mean, the origin, and what the rule answered last, `answers`
    `[R, d (+ N)]`. The faulty row j stands `part[j]` of the way from the place `start[j]` to the place
    `end[j]`, all `[R, f]`. `minds`: whether the rule minds where the origin is, and the unit. `lag`: by how
    much the rows are behind those that are scored.
    """

    points: Rows
    radii: Rows
    homes: Places
    start: Places
    end: Places
    part: Rows
    answers: Rows
    lag: Rows
    wide: bool
    minds: tuple[bool, bool]

    @classmethod
    def drawn(
        cls,
        count: int,
        n: int,
        f: int,
        d: int,
        wide: bool,
        minds: tuple[bool, bool],
        numbers: np.random.Generator,
    ) -> Structures:
        """`count` of them by lot, with two to `MOST` clusters of any sizes."""
        clusters = 2 + np.arange(count) % (MOST - 1)
        points = numbers.standard_normal((count, MOST, d)) * np.exp(numbers.standard_normal((count, MOST, 1)))
        radii = wide * np.exp(numbers.standard_normal((count, MOST))) * (numbers.random((count, MOST)) < 0.5)
        cuts = np.sort(numbers.random((count, 1, MOST - 1)), axis=2)
        cuts[np.arange(MOST - 1) >= (clusters - 1)[:, None, None]] = 1.0
        homes = (np.linspace(0, 1, n - f, endpoint=False)[None, :, None] >= cuts).sum(axis=2)
        blank, answers = np.zeros((count, f), dtype=np.int64), np.zeros((count, d + wide * (n - f)))
        faulty = (blank, blank, np.zeros((count, f)))
        out = cls(points, radii, homes, *faulty, answers, np.zeros_like(answers), wide, minds)
        return out._faulty(np.ones((count, f), dtype=bool), numbers)

    def honest(self) -> Rows:
        """The honest rows `[R, N, d (+ N)]`."""
        rows: Rows = np.take_along_axis(self.points, self.homes[..., None], axis=1)
        if not self.wide:
            return rows
        own = np.take_along_axis(self.radii, self.homes, axis=1)[..., None] * np.eye(rows.shape[1])
        return np.concatenate([rows, own], axis=2)

    def rows(self, numbers: np.random.Generator) -> Rows:
        """All rows `[R, n, d]`, the faulty ones first, none equal to another."""
        honest = self.honest()
        rows = np.concatenate([self._between(self.start, self.end, self.part), honest], axis=1)
        away = honest - honest.mean(axis=1, keepdims=True)
        largest = np.abs(away).max(axis=(1, 2), keepdims=True, initial=np.finfo(away.dtype).tiny)
        spread = largest * np.sqrt(np.square(away / largest).sum(axis=2).mean(axis=1))[:, None, None]
        noise: Rows = rows + GRAIN * spread * numbers.standard_normal(rows.shape)
        return noise

    def moved(self, to: Map) -> Structures:
        """The same elsewhere, though not in the honest rows' own coordinates, and in another unit."""
        shift, factor, back = to
        d = self.points.shape[2]
        lag = (back - shift * factor)[:, 0]
        lag[:, :d] = 0
        answers = (self.answers[:, None] - shift) * factor + back
        return replace(
            self,
            points=(self.points - shift[..., :d]) * factor + back[..., :d],
            radii=self.radii * factor[..., 0],
            answers=answers[:, 0] - lag,
            lag=lag,
        )

    def answered(self, answers: Rows) -> Structures:
        """The same with what the rule answers to them."""
        return replace(self, answers=np.where(np.isfinite(answers), answers - self.lag, 0.0))

    def chosen(self, other: Structures, mask: NDArray[np.bool_]) -> Structures:
        """Those of `other` where the mask `[R]` is true, else one's own."""
        return self._each(
            lambda name, mine: np.where(mask.reshape(-1, *[1] * (mine.ndim - 1)), getattr(other, name), mine)
        )

    def taken(self, order: NDArray[np.int64]) -> Structures:
        """Those at these indices."""
        return self._each(lambda _, mine: mine[order])

    def _each(self, of: Callable[[str, NDArray[Any]], NDArray[Any]]) -> Structures:
        changed: dict[str, Any] = {
            name: of(name, value) for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return replace(self, **changed)

    def lengths(self, many: int, numbers: np.random.Generator) -> Structures:
        """Each `many` times, one after the other: once as it is, else with the faulty rows somewhat farther
        on their way, or less far."""
        out = self.taken(np.repeat(np.arange(len(self.points)), many))
        factor = 1 + _beside(len(out.points), numbers)
        factor[::many] = 1.0
        return replace(out, part=out.part * factor)

    def mutated(self, largest: float, numbers: np.random.Generator) -> Structures:
        """Changed copies: each by one move, sometimes two, of sizes from 1e-4 of `largest` up to it."""
        out = self._once(largest, numbers)
        again = numbers.random(len(self.points)) < 0.3
        return out.chosen(out._once(largest, numbers), again)

    def _once(self, largest: float, numbers: np.random.Generator) -> Structures:
        count = len(self.points)
        size = (largest * 10 ** (-4 * numbers.random(count)))[:, None, None]
        kinds = [
            *KINDS,
            *(("radius",) * 2 * self.wide),
            *(name for name, minds in zip(MINDED, self.minds, strict=True) if minds),
        ]
        kind = np.array(kinds)[numbers.integers(len(kinds), size=count)]
        points, radii = self._points(kind[:, None, None], size, numbers)
        out = replace(self, points=points, radii=radii, homes=self._homes(kind, numbers))
        who = (kind == "some")[:, None] & (numbers.random(self.part.shape) < 0.5)
        return out._faulty(who | (kind == "faulty")[:, None], numbers)._parts(kind, size[:, 0], numbers)

    def _points(self, kind: NDArray[np.str_], size: Rows, numbers: np.random.Generator) -> tuple[Rows, Rows]:
        """A point moves, or goes to where it stands to others as a faulty row may; a cluster widens; an axis
        is stretched; all points move or grow."""
        count, k, d = self.points.shape
        noise = size * numbers.standard_normal((count, k, d))
        one = (np.arange(k) == numbers.integers(k, size=(count, 1)))[..., None]
        points = self.points + np.where((kind == "point") & one, noise, 0.0)
        spot = self._between(*self._draw(count, numbers))[..., :d] + 0.01 * noise
        points = np.where((kind == "put") & one, spot, points)
        mean, along = self.honest().mean(axis=1, keepdims=True), numbers.integers(d, size=(count, 1, 1))
        factor = np.exp(noise[:, :1]) * (numbers.random((count, 1, 1)) > 0.2)
        stretched = (kind == "axis") & (np.arange(d) == along) & (d > 1)
        points = np.where(stretched, mean[..., :d] + factor * (points - mean[..., :d]), points)
        far = 10 ** (2 * numbers.random((count, 1, 1)))
        points = points + np.where(kind == "shift", far * noise[:, :1], 0.0)
        unit = np.where(kind == "unit", np.exp(noise[:, :1, :1]), 1.0)
        wider = np.where((kind == "radius") & one, np.maximum(self.radii[..., None] + noise[..., :1], 0), -1)
        radii = np.where(wider >= 0, wider, self.radii[..., None])
        return points * unit, (radii * unit)[..., 0]

    def _homes(self, kind: NDArray[np.str_], numbers: np.random.Generator) -> Places:
        """One honest row goes to another cluster, or about half of a cluster's."""
        count, many = self.homes.shape
        to = numbers.integers(self.points.shape[1], size=(count, 1))
        who = numbers.integers(many, size=(count, 1))
        alone = (kind == "home")[:, None] & (np.arange(many) == who)
        fellows = self.homes == np.take_along_axis(self.homes, who, axis=1)
        half = numbers.random((count, many)) < numbers.random((count, 1))
        several = (kind == "homes")[:, None] & fellows & half
        return np.where(alone | several, to, self.homes)

    def _faulty(self, who: NDArray[np.bool_], numbers: np.random.Generator) -> Structures:
        """Faulty rows go to one other place, in each set."""
        start, end, part = self._draw(len(self.points), numbers)
        return replace(
            self,
            start=np.where(who, start, self.start),
            end=np.where(who, end, self.end),
            part=np.where(who, part, self.part),
        )

    def _parts(self, kind: NDArray[np.str_], size: Rows, numbers: np.random.Generator) -> Structures:
        """The faulty rows go on a bit along their way, or to just beside where they are."""
        count, f = self.part.shape
        who = numbers.random((count, f)) < np.where(numbers.random((count, 1)) < 0.6, 1.0, 0.5)
        stretched = self.part + size * numbers.standard_normal((count, 1)) * np.maximum(
            np.abs(self.part), 0.1
        )
        part = np.where((kind == "part")[:, None] & who, stretched, self.part)
        beside = np.round(2 * self.part) / 2 + _beside(count, numbers)
        return replace(self, part=np.where((kind == "beside")[:, None] & who, beside, part))

    def _draw(self, count: int, numbers: np.random.Generator) -> tuple[Places, Places, Rows]:
        """Places and parts of the way between them, `[count, 1]`."""
        places = self.points.shape[1] + 3
        start, end = numbers.integers(places, size=(2, count, 1))
        part = np.array(PARTS)[numbers.integers(len(PARTS), size=(count, 1))]
        beside = numbers.random((count, 1)) < 0.7
        return start, end, part * np.where(beside, 1 + _beside(count, numbers), 1.0)

    def _between(self, start: Places, end: Places, part: Rows) -> Rows:
        """Rows `[R, j, d]`."""
        mean = self.honest().mean(axis=1, keepdims=True)
        points = np.pad(self.points, ((0, 0), (0, 0), (0, mean.shape[2] - self.points.shape[2])))
        spots = np.concatenate([points, mean, 0 * mean, self.answers[:, None]], axis=1)
        begun = np.take_along_axis(spots, start[..., None], axis=1)
        way = np.take_along_axis(spots, end[..., None], axis=1) - begun
        rows: Rows = begun + part[..., None] * way
        return rows


def _beside(count: int, numbers: np.random.Generator) -> Rows:
    """A little more or less, `[count, 1]`: from 1e-4 to 0.3."""
    sign = numbers.choice([-1.0, 1.0], size=(count, 1))
    little: Rows = sign * 10 ** (-4 + 3.5 * numbers.random((count, 1)))
    return little
