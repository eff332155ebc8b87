"""The geometric median in weight space: Newton's method on n x n numbers, with a proof of optimality.

F(z) = Σ w_i ‖x_i - z‖ with weights w_i > 0 of the rows, all 1 unless given; W is their sum.
Every point in play is z = x_k + Σ a_i (x_i - x_k), where row k has the smallest sum of distances of all rows,
so z is the coefficients a, and inner products about x_k give every length. That choice of origin keeps
lengths accurate when z comes close to a row, which near the optimum only row k can be.

Proof away from the rows: F is convex and its minimum lies among the rows' convex combinations, so
F(z) - min F <= max_i <-∇F(z), x_i - z>. Rows of 1e30 make F itself huge and such a proof blunt, so the
iteration goes on until the bulk is settled too: F(z) - min F <= ‖∇F(z)‖ D, where D >= ‖z - z*‖ follows from
any weight p > W/2 within ρ of z: at distance D, F is at least F(z) + p (D - 2ρ) - (W - p) D, so that
D <= 2 p ρ/(2 p - W).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from byzopt import kernels
from byzopt.aggregators.numerics.distances import Array, Index, by_rows
from byzopt.kernels import TIE

ROUNDS = 200  # at most this many steps; Newton's method needs about ten
SETTLED = 1e-6  # ‖∇F‖ D relative to the bulk's share of F; a gradient's norm is known to about 1e-8
_SPARE = 5  # steps that may go nowhere: next to the minimum rounding decides which way one goes
_DIRECT = 128  # rows up to which factorising costs less than products with n x n numbers
_PRODUCTS = 40  # of these, at most, before factorising after all
_RESIDUAL = 1e-8  # of a Newton step: what is left of it falls to the next one
TIED = 1e-13  # rows whose sums of distances differ by less, relatively, are equally good


class Solution(NamedTuple):
    """Weights of the rows in z, and a proved bound on (F(z) - min F) / F(z)."""

    weights: Array
    gap: float


def certified_median(gram: Array, tol: float, row_weights: Array | None = None) -> Solution:
    """The geometric median of rows with inner products `gram` `[n, n]` about any row of the bulk."""
    row_weights = np.ones(len(gram)) if row_weights is None else row_weights
    excess = _excess(gram, row_weights)
    k = int(excess.argmin())
    lean, lengths = gram[k], _lengths_from(gram, k)
    gram = by_rows(lambda part, own: part - own[:, None] - lean + lean[k], gram, lean)
    here = lengths == 0
    gram[here], gram[:, here] = 0, 0
    gap, start = _at_row(gram, row_weights)
    if here.all() or gap <= tol:
        tied = (excess <= excess[k] + TIED * majority_sum(lengths, row_weights)).nonzero()[0]
        chosen = np.zeros(len(gram))
        chosen[_unlike(gram, tied)] = 1
        return Solution(chosen / chosen.sum(), gap)
    middle = np.sort(gram.diagonal())[len(gram) // 2]
    floor = 1e-28 * float(middle)  # keeps the units finite should z meet a row
    at = best = _look(gram, start, row_weights, floor)
    spare = _SPARE
    for _ in range(ROUNDS):
        if at.gap <= tol and at.subgradient <= SETTLED:
            break
        point, descends = _step(at)
        after = _look(gram, point, row_weights, floor)
        spare -= not (descends or after.gap < at.gap)
        if spare < 0:
            break
        at = after
        best = at if at.gap < best.gap else best
    at = best if at.gap > tol else at
    weights = at.point.copy()
    weights[k] += 1 - weights.sum()
    return Solution(weights, at.gap)


def medoid_of(gram: Array, row_weights: Array | None = None) -> int:
    """The row with the smallest sum of distances; of those equal but for rounding the lowest index.

    `gram` `[n, n]` is about any row of the bulk.
    """
    row_weights = np.ones(len(gram)) if row_weights is None else row_weights
    return first_of_least(_excess(gram, row_weights), lambda k: _lengths_from(gram, k), row_weights)


def first_of_least(excess: Array, lengths_from: Callable[[int], Array], row_weights: Array) -> int:
    """The first of the rows whose sums of distances, given by their `excess` over that of one row, are least
    but for rounding. `lengths_from` gives the distances of all rows from one."""
    k = int(excess.argmin())
    share = majority_sum(lengths_from(k), row_weights)
    return int((excess <= excess[k] + TIE * share).argmax())


def _excess(gram: Array, row_weights: Array) -> Array:
    """Each row's sum of distances less that of the row `gram` is about."""
    if kernels.selects():
        return kernels.sums_beyond(gram, row_weights)
    squares = gram.diagonal()
    far = np.sqrt(np.maximum(squares, 0))

    def part(products: Array, own: Array) -> Array:
        change = own[:, None] - 2 * products  # squared distance less that of the origin row
        both = np.sqrt(np.maximum(change + squares, 0)) + far
        shares = np.divide(change, both, out=np.zeros_like(both), where=both > 0)
        total: Array = (shares * row_weights).sum(axis=1)
        return total

    excess: Array = by_rows(part, gram, squares)
    return excess


