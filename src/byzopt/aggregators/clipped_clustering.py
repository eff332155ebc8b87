"""Clipped clustering: rows cut to the median length, and the larger of two clusters by angle averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.weighing import WeighingRule, cosines, median_value, row_norms, shrink
from byzopt.aggregators.numerics.clusters import larger_of_two
from byzopt.aggregators.numerics.mixed import Mixed

_ALIKE = 1e-12  # 1 - cosine below this is rounding


@RULES.register("clipped_clustering")
@dataclass(frozen=True)
class ClippedClustering(WeighingRule):
    """The mean of min(1, M/‖v_i‖) v_i over the larger of two clusters of directions, M the median norm.

    Distances are 1 - cos(v_i, v_j); clusters are joined by their `average` distance, or their `single` least
    one, until two are left. Of two clusters of equal size the tighter counts, or both where they are equally
    tight. Rows that all point the same way are one cluster. A row of zeros has distance 1 to all others, 0
    to its like.

    `f` only says how many rows may be dropped. Needs 2 f < n; the answer is no longer than M, which lies
    among the honest norms. κ unproved: there are always two clusters, so an honest worker with unusual data
    may be all that the smaller one holds, while rows that turn a little from the honest mean stay in the
    larger. Scale-equivariant, not translation-equivariant. Ties among joins: the first. Cost: two passes over
    the rows, one of them a float64 Gram product, and n² steps of clustering.
    Source: Li, Ngai, Voigt, "An experimental study of Byzantine-robust aggregation schemes in federated
    learning", IEEE Transactions on Big Data 2023, as the authors' Blades has it (`clippedclustering.py`),
    since the text was not within reach. Where we differ: M is that of the given rows; the paper's is the
    median of the norms of all rounds so far, and at most a constant (1e5 in Blades).

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.
        linkage: How far two clusters are apart: "average" or "single".

    Examples:
        >>> import torch
        >>> from byzopt import ClippedClustering
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> ClippedClustering(f=1)(rows)
        tensor([1.3953, 1.3953])
    """

    translation_equivariant = False
    convex = False
    validates = True
    ties = "first"

    f: int | None = None
    linkage: Literal["average", "single"] = "average"

    def weigh(self, mixed: Mixed) -> Tensor:
        norms = row_norms(mixed)
        zero = norms == 0
        apart = (1 - cosines(mixed, norms)).masked_fill_(zero & zero.unsqueeze(1), 0)
        apart = apart.where(apart > _ALIKE, 0).fill_diagonal_(0)
        kept = larger_of_two(apart, self.linkage)
        return kept * shrink(norms, median_value(norms)) / kept.sum()
