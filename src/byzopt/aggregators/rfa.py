"""RFA: a few smoothed Weiszfeld steps towards the geometric median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.kinds import PairwiseRule
from byzopt.aggregators.core.weighted_form import WeightedSum
from byzopt.aggregators.numerics.distances import Array, Distances, even
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.weighted_columns import weighted_bulk, weighted_upper_median
from byzopt.errors import require


@RULES.register("rfa")
@dataclass(frozen=True)
class RFA(PairwiseRule):
    """`iterations` times z <- Σ β_i v_i / Σ β_i with β_i = 1 / max(‖z - v_i‖, ν).

    ν is `nu` times the median distance of the rows to the bulk's mean, so that the rule is scale-equivariant;
    `nu_absolute` (in the rows' own units) replaces it. An absolute ν turns RFA into the mean once all rows
    are within ν of z. `start`: "bulk" (the mean of n/2 + 1 rows that lie close together: bounded whatever the
    others hold), "mean" (huge rows need more iterations), or "zero" (not translation-equivariant).

    `f` only says how many rows may be dropped. Needs 2 f < n. No κ is proved in advance for the smoothed,
    truncated iteration, but `certify` has one for each answer, of how close it came to the geometric median
    (derived here); `GeometricMedian` solves the problem to a proved gap. Cost: one Gram product.
    Source: Pillutla, Kakade, Harchaoui, arXiv:1912.13445, algorithm 2; arXiv:2603.12512 runs 8
    iterations from zero with `nu_absolute=0.1`.

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.
        iterations: Number of steps.
        nu: Smoothing ν, as a share of the rows' median distance to the bulk.
        nu_absolute: Smoothing in the rows' own units, in place of `nu`.
        start: Where z begins: "bulk", "mean" or "zero".

    Examples:
        >>> import torch
        >>> from byzopt import RFA
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> RFA(f=1)(rows)
        tensor([1.7753, 1.2196])
    """

    batched = True

    f: int | None = None
    iterations: int = 8
    nu: float = 1e-6
    nu_absolute: float | None = None
    start: Literal["bulk", "mean", "zero"] = "bulk"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.iterations >= 1, "Parameter `iterations` of RFA", "be at least 1", self.iterations)
        require(self.nu > 0, "Parameter `nu` of RFA", "be positive", self.nu)
        nu = self.nu_absolute
        require(nu is None or nu > 0, "Parameter `nu_absolute` of RFA", "be positive", nu)

    @property
    def translation_equivariant(self) -> bool:
        return self.start != "zero"

    @property
    def scale_equivariant(self) -> bool:
        return self.nu_absolute is None

    @property
    def direct(self) -> bool:
        return self.nu_absolute is None and self.start != "zero"

    def decide(self, apart: Distances) -> Array:
        found = apart.steps_from_bulk(self.nu, self.iterations) if self.start == "bulk" else None
        if found is not None:
            return found
        bulk, squares = apart.bulk()
        return self.descend(apart, np.ones_like(bulk), bulk, squares, _middle(squares))

    def weights(self, geometry: Geometry) -> Tensor:
        bulk, squares = geometry.apart.bulk()
        beta = self.descend(
            geometry.apart, np.ones_like(bulk), bulk, squares, _middle(squares), self._about(geometry)
        )
        return torch.from_numpy(beta)

    def _about(self, geometry: Geometry) -> tuple[float, Array | None]:
        """The unit of lengths, and the squared norms of the rows where the start needs them."""
        return geometry.unit, geometry.sq_norms.numpy() if self.start == "zero" else None

    def descend(
        self,
        apart: Distances,
        row_weights: Array,
        bulk: Array,
        squares: Array,
        spread: Any,
        about: tuple[float, Array | None] = (1.0, None),
    ) -> Array:
        """The iteration for rows that count with weights `[..., m]`; `squares`: their squared distances to
        the bulk, `spread`: the median distances to it; `about`: see `_about`."""
        unit, norms = about
        width = self.nu * spread if self.nu_absolute is None else self.nu_absolute / unit
        if norms is not None:
            squares = norms
        elif self.start == "mean":
            squares = apart.lengths_to(row_weights / row_weights.sum())
        floor = np.asarray(width)[..., None]
        shortest = floor if floor.all() else np.where(floor > 0, floor, 1)  # any: see below
        beta = apart.weiszfeld(row_weights, squares, shortest, self.iterations)
        if shortest is floor:
            return beta
        # A majority of equal rows is its own geometric median.
        one = even(bulk.argmax(axis=-1, keepdims=True), apart.m)
        return np.where(floor == 0, one, beta)

    def weighted_form(self, row_weights: Tensor, heaviest: float) -> Aggregator:
        def act(mixed: Mixed) -> Tensor:
            geometry, start = mixed.geometry, weighted_bulk(mixed.geometry, row_weights)
            squares = geometry.sq_dists_to(start)
            spread = float(weighted_upper_median(squares, row_weights).sqrt())
            beta = self.descend(
                geometry.apart,
                row_weights.numpy(),
                start.numpy(),
                squares.numpy(),
                spread,
                self._about(geometry),
            )
            return torch.from_numpy(beta)

        return WeightedSum(act)


def _middle(squares: Array) -> Any:
    """The median distances, from squared ones `[..., m]`."""
    ordered = squares.copy()
    ordered.sort(axis=-1)
    return np.sqrt(ordered[..., squares.shape[-1] // 2])