def _lengths_from(gram: Array, k: int) -> Array:
    """Distances `[n]` of all rows from row k."""
    squares = gram.diagonal()
    lengths: Array = np.sqrt(np.maximum(squares[k] + squares - 2 * gram[k], 0))
    return lengths


def _unlike(gram: Array, rows: Index) -> Index:
    """The first of each set of equal rows among `rows`."""
    some = gram[np.ix_(rows, rows)]
    squares = some.diagonal()
    equal = squares[:, None] + squares - 2 * some <= 0
    return rows[~np.tril(equal, -1).any(axis=1)]


def majority_sum(lengths: Array, row_weights: Array) -> float:
    """Σ w_i r_i over the nearest rows that hold more than half of the row_weights."""
    order = lengths.argsort(kind="stable")
    held = row_weights[order].cumsum()
    most = int((held <= row_weights.sum() / 2).sum()) + 1
    return float((row_weights * lengths)[order[:most]].sum())


def _at_row(gram: Array, row_weights: Array) -> tuple[float, Array]:
    """Row k as a candidate: its relative gap, and the first step away from it.

    With pull R = ‖Σ w_i times unit vectors to the others‖ and the weight m at x_k, duality gives
    min F >= F(x_k) min(1, m/R), and the step (1 - m/R) of the way to the others' Weiszfeld point lowers F
    (Vardi and Zhang, PNAS 2000).
    """
    lengths = np.sqrt(np.maximum(gram.diagonal(), 0))
    away = lengths > 0
    inverse = np.divide(row_weights, lengths, out=np.zeros_like(lengths), where=away)
    pull = float(np.sqrt(max(float(inverse @ gram @ inverse), 0.0)))
    gap = max(0.0, 1 - float(row_weights[~away].sum()) / pull) if pull > 0 else 0.0
    return gap, gap * inverse / max(inverse.sum(), np.finfo(float).tiny)


class _About(NamedTuple):
    """Inner products about z: `gram`, less `lean` = gram a in rows and columns, plus `level` = a lean.
    They are not written down where products with them will do."""

    gram: Array
    lean: Array
    level: float

    def times(self, vectors: Array) -> Array:
        """Their product with vectors `[n]` or `[n, s]`."""
        total = vectors.sum(axis=0)
        moved = np.multiply.outer(self.lean, total)
        product: Array = self.gram @ vectors - moved - self.lean @ vectors + self.level * total
        return product

    def diagonal(self) -> Array:
        squares: Array = self.gram.diagonal() - 2 * self.lean + self.level
        return squares

    def whole(self) -> Array:
        products: Array = self.gram - self.lean[:, None] - self.lean + self.level
        return products


class _View(NamedTuple):
    """A point and what is seen from it: lengths to the rows, inner products about it, those of the rows with
    -∇F, and the two proofs."""

    point: Array
    row_weights: Array
    lengths: Array
    about: _About
    pull: Array
    gap: float
    subgradient: float


