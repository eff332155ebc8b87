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
    """0 in every entry: a free rider, who shortens the mean.

    Examples:
        >>> import torch
        >>> from byzopt import Zero
        >>> Zero()(torch.ones(3, 2), byzantine=1).mean(0)
        tensor([0.6667, 0.6667])
    """

    knows: ClassVar[frozenset[Knowledge]] = frozenset()
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.like.zero_()


@ATTACKS.register("shift")
@dataclass(frozen=True)
class Shift(Attack):
    """m + by (1, .., 1), m the mean of the honest rows: a constant bias, the same from all.

    Args:
        by: What is added to every entry of the honest mean, in the units of the rows.

    Examples:
        >>> import torch
        >>> from byzopt import Shift
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
        >>> Shift(by=0.5)(rows, byzantine=1)[2]
        tensor([2.5000, 3.5000])
    """

    by: float = 1.0
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.alike(view.honest.mean(dim=-2) + self.by)


@ATTACKS.register("nan")
@dataclass(frozen=True)
class NotANumber(Attack):
    """NaN in every entry.

    Examples:
        >>> import torch
        >>> from byzopt import Median, NotANumber
        >>> rows = NotANumber()(torch.ones(3, 2), byzantine=1)
        >>> Median(f=1)(rows)  # the row is dropped
        tensor([1., 1.])
    """

    knows: ClassVar[frozenset[Knowledge]] = frozenset()
    finite = False
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.like.fill_(nan)


@ATTACKS.register("inf")
@dataclass(frozen=True)
class Infinite(Attack):
    """Infinity in every entry; with `sign` -1 minus infinity.

    Args:
        sign: +1 or -1.

    Examples:
        >>> import torch
        >>> from byzopt import Infinite, Mean, TooManyFaults
        >>> rows = Infinite()(torch.ones(3, 2), byzantine=1)
        >>> try:
        ...     Mean()(rows)
        ... except TooManyFaults as error:
        ...     print(error.rows)
        (2,)
    """

    sign: Literal[1, -1] = 1
    knows: ClassVar[frozenset[Knowledge]] = frozenset()
    finite = False
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.like.fill_(self.sign * inf)


@ATTACKS.register("huge")
@dataclass(frozen=True)
class Huge(Attack):
    """`value` in every entry, 1e30 by default: its square is Inf in float32, it itself in float16.

    Args:
        value: Of every entry.

    Examples:
        >>> import torch
        >>> from byzopt import Huge, Median
        >>> rows = Huge()(torch.ones(3, 2), byzantine=1)
        >>> Median(f=1)(rows)
        tensor([1., 1.])
    """

    value: float = 1e30
    knows: ClassVar[frozenset[Knowledge]] = frozenset()
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.like.fill_(self.value)
