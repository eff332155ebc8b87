"""A hybrid of two attacks: large lies in a few coordinates that matter, small ones in all others."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.attacks.base import ATTACKS, Knowledge, Remembering, View
from byzopt.attacks.moments import quantile_z, row_deviation
from byzopt.cohort import Cohort
from byzopt.errors import require


class SparseState(NamedTuple):
    """Which coordinates get the large lie, `[d]` of bool; none before round 1."""

    mask: Tensor


@ATTACKS.register("sparse")
@dataclass(frozen=True)
class Sparse(Remembering):
    """m - a s with a = `scale` in a `share` of the coordinates and a = `z` in all others, the same from all.

    m mean and s coordinate-wise standard deviation (ddof 1) of the honest rows. The coordinates are chosen in
    round 1 and kept: those with the largest |x_j m_j|, the saliency by which networks are pruned before they
    are trained; with the largest |m_j| where x is 0. `z` is a number, `"quantile"`, as for `alie`, or
    `"nearest"`: each round the largest that leaves the lie no further from m than the nearest honest row, 0
    where the large lies alone are further.

    Source: Özfatura, Özfatura, Küpçü, Gündüz, arXiv:2404.06230 (hybrid sparse Byzantine attack), with `scale`
    1.5, a `share` of 0.005 and s as CRYPTO-KU/FL-Byzantine-Library has them; "nearest" is its
    `sparse_optimized`, solved exactly. Where we differ: there a pruning method chooses the coordinates layer
    by layer, over many steps on data, of which a message says nothing; the default `z` is no quantile, so
    that any number of attackers will do; deviations that stand out are not cut, which is an option there.

    Args:
        share: Share of the coordinates that get the large lie, in (0, 1]; at least one.
        scale: How many standard deviations these move.
        z: How many the others move, "quantile" or "nearest".

    Examples:
        >>> import torch
        >>> from byzopt import Sparse
        >>> rows = torch.tensor([[1.0, 8.0], [3.0, 4.0], [0.0, 0.0]])
        >>> Sparse(share=0.5, scale=2.0, z=0.0)(rows, byzantine=1)[2]  # mean (2, 6), deviation (1.4, 2.8)
        tensor([2.0000, 0.3431])
    """

    share: float = 0.005
    scale: float = 1.5
    z: float | Literal["quantile", "nearest"] = 0.25
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, "Parameter `share` of sparse", "lie in (0, 1]", self.share)
        known = not isinstance(self.z, str) or self.z in ("quantile", "nearest")
        require(known, "Parameter `z` of sparse", "be a number, 'quantile' or 'nearest'", repr(self.z))

    def start(self, cohort: Cohort, x: Tensor) -> SparseState:
        return SparseState(torch.zeros_like(x, dtype=torch.bool))

    def step(self, state: SparseState, view: View, generator: torch.Generator) -> tuple[Tensor, SparseState]:
        honest = view.honest
        mean = honest.mean(dim=0)
        mask = self._mask(view.x.to(mean), mean) if view.t == 1 else state.mask
        s = row_deviation(honest)
        large, small = torch.where(mask, self.scale * s, 0), torch.where(mask, 0, s)
        moved = large + self._small(view, mean, large, small) * small
        return view.alike(mean - moved), SparseState(mask)

    def _small(self, view: View, mean: Tensor, large: Tensor, small: Tensor) -> float | Tensor:
        """z. For "nearest" ‖large‖² + z² ‖small‖² = min_i ‖v_i - m‖², as the two share no coordinate."""
        if self.z == "quantile":
            return quantile_z(view.cohort.n, view.b)
        if not isinstance(self.z, str):
            return self.z
        near, far, length = linalg.norm(view.honest - mean).min(), linalg.norm(large), linalg.norm(small)
        unit = torch.where(length > 0, length, 1)
        return ((near - far).clamp_min(0) / unit * ((near + far) / unit)).sqrt()

    def _mask(self, x: Tensor, mean: Tensor) -> Tensor:
        saliency = (x * mean).abs()
        saliency = torch.where(saliency.any(), saliency, mean.abs())
        few = min(len(mean), max(1, ceil(self.share * len(mean) - 1e-9)))
        return torch.zeros_like(mean, dtype=torch.bool).index_fill(0, saliency.topk(few).indices, True)