def _look(gram: Array, point: Array, row_weights: Array, floor: float) -> _View:
    lean = gram @ point
    about = _About(gram, lean, float(point @ lean))
    lengths = np.sqrt(np.maximum(about.diagonal(), floor))
    inverse = row_weights / lengths
    pull = about.times(inverse)  # <-∇F, x_i - z>
    order = lengths.argsort(kind="stable")
    held, near, total = row_weights[order].cumsum(), lengths[order], row_weights.sum()
    most = held > total / 2
    sums = row_weights * lengths
    majority = float(sums[order[: len(order) - int(np.count_nonzero(most)) + 1]].sum())
    reach = float((2 * held[most] * near[most] / (2 * held[most] - total)).min())
    subgradient = float(np.sqrt(max(float(inverse @ pull), 0.0))) * reach / majority
    gap = max(0.0, float(pull.max())) / float(sums.sum())
    return _View(point, row_weights, lengths, about, pull, gap, subgradient)


def _step(at: _View) -> tuple[Array, bool]:
    """The best of Newton steps of several lengths and Weiszfeld's step, and whether it is seen to descend.

    Descent is summed as (r'² - r²)/(r' + r), which keeps its digits when far rows make F itself huge. Next to
    the minimum rounding hides it; then the full Newton step is as good as any.
    """
    inverse = at.row_weights / at.lengths
    steps = np.stack([*_newton(at, inverse), inverse / inverse.sum()], axis=1)
    lean = at.about.times(steps)
    change = (steps * lean).sum(axis=0) - 2 * lean
    old = at.lengths[:, None]
    new = np.sqrt(np.maximum(old**2 + change, 0))
    descent = (change / (new + old) * at.row_weights[:, None]).sum(axis=0)
    descends = bool(descent.min() < 0)
    step = steps[:, int(descent.argmin()) if descends else 0]
    moved: Array = (1 - step.sum()) * at.point + step
    return moved, descends


def _newton(at: _View, inverse: Array) -> list[Array]:
    """Newton steps as coefficients of x_i - z, by Woodbury's identity on the Hessian S I - V V^T.

    V = [u_i √(w_i/r_i)], S = Σ w_i/r_i (w_i/r_i is `inverse`), u_i unit vectors from z. Empty where the
    Hessian is singular (a line).
    """
    weight, shrink = float(inverse.sum()), 1 / at.lengths
    half = np.sqrt(inverse) * shrink  # inner products of V are half_i half_j times those about z
    try:
        bend = _solved(at.about, weight, half, half * at.pull)
    except np.linalg.LinAlgError:
        return []
    full = (inverse + half * bend) / weight
    return [full * size for size in (1.0, 0.5, 0.25, 0.0625)] if np.isfinite(full).all() else []


def _solved(about: _About, weight: float, half: Array, right: Array) -> Array:
    """x with (S I - V^T V) x = `right`, S = `weight`: by conjugate gradients where there are many rows.

    The matrix has no negative eigenvalues. Where rows point to all sides few are far from S, and so few
    products do; where these do not suffice, or there are few rows, it is factorised.
    """
    if len(right) > _DIRECT:
        found, left = np.zeros_like(right), right
        way, size = left.copy(), float(left @ left)
        goal = _RESIDUAL**2 * size
        for _ in range(_PRODUCTS):
            image = weight * way - half * about.times(half * way)
            curve = float(way @ image)
            if not curve > 0:
                break
            found += size / curve * way
            left = left - size / curve * image
            before, size = size, float(left @ left)
            if size <= goal:
                return found
            way *= size / before
            way += left
    products = about.whole() * half * half[:, None]
    inside = weight * np.eye(len(right)) - products
    if kernels.decides(len(right)):
        return kernels.solved(inside, right)
    return np.asarray(np.linalg.solve(inside, right), dtype=np.float64)
