"""Noise instead of messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View
from byzopt.errors import require


@ATTACKS.register("gaussian")
@dataclass(frozen=True)
class Gaussian(Attack):
    """c + N(0, std² I), drawn anew for every Byzantine worker and round.

    `around="zero"`: c = 0. `around="mean"`: c is the mean of the honest rows.

    Args:
        std: Standard deviation of each entry, in the units of the rows.
        around: Centre: "zero", or the "mean" of the honest rows.

    Examples:
        >>> import torch
        >>> from byzopt import Gaussian
        >>> Gaussian(std=3.0)(torch.ones(5, 2), byzantine=2).shape
        torch.Size([5, 2])
    """

    std: float = 1.0
    around: Literal["zero", "mean"] = "zero"
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})

    def __post_init__(self) -> None:
        require(self.std >= 0, "Parameter `std` of gaussian", "be at least 0", self.std)

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        noise = view.like.normal_(generator=generator) * self.std
        return noise if self.around == "zero" else view.honest.mean(dim=0) + noise


@ATTACKS.register("random")
@dataclass(frozen=True)
class Uniform(Attack):
    """Uniform on [low, high) in every entry, drawn anew for every Byzantine worker and round.

    Args:
        low: Smallest value.
        high: Bound above all values.

    Examples:
        >>> import torch
        >>> from byzopt import Uniform
        >>> forged = Uniform(low=0.0, high=1.0)(torch.ones(3, 100), byzantine=1)[2]
        >>> bool((forged >= 0).all() and (forged < 1).all())
        True
    """

    low: float = -1.0
    high: float = 1.0
    knows: ClassVar[frozenset[Knowledge]] = frozenset()

    def __post_init__(self) -> None:
        require(self.low <= self.high, "Parameter `low` of random", "be at most `high`", self.low)

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return self.low + (self.high - self.low) * view.like.uniform_(generator=generator)
