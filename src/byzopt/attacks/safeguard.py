"""The three attacks of the SafeguardSGD paper (arXiv:2012.14368) that are its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, Remembering, View
from byzopt.attacks.memory import MOST, Past, delayed, empty_past
from byzopt.attacks.moments import row_deviation
from byzopt.cohort import Cohort
from byzopt.errors import require


@ATTACKS.register("variance")
@dataclass(frozen=True)
class Variance(Attack):
    """m - shift s: the honest mean moved by a small part of the standard deviation s (ddof 1).

    Too small for any rule without memory; the sums of many rounds give it away. The same as ALIE with a
    fixed z; shift 0.3 as in the paper's figures.

    Args:
        shift: Number of standard deviations.

    Examples:
        >>> import torch
        >>> from byzopt import Variance
        >>> rows = torch.tensor([[1.0], [3.0], [2.0], [0.0]])
        >>> Variance(shift=0.5)(rows, byzantine=1)[3]  # mean 2, deviation 1
        tensor([1.5000])
    """

    shift: float = 0.3
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        honest = view.honest
        return view.alike(honest.mean(dim=-2) - self.shift * row_deviation(honest))


@ATTACKS.register("delayed_gradient")
@dataclass(frozen=True)
class DelayedGradient(Remembering):
    """The own message of `delay` rounds ago (1000 in the paper); honest until there is one.

    Each message is honest for its time, so only the sums show it. Memory: delay b d.

    Args:
        delay: Age of the message, in rounds.

    Examples:
        >>> import torch
        >>> from byzopt import DelayedGradient
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> DelayedGradient(delay=10)(rows, byzantine=1)[1]  # round 1: there is no older message
        tensor([3., 4.])
    """

    delay: int = 1000
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own"})
    batched = True

    def __post_init__(self) -> None:
        fits = 1 <= self.delay <= MOST
        require(fits, "Parameter `delay` of delayed_gradient", f"lie in 1 .. {MOST:,} rounds", self.delay)

    def start(self, cohort: Cohort, x: Tensor) -> Past:
        return empty_past(cohort, x, self.delay)

    def step(self, state: Past, view: View, generator: torch.Generator) -> tuple[Tensor, Past]:
        return delayed(state, view.own, view.t)


@ATTACKS.register("under_threshold")
@dataclass(frozen=True)
class UnderThreshold(Attack):
    """-scale v_j: the worker's own message reversed and shortened until it just does not trigger the filter.

    The paper (arXiv:2012.14368) finds 0.4 and 0.5 for its thresholds; a factor means something only together
    with them.

    Args:
        scale: Length of the reversed message, as a share of the worker's own.

    Examples:
        >>> import torch
        >>> from byzopt import UnderThreshold
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
        >>> UnderThreshold(scale=0.5)(rows, byzantine=1)[1]
        tensor([-1., -2.])
    """

    scale: float = 0.5
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own"})
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return -self.scale * view.own
