"""A certificate for one answer: its robustness coefficient, whatever the rule promises in advance.

Any point that is a weighted mean of the rows can be certified as an approximate geometric median, from its
weights and the rows' inner products (`theory.robustness.geometric_median`; argument: docs/constants.md).
Certificates hold up to the rounding of those products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np

from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.theory.robustness import NOTHING, Coefficients, both, closed, geometric_median, moved_by

_AFFINE = 1e-9  # weights of a mean sum to one, up to this
_ROUNDING = 16 * float(np.finfo(np.float64).eps)  # of a cosine between two rows, seen from a point
_FINE = 1e-7  # of the median distance: nearer to a row, the direction to it is rounding


@dataclass(frozen=True)
class Certificate:
    """For this answer ‖· - v̄‖ <= `linear` · mean‖v_i - v̄‖, and ‖· - v̄‖² <= `squared` · mean‖v_i - v̄‖².

    v̄ is the mean of the honest rows, whichever n - f of the `n` finite rows they are; `f` counts the faulty
    ones that may be among these n. Both are None where nothing is certified, and `reason` says why.

    Args:
        linear: κ of this answer; None: nothing is certified.
        squared: κ₂ of this answer; None: nothing is certified.
        n: Number of finite rows.
        f: How many of them may be faulty.
        reason: Why nothing is certified.

    Examples:
        >>> import torch
        >>> from byzopt import Median
        >>> found = Median(f=1).certify(torch.eye(5))
        >>> found.n, found.f, found.squared is not None
        (5, 1, True)
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


class ChainInput(NamedTuple):
    """The rows before all stages: their geometry, the `mixing` that leads to the rule's rows (None: there is
    no stage), how many are faulty, and what is proved of the chain, given what is proved of its rule."""

    geometry: Geometry
    mixing: Array | None
    f: int
    composed: Callable[[Coefficients], Coefficients]


class Nearness(NamedTuple):
    """How near a point comes to the geometric median of rows: floats, or arrays for many sets of rows.

    `affine`: whether it is a weighted mean of the rows. `subgradient`: the length of the sum of the unit
    vectors to all rows, less 1 for each row there: the norm of the least subgradient of Σ‖v_i - ·‖.
    `row_subgradient`: the same at the row nearest to the point, which is `away` from it; `mean` and `root`
    are the mean and the root mean square of the distances from that row to the n - f nearest of the rows
    that came in.
    """

    affine: Any
    subgradient: Any
    row_subgradient: Any
    away: Any
    mean: Any
    root: Any


def nearness(geometry: Geometry, weights: Array, n: int, source: ChainInput) -> Nearness:
    """How near the point with `weights` `[..., m]` comes to the geometric median of the last n of m rows.

    Cost: a few operations on m x m numbers.
    """
    gram, sq_dists = geometry.centred.numpy(), geometry.sq_dists.numpy()
    best = geometry.apart.lengths_to(weights)[..., -n:].argmin(axis=-1)[..., None, None]
    k = geometry.m - n + best
    lean = np.take_along_axis(gram, k, axis=-2)
    row = gram - lean.swapaxes(-1, -2) - lean + np.take_along_axis(lean, k, axis=-1)
    apart = np.take_along_axis(sq_dists, k, axis=-2) > 0
    row *= apart & apart.swapaxes(-1, -2)  # rows that equal the nearest one do so to the last bit
    lean = weights[..., None, :] @ row
    length = lean @ weights[..., None]
    point = row - lean.swapaxes(-1, -2) - lean + length
    row, point = row[..., -n:, -n:], point[..., -n:, -n:]
    away = np.sqrt(np.maximum(length[..., 0, 0], 0))
    away = np.where(away > _FINE * np.median(_lengths(point), axis=-1), away, 0.0)
    if source.mixing is None:
        came = _lengths(row)
    else:
        came = np.sqrt(
            source.geometry.apart.lengths_to(np.take_along_axis(source.mixing, best, axis=-2)[..., 0, :])
        )
    nearest = np.sort(came, axis=-1)[..., : came.shape[-1] - source.f]
    root = np.sqrt((nearest**2).mean(axis=-1))
    affine = np.abs(weights.sum(axis=-1) - 1) <= _AFFINE
    return Nearness(affine, subgradient_norm(point), subgradient_norm(row), away, nearest.mean(axis=-1), root)


def subgradient_norm(gram: Array) -> Array:
    """The norm of the least subgradient of the sum of distances: the length of the sum of unit vectors to all
    rows, less 1 for each row there; from products about the point.

    `gram` `[..., n, n]` holds the products of the rows about the point. The value is an upper bound, whatever
    rounding did to the cosines: n - 2 f, from which nothing follows, must not be taken for a little less.
    """
    lengths = _lengths(gram)
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    cosines = np.clip(gram * inverse[..., None, :] * inverse[..., None], -1, 1)
    off = (lengths > 0).sum(axis=-1)
    pull = np.sqrt(np.maximum(cosines.sum(axis=(-1, -2)), 0) + _ROUNDING * off**2)
    rest: Array = np.maximum(pull - (lengths == 0).sum(axis=-1), 0)
    return rest


def proof(
    measured: Nearness, n: int, f: int, composed: Callable[[Coefficients], Coefficients]
) -> Coefficients:
    """What is proved of a point as an approximate geometric median of n rows, f of them faulty.

    Of itself, or by way of the row nearest to it (where iterations end at a row, the directions seen from
    beside it say little): the least of the two. Nothing if it is no weighted mean of the rows.
    """
    if 2 * f >= n or not measured.affine:
        return NOTHING
    at_row = composed(closed(geometric_median(n, f, float(measured.row_subgradient)), n, f))
    if measured.away == 0:
        return at_row
    near = moved_by(at_row, float(measured.away), (float(measured.mean), float(measured.root)))
    return both(near, composed(closed(geometric_median(n, f, float(measured.subgradient)), n, f)))


def nearly_median(geometry: Geometry, weights: Array, n: int, f: int, source: ChainInput) -> Coefficients:
    """What is proved of the point with `weights` `[m]`, as near as it comes to the last n rows' median."""
    return proof(nearness(geometry, weights, n, source), n, f, source.composed) if 2 * f < n else NOTHING


def _lengths(gram: Array) -> Array:
    lengths: Array = np.sqrt(np.maximum(np.einsum("...ii->...i", gram), 0))
    return lengths
