"""Inner product manipulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View


@ATTACKS.register("ipm")
@dataclass(frozen=True)
class IPM(Attack):
    """-scale m: minus a multiple of the mean of the honest rows, the same from all Byzantine workers.

    A small scale stays close to honest rows (0.1 in the released code of arXiv:2603.15144); a large one
    reverses the plain mean as soon as scale b > h (`scale = 10`). Source: Xie, Koyejo, Gupta, UAI 2019.

    Args:
        scale: Multiple of the honest mean that is sent reversed.

    Examples:
        >>> import torch
        >>> from byzopt import IPM
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
        >>> IPM(scale=10.0)(rows, byzantine=1)[2]
        tensor([-20., -30.])
    """

    scale: float = 0.1
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.alike(-self.scale * view.honest.mean(dim=-2))
