"""MoNNA's rule: the mean of the rows nearest to one's own."""

from __future__ import annotations

from dataclasses import dataclass

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.trusting import MeasuringRule
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.figures import Ask, least
from byzopt.theory import order_statistics, selecting
from byzopt.theory.robustness import NOTHING, Coefficients


@RULES.register("monna")
@dataclass(frozen=True)
class MoNNA(MeasuringRule):
    """The mean of the n - f rows nearest to the pivot v_0, itself included.

    `trusted` is the index of v_0: the own row of a worker that averages with its peers, or one known to be
    honest. `TooManyFaults` when v_0 is not finite; `InvalidInput` behind a stage that moves rows (bucketing).
    NNM may stand before it: an honest row that is mixed is a pivot as good as any, and its lemma holds.
    It is Zeno's rule with ρ = 1/2, decided on differences to v_0: an offset that rows share costs no digits.

    Needs f < n. Breakdown point f/n, given that v_0 is honest: rows kept in the place of honest ones are no
    farther from v_0 than the farthest honest row; 0 if it is not. If v_0 is honest, κ₂ = 4 f for 2 f < n
    (derived here; the paper's analysis is relative to the pivot). Scale- and translation-equivariant; not
    permutation-invariant. Ties: the lower index. Cost: one pass for distances; behind a
    stage, one Gram product. Source: Farhadkhani et al.,
    arXiv:2209.10931, nearest-neighbour averaging.

    Args:
        f: Number of faulty rows that the rule is set to withstand, f < n.
        trusted: Index of the pivot.

    Raises:
        TooManyFaults: The pivot is not finite.
        InvalidInput: A stage before the rule that moves rows.

    Examples:
        >>> import torch
        >>> from byzopt import MoNNA
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> MoNNA(f=1)(rows)
        tensor([1.5000, 1.5000])
    """

    pivots = True
    asks = "apart"

    f: int
    trusted: int = 0

    def shares(self, found: Array, unit: float, order: Ask | None = None) -> Array:
        dists = found[0].copy()
        dists[self.trusted] = -1  # its own nearest neighbour even when others coincide with it
        return least(dists, len(dists) - self.f)

    def proved(self, n: int, f: int) -> Coefficients:
        if f != self.f:
            return NOTHING
        return order_statistics.around_centre(selecting.trusted_row(n, f), n, f)
