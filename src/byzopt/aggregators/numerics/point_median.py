"""The geometric median of many short rows, in their coordinates: Newton's method, with a proof of optimality.

F(z) = Σ w_i ‖x_i - z‖ as in `weiszfeld`, where the proofs are. F is convex, so its minimum does not depend on
where the search begins, which is at the median of every column. A step costs a look or two at the rows.

At a point that is no row, F(z) - min F <= ‖∇F(z)‖ max_i ‖x_i - z‖, since the minimum lies among the rows'
convex combinations. At a row, duality bounds it. Of the rows that the search comes near each is tried: so a
median that is a row is found exactly.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import numpy as np

from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.points import Points
from byzopt.aggregators.numerics.weiszfeld import ROUNDS, SETTLED, TIED, Solution, majority_sum

_SPARE = 8  # looks that may prove no less than the best before: at the end rounding decides
_FAST = (
    0.2  # of the pull that Weiszfeld's step may leave to be as good as Newton's, which costs several looks
)
_STEPS = 7  # of Weiszfeld's more, where they cost no look
_PRODUCTS = 40  # for a Newton step, at most
_LEFT = 0.1  # of what the next look may leave: a step need not be known better
_CURVED = 1e-12  # a Hessian's share of its largest eigenvalue below which it is flat
_NEAR = 0.25  # of the mean distance of the rows: nearer ones are tried
_EDGE = 1e-9  # of the weight at a row: where less is missing to its pull, other rows may be as good


def median_of_points(points: Points, tol: float, row_weights: Array, start: Array) -> Solution:
    """The geometric median of `points` that count with weights `[n]`, searched from a place `start` `[d]`
    that no minority of them can carry off."""
    search = _Search(points, row_weights, tol)
    with np.errstate(all="ignore"):  # what is not finite is seen in the first look
        at = search.look(start)
    points.accept(at.squares)
    return search.ended(at)


class _View(NamedTuple):
    """A place and what is seen from it: squared distances of the rows, and 1/distance times their weights, 0
    for rows that are there; the sum `pull` of the weighted unit vectors to the others, which is -∇F but for
    rows there, and its norm; the weight of the rows `there`, F, and the proved gap."""

    place: Array
    squares: Array
    inverse: Array
    pull: Array
    strength: float
    there: float
    size: float
    gap: float


class _Search:
    def __init__(self, points: Points, row_weights: Array, tol: float) -> None:
        self.points, self.row_weights, self.tol = points, row_weights, tol
        self.total = float(row_weights.sum())

    def look(self, place: Array) -> _View:
        squares, inverse, pull = self.points.pulls(place, self.row_weights)
        strength, size, there = sqrt(pull @ pull), float(inverse @ squares), 0.0
        if np.count_nonzero(inverse) < len(inverse):
            there = float(self.row_weights @ (squares == 0))
        if there:
            gap = max(0.0, 1 - there / strength) if strength > 0 else 0.0
        else:
            gap = strength * sqrt(squares.max()) / size
        return _View(place, squares, inverse, pull, strength, there, size, gap)

    def ended(self, at: _View) -> Solution:
        """What the search from there comes to."""
        best, spare, tried, fast = at, _SPARE, set[int](), True
        for _ in range(ROUNDS):
            if at.gap <= self.tol and (at.there or self._settled(at)):
                return self._solution(at)
            row = None if at.there else self._near(at, tried)
            if row is not None and row.gap <= self.tol:
                return self._solution(row)
            at = row if row is not None and row.size < at.size else at
            after = None if fast or at.there else self._newton(at)
            if after is None:
                after = self.look(self._short_steps(at))
                fast = fast and after.strength <= _FAST * at.strength
            at = after
            spare -= not at.gap < best.gap
            best = at if at.gap < best.gap else best
            if spare < 0:
                break
        return self._solution(best if at.gap > self.tol else at)

    def _short_steps(self, at: _View) -> Array:
        """Where Weiszfeld's step leads, which lowers F always, and of few rows some more of them; from a row
        that of Vardi and Zhang (PNAS 2000)."""
        place: Array = at.place + at.pull * ((at.gap if at.there else 1.0) / at.inverse.sum())
        return place if at.there else self.points.walked(place, self.row_weights, _STEPS)

    def _near(self, at: _View, tried: set[int]) -> _View | None:
        """What is seen from the nearest row, if it is near and was not tried before."""
        k = int(at.squares.argmin())
        if k in tried or at.squares[k] > (_NEAR * at.size / self.total) ** 2:
            return None
        tried.add(k)
        return self.look(self.points.row(k))

    def _newton(self, at: _View) -> _View | None:
        """What is seen after a Newton step; None where it leaves no smaller gradient."""
        step = self._newton_step(at)
        found = None if step is None else self.look(at.place + step)
        return found if found is not None and found.strength < at.strength else None

    def _newton_step(self, at: _View) -> Array | None:
        """H^-1 `pull` by conjugate gradients, H = Σ w_i/r_i (I - u_i u_i^T); None where that is flat.

        It is taken as exactly as the square of the error before it is worth, or as the proof asks.
        """
        weight, bends = float(at.inverse.sum()), at.inverse / at.squares
        goal = self.tol * at.size / sqrt(at.squares.max())
        share = _LEFT * max(at.strength / self.total, min(1.0, goal / at.strength))
        found, left = np.zeros_like(at.pull), at.pull
        way, size = left.copy(), float(left @ left)
        stop = share**2 * size
        for _ in range(min(_PRODUCTS, 2 * len(left))):
            image = weight * way - self.points.spread_along(at.place, way, bends)
            curve = float(way @ image)
            if not curve > _CURVED * weight * float(way @ way):
                return None
            found += size / curve * way
            left = left - size / curve * image
            before, size = size, float(left @ left)
            if size <= stop:
                break
            way *= size / before
            way += left
        return found

    def _settled(self, at: _View) -> bool:
        """Whether the bulk is, too, where huge rows make the proof blunt."""
        lengths = np.sqrt(at.squares)
        order = lengths.argsort(kind="stable")
        held, near = self.row_weights[order].cumsum(), lengths[order]
        most = held > self.total / 2
        reach = float((2 * held[most] * near[most] / (2 * held[most] - self.total)).min())
        return at.strength * reach <= SETTLED * majority_sum(lengths, self.row_weights)

    def _solution(self, at: _View) -> Solution:
        """Weights of the rows there, or of one more of Weiszfeld's steps, by which F falls."""
        if at.there:
            chosen = np.zeros(self.points.n)
            chosen[self._tied(at) if at.gap <= self.tol else [int(at.squares.argmin())]] = 1
            return Solution(chosen / chosen.sum(), at.gap)
        return Solution(at.inverse / at.inverse.sum(), at.gap)

    def _tied(self, at: _View) -> list[int]:
        """The first of each set of equal rows that are medians: others than the row seen `at` lie where it is
        pulled to, as F(x) >= F(x_k) + w ‖x - x_k‖ - <pull, x - x_k> with the weight w there."""
        chosen = [int(at.squares.argmin())]
        if at.strength < (1 - _EDGE) * at.there:
            return chosen
        lengths = np.sqrt(at.squares)
        ways = self.points.rows.double().numpy() - at.place
        there = (lengths > 0) & (at.there * lengths - ways @ at.pull <= _EDGE * at.there * lengths)
        several, last = there.nonzero()[0], at
        share = majority_sum(lengths, self.row_weights)
        for i in several[lengths[several].argsort(kind="stable")].tolist():
            if np.array_equal(self.points.row(i), last.place):
                continue
            last = self.look(self.points.row(i))
            both = np.sqrt(last.squares) + lengths
            change = np.divide(last.squares - at.squares, both, out=np.zeros_like(both), where=both > 0)
            if float(self.row_weights @ change) > TIED * share:
                break
            chosen.append(i)
        return chosen
