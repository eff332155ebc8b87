"""Distances of many short rows: those to a place are seen from it, those between rows measured if need be."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from byzopt.aggregators.numerics.distances import Array, Distances, Index
from byzopt.aggregators.numerics.points import Points


class DistancesSeen(Distances):
    """As `Distances` of rows that are `points`. `measure` tells which row products are about,
    and gives them."""

    def __init__(self, points: Points, measure: Callable[[], tuple[int, Distances]]) -> None:
        self.points, self._measure, self.m, self._few = points, measure, points.n, None

    @cached_property
    def measured(self) -> tuple[int, Distances]:
        """What `measure` gives."""
        return self._measure()

    @cached_property
    def gram(self) -> Array:
        return self.measured[1].gram

    @property
    def single(self) -> bool:  # type: ignore[override]
        return self.measured[1].single

    @property
    def _known(self) -> bool:
        """Whether products are there, and fewer than numbers of rows."""
        return "gram" in self.__dict__ and self.points.d >= self.m

    @property
    def looked(self) -> bool:  # type: ignore[override]
        return self.points.looked or "gram" in self.__dict__

    @cached_property
    def radii(self) -> Array:
        beside = None if "gram" in self.__dict__ else self.points.side_by_side
        return super().radii if beside is None else beside.tightest(self.m // 2)

    def _from(self, rows: Index) -> Array:
        if "gram" in self.__dict__:
            return super()._from(rows)
        return np.stack([self.points.squares_to(self.points.row(int(i))) for i in rows])

    def taken(self, order: Index) -> Distances:
        return DistancesSeen(
            self.points.taken(order), lambda: (self.measured[0], super(DistancesSeen, self).taken(order))
        )

    def mixed_as(self, points: Points, mixing: Array) -> Distances:
        """Those between the rows of `mixing @ rows`, which are `points`; rows of `mixing` sum to one."""
        return DistancesSeen(points, lambda: (self.measured[0], self.mixed(mixing)))

    def lengths_to(self, weights: Array) -> Array:
        if weights.ndim > 1 or self._known:
            return super().lengths_to(weights)
        return self.points.squares_to(self.points.mean(weights))

    def weiszfeld(self, row_weights: Array, squares: Array, floor: Array, steps: int) -> Array:
        if row_weights.ndim > 1 or self._known:
            return super().weiszfeld(row_weights, squares, floor, steps)

        def weights(squares: Array) -> Array:
            shares: Array = row_weights / np.maximum(np.sqrt(squares), floor)
            return shares

        shares = weights(squares)
        if steps > 1:
            place = self.points.mean(shares / shares.sum())
            for _ in range(steps - 2):
                squares, _, way = self.points.pulls(place, row_weights, floor.item())
                place = place + way / weights(squares).sum()
            shares = weights(self.points.squares_to(place))
        shares /= shares.sum()
        return shares
