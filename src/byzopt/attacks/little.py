"""A little is enough, and its relative with a fixed shift: small biases that hide in the honest spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View
from byzopt.attacks.moments import quantile_z, row_deviation
from byzopt.errors import require


@ATTACKS.register("alie")
@dataclass(frozen=True)
class ALIE(Attack):
    """m + sign z s: m mean and s coordinate-wise standard deviation of the honest rows, the same from all.

    `z` is a number or `"quantile"`, Φ⁻¹((n - b - q)/(n - b)) with q = ⌊n/2 + 1⌋ - b for b actual attackers.
    `sign` +1 as arXiv:2603.12512 writes it, -1 as its code, arXiv:2603.15144 and the original have it.
    `ddof` 1 divides the variance by h - 1, 0 by h. One honest worker has s = 0.

    Source: Baruch, Baruch, Goldberg, NeurIPS 2019 (arXiv:1902.06156).

    Args:
        z: How many standard deviations from the mean, or "quantile".
        sign: On which side of the mean, +1 or -1.
        ddof: 1 divides the variance by h - 1, 0 by h.

    Examples:
        >>> import torch
        >>> from byzopt import ALIE
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [2.0, 0.0], [0.0, 0.0]])
        >>> ALIE(z=1.0)(rows, byzantine=1)[3]  # mean (2, 2), deviation (1, 2)
        tensor([3., 4.])
    """

    z: float | Literal["quantile"] = 1.0
    sign: Literal[1, -1] = 1
    ddof: Literal[0, 1] = 1
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})
    batched = True

    def __post_init__(self) -> None:
        require(
            not isinstance(self.z, str) or self.z == "quantile",
            "Parameter `z` of alie",
            "be a number or 'quantile'",
            repr(self.z),
        )

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        honest = view.honest
        z = quantile_z(view.cohort.n, view.b) if isinstance(self.z, str) else self.z
        return view.alike(honest.mean(dim=-2) + self.sign * z * row_deviation(honest, self.ddof))
