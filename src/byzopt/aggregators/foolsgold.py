"""FoolsGold: rows that point the same way as another row count less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.weighing import WeighingRule, cosines, row_norms
from byzopt.aggregators.numerics.distances import Array, by_rows
from byzopt.aggregators.numerics.figures import cut, middle
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import require

_ALIKE = 1e-12  # 1 - cosine below this is rounding


@RULES.register("foolsgold")
@dataclass(frozen=True)
class FoolsGold(WeighingRule):
    """Σ a_i v_i / Σ a_i, where a_i falls with the likeness of row i to its most alike other row.

    With cosines c_ij (c_ii = 0) and v_i = max_j c_ij, likeness is pardoned, c_ij <- c_ij v_i / v_j where
    v_j > v_i; then a_i = 1 - max_j c_ij over the largest of them, and a_i <- κ_c (ln(a_i/(1 - a_i)) + 1/2),
    all cut to [0, 1]; `confidence` is κ_c. Rows longer than `reach` median norms are cut to that length.

    Against Sybils, that is faulty workers who send alike rows, and nothing else: a lone faulty row that
    points its own way gets full weight, so no f is tolerated in the sense of the other rules (breakdown
    point 0, κ none; the answer is at most `reach` median norms long). `f` only says how many rows may be
    dropped. Needs 2 f < n. Honest rows that are all alike lose weight too. Scale-equivariant, not
    translation-equivariant. Cost: one float64 Gram product of the rows, so
    that 1 - cosine is known to about 1e-15.
    Source: Fung, Yoon, Beschastnikh, arXiv:1808.04866, algorithm 1. Where we differ: the paper compares
    each worker's sum of updates over all rounds and weighs features by importance; this is the pure form,
    which compares the given rows in all coordinates and remembers nothing (worker momentum makes rows
    histories). The paper adds Σ a_i v_i to the model; we divide by Σ a_i, so that the answer is a mean.
    Length is cut (see `reach`), because only directions are judged. A row of zeros points nowhere and has
    a_i = 0. When all a_i are 0, as for equal rows, the weights are even.

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.
        confidence: κ_c of the logit.
        reach: Longest row, in median norms.

    Examples:
        >>> import torch
        >>> from byzopt import FoolsGold
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-3.0, -3.0], [-3.0, -3.0]])
        >>> FoolsGold(f=1)(rows)  # the last two are alike
        tensor([0.5000, 0.5000])
    """

    translation_equivariant = False
    convex = False
    validates = True

    f: int | None = None
    confidence: float = 1.0
    reach: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.confidence > 0, "Parameter `confidence` of FoolsGold", "be positive", self.confidence)
        require(self.reach >= 1, "Parameter `reach` of FoolsGold", "be at least 1", self.reach)

    def breakdown(self, n: int) -> int:
        return 0

    def weigh(self, mixed: Mixed) -> Tensor:
        lengths = row_norms(mixed)
        norms, alike = lengths.numpy(), cosines(mixed, lengths).numpy()
        np.fill_diagonal(alike, 0)
        most: Array = by_rows(lambda part: part.max(axis=1), alike)

        def part(own: Array, first: Array) -> Any:
            place = first[:, None]
            pardon = np.divide(place, most, out=np.ones_like(own), where=most > place)
            return 1 - (own * pardon).max(axis=1)

        with np.errstate(all="ignore"):
            spread: Array = by_rows(part, alike, most)
        spread = np.where((spread > _ALIKE) & (norms > 0), spread, 0.0)  # a row of zeros points nowhere
        share = spread / max(spread.max(), _ALIKE)
        with np.errstate(divide="ignore"):
            share = ((np.log(share) - np.log1p(-share) + 0.5) * self.confidence).clip(0, 1)
        share = share if share.any() else np.ones_like(share)
        return torch.from_numpy(share / share.sum() * cut(norms, self.reach * middle(norms)))
