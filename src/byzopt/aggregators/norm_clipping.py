"""Norm clipping: the mean of rows cut to a common length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.weighing import FigureRule, row_norms, shrink
from byzopt.aggregators.core.weighted_form import WeightedSum
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.figures import Ask, cut, middle
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.weighted_columns import ranked, weighted_median
from byzopt.errors import require


@RULES.register("norm_clipping")
@dataclass(frozen=True)
class NormClipping(FigureRule):
    """(1/n) Σ min(1, c/‖v_i‖) v_i with c the median of the norms, or `bound` (in the rows' own units).

    One faulty row moves the answer by at most 2c/n: bounded, but never filtered, so f of them that turn
    against the honest mean still cost about 2 f/n of it. `f` only says how many rows may be dropped. Needs
    2 f < n. Breakdown point 1/2 with the median, 1 with a fixed `bound`; κ unproved. Without `bound`,
    scale-equivariant; not translation-equivariant. Cost: two passes over the rows.
    Source: Sun et al., arXiv:1911.07963, norm thresholding of updates (with a fixed bound). Where we differ:
    the bound follows the median norm unless given, because a length chosen beforehand fits one stage of
    training only.

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.
        bound: Largest length, in the rows' own units; None: the median of the norms.

    Examples:
        >>> import torch
        >>> from byzopt import NormClipping
        >>> rows = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> NormClipping(bound=1.0)(rows)
        tensor([0.3000, 0.9000])
    """

    translation_equivariant = False
    convex = False
    batched = True
    asks = "squares"

    f: int | None = None
    bound: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        what = "Parameter `bound` of NormClipping"
        require(self.bound is None or self.bound > 0, what, "be positive", self.bound)

    @property
    def scale_equivariant(self) -> bool:
        return self.bound is None

    def shares(self, found: Array, unit: float, order: Ask | None = None) -> Array:
        norms = np.sqrt(found[-1])
        bound = middle(norms) if self.bound is None else self.bound / unit
        weights: Array = cut(norms, bound) / norms.shape[-1]
        return weights

    def decided(self, geometry: Geometry) -> Tensor:
        """Weights `[..., m]` of rows as they were sent, by their lengths: `weigh` for many sets at once."""
        squares = geometry.sq_norms.numpy()[None]
        return torch.from_numpy(self.shares(squares, geometry.unit))

    def weighted_form(self, row_weights: Tensor, heaviest: float) -> Aggregator:
        def act(mixed: Mixed) -> Tensor:
            norms = row_norms(mixed)
            half = float(weighted_median(*ranked(norms.unsqueeze(1), row_weights)))
            bound = half if self.bound is None else self.bound / mixed.unit
            return shrink(norms, bound) * row_weights / row_weights.sum()

        return WeightedSum(act)
