"""Away from the origin, along the iterate itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View


@ATTACKS.register("outward")
@dataclass(frozen=True)
class Outward(Attack):
    """-scale x: a server that believes it steps away from the origin, the faster the farther it is.

    It looks at no row, so that it can be sent before anybody else has answered.

    Args:
        scale: Multiple of the point that is sent reversed.

    Examples:
        >>> import torch
        >>> from byzopt import Outward, View, Cohort
        >>> x, rows, cohort = torch.tensor([1.0, 2.0]), torch.zeros(3, 2), Cohort.of(3, byzantine=1)
        >>> view = View(1, x, rows, cohort, f=1, knows=frozenset(), defence=None)
        >>> Outward(scale=10.0).forge(view, torch.Generator())
        tensor([[-10., -20.]])
    """

    scale: float = 10.0
    knows: ClassVar[frozenset[Knowledge]] = frozenset()
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.alike(-self.scale * view.x).to(view.like.dtype)
