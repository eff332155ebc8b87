"""Against comparative gradient elimination (CGE): reversed, and short enough not to be eliminated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View
from byzopt.attacks.moments import direction
from byzopt.errors import require


@ATTACKS.register("anti_cge")
@dataclass(frozen=True)
class AntiCGE(Attack):
    """-margin ρ m/‖m‖ from all: ρ the f-th largest norm of the honest rows, m their mean, f the server's.

    CGE drops the f longest rows; f honest ones are longer than these, so all forged rows stay. With f = 0
    nothing is dropped and ρ is the largest norm; where f exceeds the honest workers, the smallest.
    Source: our own construction of the adaptive attack on Gupta, Liu, Vaidya's CGE filter (2021).

    Args:
        margin: Share of the f-th largest honest norm that the forged rows are long, in (0, 1).

    Examples:
        >>> import torch
        >>> from byzopt import CGE, AntiCGE
        >>> rows = torch.tensor([[2.0, 0.0], [4.0, 0.0], [3.0, 0.0], [3.0, 0.0]])
        >>> attacked = AntiCGE(margin=0.5)(rows, byzantine=1)
        >>> attacked[3].norm()
        tensor(2.)
        >>> CGE(f=1).explain(attacked).rejected  # an honest row is dropped
        (1,)
    """

    margin: float = 0.99
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})
    batched = True

    def __post_init__(self) -> None:
        require(0 <= self.margin <= 1, "Parameter `margin` of anti_cge", "lie in [0, 1]", self.margin)

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        honest = view.honest
        place = min(max(view.f, 1), honest.shape[-2])
        lengths = torch.linalg.vector_norm(honest, dim=-1).sort(dim=-1, descending=True).values
        return view.alike(-self.margin * lengths[..., place - 1, None] * direction(honest.mean(dim=-2)))
