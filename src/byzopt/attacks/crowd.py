"""Min-max and min-sum: as far from the honest mean as the crowd of honest rows makes plausible."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View
from byzopt.attacks.moments import direction, row_deviation


@dataclass(frozen=True)
class _Crowd(Attack):
    """m + γ p, from all Byzantine workers: γ >= 0 the largest that a bound on distances allows."""

    way: Literal["std", "unit", "sign"] = "std"
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})

    @abstractmethod
    def stretch(self, square: Tensor, inner: Tensor, sq_dists: Tensor, sq_norms: Tensor) -> Tensor:
        """γ from ‖p‖² `[]`, <p, o_i> `[h]`, ‖v_i - v_j‖² `[h, h]` and ‖o_i‖² `[h]`, where o_i = m - v_i."""

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        honest = view.honest
        mean = honest.mean(dim=0)
        offsets = mean - honest
        way = self._way(honest, mean)
        gram = linalg.gram(offsets)
        square = way.double() @ way.double()
        gamma = self.stretch(square, (offsets @ way).double(), linalg.sq_dists_of(gram), gram.diagonal())
        return view.alike(mean + torch.where(square > 0, gamma, 0) * way)

    def _way(self, honest: Tensor, mean: Tensor) -> Tensor:
        if self.way == "std":
            return -row_deviation(honest)
        return -direction(mean) if self.way == "unit" else -mean.sign()


@ATTACKS.register("min_max")
@dataclass(frozen=True)
class MinMax(_Crowd):
    """m + γ p, the largest γ >= 0 with max_i ‖m + γ p - v_i‖ <= max_ij ‖v_i - v_j‖ over honest rows v.

    `way` p: `"std"` -s, the coordinate-wise standard deviation (ddof 1); `"unit"` -m/‖m‖; `"sign"` -sign(m).
    Source: Shejwalkar, Houmansadr, NDSS 2021, which halves steps down to a tolerance; here γ is the exact
    root of the quadratic inequalities. Cost: one Gram product.

    Args:
        way: Direction p: "std", "unit" or "sign".

    Examples:
        >>> import torch
        >>> from byzopt import MinMax
        >>> rows = torch.tensor([[0.0], [2.0], [9.0]])
        >>> MinMax(way="sign")(rows, byzantine=1)[2]  # at most 2 from both, below the mean 1
        tensor([0.])
    """

    def stretch(self, square: Tensor, inner: Tensor, sq_dists: Tensor, sq_norms: Tensor) -> Tensor:
        slack = (sq_dists.max() - sq_norms).clamp_min(0)
        root = (inner.square() + square * slack).sqrt()
        # The same root in two forms, each free of cancellation on its side.
        ahead, behind = slack / (root + inner), (root - inner) / square
        return torch.where(inner > 0, ahead, behind).min()


@ATTACKS.register("min_sum")
@dataclass(frozen=True)
class MinSum(_Crowd):
    """m + γ p, the largest γ >= 0 with Σ_i ‖m + γ p - v_i‖² <= max_i Σ_j ‖v_i - v_j‖² over honest rows v.

    `way` p as in `min_max`. Since Σ (m - v_i) = 0, γ² = (max_i Σ_j ‖v_i - v_j‖² - Σ_i ‖m - v_i‖²)/(h ‖p‖²).
    Source: Shejwalkar, Houmansadr, NDSS 2021; γ is exact here, as for `min_max`.

    Args:
        way: Direction p: "std", "unit" or "sign".

    Examples:
        >>> import torch
        >>> from byzopt import MinSum
        >>> rows = torch.tensor([[0.0], [2.0], [9.0]])
        >>> MinSum(way="sign")(rows, byzantine=1)[2]  # squares: (1 + γ)² + (1 - γ)² <= 4
        tensor([0.])
    """

    def stretch(self, square: Tensor, inner: Tensor, sq_dists: Tensor, sq_norms: Tensor) -> Tensor:
        slack = (sq_dists.sum(dim=1).max() - sq_norms.sum()).clamp_min(0)
        return (slack / (len(sq_norms) * square)).sqrt()
