"""The same value in every entry: zero, huge, infinite, no number; and a constant added to the mean."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import ClassVar, Literal

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View


@ATTACKS.register("zero")
@dataclass(frozen=True)
class Zero(Attack):
    """0 in every entry: a free rider, who shortens the mean."""

    knows: ClassVar[frozenset[Knowledge]] = frozenset()
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.like.zero_()


@ATTACKS.register("shift")
@dataclass(frozen=True)
class Shift(Attack):
    """m + by (1, .., 1), m the mean of the honest rows: a constant bias, the same from all."""

    by: float = 1.0
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.alike(view.honest.mean(dim=-2) + self.by)


@ATTACKS.register("nan")
@dataclass(frozen=True)
class NotANumber(Attack):
    """NaN in every entry."""

    knows: ClassVar[frozenset[Knowledge]] = frozenset()
    finite = False
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.like.fill_(nan)


@ATTACKS.register("inf")
@dataclass(frozen=True)
class Infinite(Attack):
    """Infinity in every entry; with `sign` -1 minus infinity."""

    sign: Literal[1, -1] = 1
    knows: ClassVar[frozenset[Knowledge]] = frozenset()
    finite = False
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.like.fill_(self.sign * inf)


@ATTACKS.register("huge")
@dataclass(frozen=True)
class Huge(Attack):
    """`value` in every entry, 1e30 by default: its square is Inf in float32, it itself in float16."""

    value: float = 1e30
    knows: ClassVar[frozenset[Knowledge]] = frozenset()
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.like.fill_(self.value)
