"""AutoGM: a geometric median whose weights are part of what is minimised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.kinds import GeometricRule
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.weiszfeld import certified_median
from byzopt.errors import require

_TOL = 1e-10  # relative gap of each geometric median
_SETTLED = 1e-12  # relative fall of the objective below which the search ends


@RULES.register("auto_gm")
@dataclass(frozen=True)
class AutoGM(GeometricRule):
    """The z of min Σ a_i ‖v_i - z‖ + (λ/2) ‖a‖² over z and weights a >= 0 that sum to 1.

    By turns, from the geometric median: a_i = max(0, η - ‖v_i - z‖)/λ with the η that makes them sum to 1,
    and z the geometric median with weights a. Each turn lowers the objective; it ends when it no longer
    falls. What is found is a minimum in z and in a, not always the least of all. A row further than η from
    z has no part in the answer; where all others are about D from z, η is near D + λ/n.

    λ is `reach` times n times the median distance of the rows to their geometric median, so that rows
    beyond about 1 + `reach` times the typical distance count for nothing; or `lam`, in the rows' own units.

    `f` only says how many rows may be dropped. Needs 2 f < n. Breakdown point 1/2 as to boundedness (each
    turn starts where the last one ended, and drops rows that are far from there); κ unproved, but `certify`
    tries each answer as an approximate geometric median. Scale-equivariant without `lam`;
    translation-equivariant. Cost: one Gram product; each turn a geometric median on n x n numbers.
    Source: Li, Ngai, Voigt, "Byzantine-robust aggregation in federated learning empowered industrial IoT",
    IEEE Transactions on Industrial Informatics 2023, as the authors' Blades has it (`autogm.py`), since the
    text was not within reach. Where we differ: `reach`, for Blades' λ = 2 fits one length of rows only;
    each geometric median is solved to a proved gap; and η is found among the distances in ascending order,
    where Blades takes them in the workers' order, so that its weights need not sum to 1.

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.
        reach: λ in units of n times the median distance to the geometric median.
        lam: λ in the rows' own units, in the place of `reach`; None: by `reach`.
        iterations: At most so many turns.

    Examples:
        >>> import torch
        >>> from byzopt import AutoGM
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> AutoGM(f=1)(rows)  # the last row has weight 0
        tensor([1.5000, 1.5000])
    """

    f: int | None = None
    reach: float = 1.0
    lam: float | None = None
    iterations: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.reach > 0, "Parameter `reach` of AutoGM", "be positive", self.reach)
        require(self.lam is None or self.lam > 0, "Parameter `lam` of AutoGM", "be positive", self.lam)
        require(self.iterations >= 1, "Parameter `iterations` of AutoGM", "be at least 1", self.iterations)

    @property
    def scale_equivariant(self) -> bool:
        return self.lam is None

    def weights(self, geometry: Geometry) -> Tensor:
        gram = geometry.apart.about(geometry.apart.middle()[0])
        z = certified_median(gram, _TOL).weights
        away = np.sqrt(geometry.apart.lengths_to(z))
        lam = geometry.m * self.reach * float(np.median(away))
        lam = lam if self.lam is None else self.lam / geometry.unit
        if lam == 0:  # a majority of equal rows, which is where z stands
            return torch.from_numpy(z)
        before = np.inf
        for _ in range(self.iterations):
            shares = trimmed_shares(away, lam)
            kept = np.flatnonzero(shares)
            z = np.zeros_like(shares)
            z[kept] = certified_median(gram[np.ix_(kept, kept)], _TOL, shares[kept]).weights
            away = np.sqrt(geometry.apart.lengths_to(z))
            value = float(shares[kept] @ away[kept] + lam / 2 * (shares @ shares))
            if before - value <= _SETTLED * value:
                break
            before = value
        return torch.from_numpy(z)


def trimmed_shares(away: Array, lam: float) -> Array:
    """The weights a `[n]` >= 0 of sum 1 with the least Σ a_i away_i + (λ/2) ‖a‖²: max(0, η - away)/λ."""
    ranked = np.sort(away)
    levels = (ranked.cumsum() + lam) / np.arange(1, len(away) + 1)
    level = levels[np.flatnonzero(levels > ranked)[-1]]
    shares = np.maximum(level - away, 0) / lam
    out: Array = shares / shares.sum()
    return out
