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

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from byzopt.kernels import TIE

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

ROUNDS = 200  # at most this many steps; Newton's method needs about ten
_SETTLED = 1e-6  # ‖∇F‖ D relative to the bulk's share of F; a gradient's norm is known to about 1e-8
_SPARE = 5  # steps that may go nowhere: next to the minimum rounding decides which way one goes
_TIE = 1e-13  # rows whose sums of distances differ by less, relatively, are equally good


class Solution(NamedTuple):
    """Weights of the rows in z, and a proved bound on (F(z) - min F) / F(z)."""

    weights: Array
    gap: float


def certified_median(gram: Array, tol: float, row_weights: Array | None = None) -> Solution:
    """The geometric median of rows with inner products `gram` `[n, n]` about any row of the bulk."""
    row_weights = np.ones(len(gram)) if row_weights is None else row_weights
    lengths, excess = relative_sums(gram, row_weights)
    k = int(excess.argmin())
    lean = gram[k]
    gram = gram - lean[:, None] - lean + lean[k]
    here = lengths[k] == 0
    gram[here], gram[:, here] = 0, 0
    gap, start = _at_row(gram, row_weights)
    if here.all() or gap <= tol:
        share = _majority_sum(lengths[k], row_weights)
        tied = excess <= excess[k] + _TIE * share
        tied &= ~np.tril((lengths == 0) & tied, -1).any(axis=1)  # one of each set of equal rows
        return Solution(tied / tied.sum(), gap)
    at = best = _look(gram, start, row_weights)
    spare = _SPARE
    for _ in range(ROUNDS):
        if at.gap <= tol and at.subgradient <= _SETTLED:
            break
        point, descends = _step(at)
        after = _look(gram, point, row_weights)
        spare -= not (descends or after.gap < at.gap)
        if spare < 0:
            break
        at = after
        best = at if at.gap < best.gap else best
    at = best if at.gap > tol else at
    weights = at.point.copy()
    weights[k] += 1 - weights.sum()
    return Solution(weights, at.gap)


def relative_sums(gram: Array, row_weights: Array | None = None) -> tuple[Array, Array]:
    """Distances between rows, and each row's sum of distances less that of the row `gram` is about."""
    row_weights = np.ones(len(gram)) if row_weights is None else row_weights
    squares = gram.diagonal()
    lengths = np.sqrt(np.maximum(squares[:, None] + squares - 2 * gram, 0))
    both = lengths + np.sqrt(np.maximum(squares, 0))
    change = squares[:, None] - 2 * gram  # squared distance less that of the origin row
    excess: Array = (np.divide(change, both, out=np.zeros_like(both), where=both > 0) * row_weights).sum(
        axis=1
    )
    return lengths, excess


def medoid_of(gram: Array, row_weights: Array | None = None) -> int:
    """The row with the smallest sum of distances; of those equal but for rounding the lowest index.

    `gram` `[n, n]` is about any row of the bulk.
    """
    row_weights = np.ones(len(gram)) if row_weights is None else row_weights
    lengths, excess = relative_sums(gram, row_weights)
    k = int(excess.argmin())
    return int((excess <= excess[k] + TIE * _majority_sum(lengths[k], row_weights)).argmax())


def _majority_sum(lengths: Array, row_weights: Array) -> float:
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


class _View(NamedTuple):
    """A point and what is seen from it: lengths to the rows, inner products about it, and the two proofs."""

    point: Array
    row_weights: Array
    lengths: Array
    gram: Array
    gap: float
    subgradient: float


def _look(gram: Array, point: Array, row_weights: Array) -> _View:
    lean = gram @ point
    here = gram - lean[:, None] - lean + point @ lean
    floor = 1e-28 * np.median(gram.diagonal())  # keeps the units finite should z meet a row
    lengths = np.sqrt(np.maximum(here.diagonal(), floor))
    inverse = row_weights / lengths
    pull = here @ inverse  # <-∇F, x_i - z>
    order = lengths.argsort(kind="stable")
    held, near, total = row_weights[order].cumsum(), lengths[order], row_weights.sum()
    most = held > total / 2
    reach = float((2 * held[most] * near[most] / (2 * held[most] - total)).min())
    subgradient = (
        float(np.sqrt(max(float(inverse @ pull), 0.0))) * reach / _majority_sum(lengths, row_weights)
    )
    gap = max(0.0, float(pull.max())) / float((row_weights * lengths).sum())
    return _View(point, row_weights, lengths, here, gap, subgradient)


def _step(at: _View) -> tuple[Array, bool]:
    """The best of Newton steps of several lengths and Weiszfeld's step, and whether it is seen to descend.

    Descent is summed as (r'² - r²)/(r' + r), which keeps its digits when far rows make F itself huge. Next to
    the minimum rounding hides it; then the full Newton step is as good as any.
    """
    inverse = at.row_weights / at.lengths
    steps = np.stack([*_newton(at, inverse), inverse / inverse.sum()], axis=1)
    lean = at.gram @ steps
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
    weight, roots, shrink = inverse.sum(), np.sqrt(inverse), 1 / at.lengths
    units = at.gram * shrink * shrink[:, None]
    inside = weight * np.eye(len(inverse)) - units * roots * roots[:, None]
    try:
        bend = np.linalg.solve(inside, roots * (units * at.row_weights[:, None]).sum(axis=0))
    except np.linalg.LinAlgError:
        return []
    full = (inverse + shrink * roots * bend) / weight
    return [full * size for size in (1.0, 0.5, 0.25, 0.0625)] if np.isfinite(full).all() else []
