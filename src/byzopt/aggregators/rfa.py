"""RFA: a few smoothed Weiszfeld steps towards the geometric median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.kinds import GeometricRule
from byzopt.aggregators.core.weighted_form import WeightedSum
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.geometry import Geometry, even, smoothed_weiszfeld
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.weighted_columns import weighted_bulk, weighted_upper_median
from byzopt.errors import require


@RULES.register("rfa")
@dataclass(frozen=True)
class RFA(GeometricRule):
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

    def weights(self, geometry: Geometry) -> Tensor:
        bulk, squares = geometry.bulk_and_squares()
        ordered = squares.copy()
        ordered.sort(axis=-1)
        spread = np.sqrt(ordered[..., geometry.m // 2])
        return self.descend(geometry, np.ones_like(bulk), bulk, squares, spread)

    def descend(
        self, geometry: Geometry, row_weights: Array, bulk: Array, squares: Array, spread: Any
    ) -> Tensor:
        """The iteration for rows that count with weights `[..., m]`; `squares`: their squared distances to
        the bulk, `spread`: the median distances to it."""
        width = self.nu * spread if self.nu_absolute is None else self.nu_absolute / geometry.unit
        if self.start == "zero":
            squares = geometry.sq_norms.numpy()
        elif self.start == "mean":
            squares = geometry.sq_lengths_to(row_weights / row_weights.sum())
        floor = np.asarray(width)[..., None]
        shortest = floor if floor.all() else np.where(floor > 0, floor, 1)  # any: see below
        beta = smoothed_weiszfeld(geometry, row_weights, squares, shortest, self.iterations)
        if shortest is floor:
            return torch.from_numpy(beta)
        # A majority of equal rows is its own geometric median.
        one = even(bulk.argmax(axis=-1, keepdims=True), geometry.m).numpy()
        return torch.from_numpy(np.where(floor == 0, one, beta))

    def weighted_form(self, row_weights: Tensor, heaviest: float) -> Aggregator:
        def act(mixed: Mixed) -> Tensor:
            geometry, start = mixed.geometry, weighted_bulk(mixed.geometry, row_weights)
            squares = geometry.sq_dists_to(start)
            spread = float(weighted_upper_median(squares, row_weights).sqrt())
            return self.descend(geometry, row_weights.numpy(), start.numpy(), squares.numpy(), spread)

        return WeightedSum(act)
