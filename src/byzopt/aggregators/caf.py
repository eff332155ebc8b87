"""CAF, the covariance-bound agnostic filter: spread along the top direction is weighed down, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.kinds import GeometricRule
from byzopt.aggregators.numerics.geometry import Geometry


@RULES.register("caf")
@dataclass(frozen=True)
class CAF(GeometricRule):
    """The weighted mean with the smallest top covariance eigenvalue along a sequence of weights c.

    c starts at 1. As long as Σ c_i > n - 2 f: with u the top eigenvector of the covariance of the rows
    weighed by c, and s_i = <v_i - v̄_c, u>², c_i <- c_i (1 - s_i / max s), the maximum being over rows of
    positive weight. Each round takes the weight of one row at least to zero, so there are at most n of them.
    The weights that end the loop are not judged: few rows might be left, and all of them faulty. u comes from
    the exact eigen-solve of the n x n weighted Gram matrix: nothing is drawn.

    Needs 2 f < n. Breakdown point f/n; needs no bound on the honest covariance. No κ is claimed here (the
    paper's is in terms of the largest eigenvalue of the honest covariance). Scale- and
    translation-equivariant. Cost: one Gram product and at most n eigen-solves of n x n.
    Source: Allouah, Guerraoui, Stephan, arXiv:2505.01874, the filter of its robust aggregation. Where we
    differ: f = 0 is the mean (there the loop never runs).

    Args:
        f: Number of faulty rows that the rule is set to withstand, 2 f < n.

    Examples:
        >>> import torch
        >>> from byzopt import CAF
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> CAF(f=1)(rows)
        tensor([1.5009, 1.4991])
    """

    by_value = True

    f: int

    def weights(self, geometry: Geometry) -> Tensor:
        c = best = torch.ones(geometry.m, dtype=torch.float64, device="cpu")
        least = float("inf")
        while float(c.sum()) > geometry.m - 2 * self.f + 1e-9 and least > 0:
            value, spread = _top(geometry.centred, c)
            if value < least:
                best, least = c, value
            c = c * (1 - spread)
        return best / best.sum()


def _top(gram: Tensor, c: Tensor) -> tuple[float, Tensor]:
    """The top eigenvalue of the covariance weighed by c, and s / max s; rows without weight take no part.

    In units of the largest of the rows that do, so that squares neither overflow nor vanish.
    """
    index = (c > 0).nonzero().flatten()
    roots, mean = c[index].sqrt(), c[index] / c.sum()
    lean = gram[index][:, index] @ mean
    centred = gram[index][:, index] - lean - lean.unsqueeze(1) + mean @ lean
    unit = float(centred.diagonal().max())
    if unit <= 0:
        return 0.0, torch.zeros_like(c)
    values, vectors = torch.linalg.eigh(roots.unsqueeze(1) * (centred / unit) * roots)
    along = (centred / unit @ (roots * vectors[:, -1])).square()
    return float(values[-1] / c.sum()) * unit, torch.zeros_like(c).index_copy(0, index, along / along.max())
