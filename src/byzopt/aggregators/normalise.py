"""Rows of one length before a rule: directions count, lengths do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from byzopt.aggregators.core.pre_aggregator import PRE_AGGREGATORS, ScalingStage
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.figures import middle


@PRE_AGGREGATORS.register("normalise")
@dataclass(frozen=True)
class Normalise(ScalingStage):
    """Bring every row to the median of the rows' lengths.

    So no row weighs more than another, however long or short it was sent: one faulty row moves the mean of n
    by at most 2/n of that length, but none is filtered. Rows shorter than a hundredth of the median are
    stretched a hundred times and no further, since a row that is next to nothing has no direction to speak
    of, and products of rows would lose their digits. A row of zeros stays. A rule that goes by lengths alone
    (`cge`) has nothing left to go by: rounding decides which rows it keeps.

    Needs no f. Scale- but not translation-equivariant. No κ is composed: the lengths of honest rows are lost,
    and the mean of their directions is not their mean. Cost: one pass for lengths. Source: ours; normalised
    rows under a mean are old, here they are scaled back to a length and put before any rule.

    Examples:
        >>> import torch
        >>> from byzopt import Mean, Normalise
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [90.0, 0.0]])
        >>> Normalise()(rows)
        tensor([[2., 0.],
                [0., 2.],
                [2., 0.]])
        >>> (Normalise() >> Mean())(rows)
        tensor([1.3333, 0.6667])
    """

    translation_equivariant = False
    convex = False

    bounds = True
    batched = True

    most: ClassVar[float] = 100.0  # times that a row is stretched

    def lengths(self, norms: Array, unit: float) -> Array:
        with np.errstate(over="ignore"):
            lengths: Array = np.minimum(middle(norms), self.most * norms)
        return lengths
