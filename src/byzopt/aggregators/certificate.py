"""A certificate for one answer: its robustness coefficient, whatever the rule promises in advance.

Any point that is a weighted mean of the rows can be certified as an approximate geometric median, from its
weights and the rows' inner products (`theory.robustness.geometric_median`; argument: docs/constants.md).
Certificates hold up to the rounding of those products.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from byzopt.aggregators.geometry import Array, Geometry
from byzopt.theory.robustness import NOTHING, Coefficients, beside, both, geometric_median

_AFFINE = 1e-9  # weights of a mean sum to one, up to this
_FINE = 1e-7  # of the median distance: nearer to a row, the direction to it is rounding


@dataclass(frozen=True)
class Certificate:
    """For this answer ‖· - v̄‖ <= `linear` · mean‖v_i - v̄‖, and ‖· - v̄‖² <= `squared` · mean‖v_i - v̄‖².

    v̄ is the mean of the honest rows, whichever n - f of the `n` finite rows they are; `f` counts the faulty
    ones that may be among these n. Both are None where nothing is certified, and `reason` says why.
    """

    linear: float | None
    squared: float | None
    n: int
    f: int
    reason: str = ""

    @property
    def holds(self) -> bool:
        """Whether anything is certified."""
        return self.squared is not None

    def figures(self) -> dict[str, float]:
        """Both coefficients as figures of a record; infinite where nothing is certified."""
        return {
            "certified_linear": inf if self.linear is None else self.linear,
            "certified_squared": inf if self.squared is None else self.squared,
        }

    def __str__(self) -> str:
        if self.linear is None or self.squared is None:
            return f"not certified: {self.reason}"
        kappas = f"kappa {self.linear:.4g}, kappa_squared {self.squared:.4g}"
        return f"certified for f = {self.f} of {self.n}: {kappas}"


def nearly_median(geometry: Geometry, weights: Array, n: int, f: int) -> Coefficients:
    """What is proved of the point with `weights` `[m]`, an approximate geometric median of the last n rows.

    Itself, or by way of the row nearest to it, where iterations that end at a row leave the gradient blunt:
    the least of the two. Nothing if the weights do not sum to one. Cost: a few operations on m x m numbers.
    """
    if 2 * f >= n or abs(float(weights.sum()) - 1) > _AFFINE:
        return NOTHING
    k = geometry.m - n + int(geometry.sq_lengths_to(weights)[-n:].argmin())
    row = geometry.about(k).numpy()
    lean = row @ weights
    point = row - lean[:, None] - lean + weights @ lean
    away = float(np.sqrt(max(float(point[k, k]), 0.0)))
    row, point = row[-n:, -n:], point[-n:, -n:]
    dists = np.sort(np.sqrt(np.maximum(row.diagonal(), 0)))[: n - f]
    at_row = geometric_median(n, f, unrest(row))
    if not away > _FINE * float(np.sqrt(np.median(point.diagonal()))):
        return at_row
    near = beside(at_row, away, (float(dists.mean()), float(np.sqrt((dists**2).mean()))))
    return both(near, geometric_median(n, f, unrest(point)))


def unrest(gram: Array) -> float:
    """‖Σ of the unit vectors to all rows‖ from products `[n, n]` about a point, less 1 for each row there."""
    lengths = np.sqrt(np.maximum(gram.diagonal(), 0))
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    cosines = np.clip(gram * inverse * inverse[:, None], -1, 1)
    pull = float(np.sqrt(max(float(cosines.sum()), 0.0)))
    return max(0.0, pull - int((lengths == 0).sum()))
