"""A random row with as many positive and negative values as the honest mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View
from byzopt.attacks.moments import direction
from byzopt.errors import require


@ATTACKS.register("sign_shares")
@dataclass(frozen=True)
class SignShares(Attack):
    """`scale` M u: the signs of the honest mean in a random order, with random sizes; u is of length 1.

    Against `signguard`, which looks at lengths and at the shares of positive, zero and negative values: M is
    the median length of the honest rows. Where they agree on most signs their mean has more of one sign than
    each of them, and the row may be seen. The sizes are uniform in [0, 1) before u
    gets its length. All Byzantine workers send the same row, drawn anew in each round.

    Source: `SignGuardAdversary` of Blades (lishenghui/blades). Where we differ: its rows have the length of
    d uniform numbers whatever honest ones have.

    Args:
        scale: Length of the row, in median lengths of the honest rows.

    Examples:
        >>> import torch
        >>> from byzopt import SignShares
        >>> rows = torch.tensor([[1.0, 2.0, -2.0], [1.0, 2.0, -2.0], [0.0, 0.0, 0.0]])
        >>> forged = SignShares()(rows, byzantine=1)[2]
        >>> int((forged > 0).sum()), round(float(forged.norm()), 4)
        (2, 3.0)
    """

    scale: float = 1.0
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})

    def __post_init__(self) -> None:
        require(self.scale > 0, "Parameter `scale` of sign_shares", "be positive", self.scale)

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        honest = view.honest
        mean = honest.mean(dim=0)
        order = torch.randperm(len(mean), generator=generator, device=mean.device)
        sizes = torch.rand(len(mean), generator=generator, dtype=mean.dtype, device=mean.device)
        length = self.scale * linalg.norm(honest).median()
        return view.alike(length.to(mean.dtype) * direction(mean.sign()[order] * sizes))
