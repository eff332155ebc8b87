"""The majority vote of signs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt import kernels
from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.kinds import CoordinateRule
from byzopt.aggregators.numerics.measuring import ExtremeRows
from byzopt.aggregators.numerics.mixed import Mixed


@RULES.register("sign_majority")
@dataclass(frozen=True)
class SignMajority(CoordinateRule):
    """sign(Σ sign(v_i)) in each coordinate: -1, 0 or 1. Zeros abstain, a tie gives 0.

    A direction, not a mean: its length says nothing about the rows, positive factors on rows change
    nothing, and no κ holds. In a coordinate where more than (n + f)/2 of all rows would honestly vote
    alike, f faulty rows cannot change the answer. `f` only says how many rows may be dropped. Needs 2 f <
    n; breakdown point 1/2. Neither scale- nor translation-equivariant. Cost: one pass over the rows.
    Source: Bernstein et al., arXiv:1810.05291, algorithm 1 (signSGD with majority vote).

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.

    Examples:
        >>> import torch
        >>> from byzopt import SignMajority
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> SignMajority(f=1)(rows)
        tensor([1., 1.])
    """

    translation_equivariant = False
    scale_equivariant = False
    convex = False
    validates = True

    f: int | None = None

    def columns(self, block: Tensor) -> Tensor:
        return self.votes(block).sum(dim=0).sign()

    def votes(self, block: Tensor) -> Tensor:
        """The vote of each value, with its weight: `[m, b]`."""
        return block.sign()

    def reduce(self, mixed: Mixed) -> Tensor:
        counted = type(self).votes is SignMajority.votes and type(self).columns is SignMajority.columns
        if counted and mixed.mixing is None and kernels.supports(mixed.rows):
            out = mixed.rows.new_empty(mixed.rows.shape[1])
            if not (kernels.vote_rows(mixed.rows, out) or mixed.admitted):
                raise ExtremeRows
        elif mixed.admitted:
            out = super().reduce(mixed)
        else:  # nothing below shows what is not finite
            raise ExtremeRows
        return out if mixed.unit == 1 else out / mixed.unit  # votes have no unit; the caller multiplies by it

    def influence(self, mixed: Mixed) -> Tensor:
        """Every column with a majority is shared evenly by those who voted with it."""
        total = torch.zeros(mixed.m, dtype=torch.float64, device="cpu")
        for _, block in mixed.blocks():
            votes = self.votes(block).double()
            won = votes.abs().where(votes.sign() == votes.sum(dim=0).sign(), 0)
            total += (won / won.sum(dim=0).where(won.any(dim=0), 1)).sum(dim=1).cpu()
        return mixed.through(mixed.total(total) / mixed.d)

    def weighted_form(self, row_weights: Tensor, heaviest: float) -> Aggregator:
        return _WeightedVotes(row_weights=row_weights)


@dataclass(frozen=True, eq=False, kw_only=True)
class _WeightedVotes(SignMajority):
    row_weights: Tensor

    def votes(self, block: Tensor) -> Tensor:
        return self.row_weights.to(block.device).unsqueeze(1) * block.sign()
