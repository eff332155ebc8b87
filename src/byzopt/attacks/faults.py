"""System faults, without malice: crash, straggle, stale, replay; and equivocation as one server sees it."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import ClassVar

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, Remembering, View
from byzopt.attacks.memory import MOST, Past, delayed, empty_past
from byzopt.attacks.moments import row_deviation
from byzopt.cohort import Cohort
from byzopt.errors import require

OWN: frozenset[Knowledge] = frozenset({"own"})


@ATTACKS.register("crash")
@dataclass(frozen=True)
class Crash(Attack):
    """Honest for `after` rounds, then silent. A missing row is a row of NaN, which rules count as a fault.

    Args:
        after: Number of honest rounds.

    Examples:
        >>> import torch
        >>> from byzopt import Crash
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> Crash(after=0)(rows, byzantine=1)[1]
        tensor([nan, nan])
    """

    after: int = 0
    knows: ClassVar[frozenset[Knowledge]] = OWN
    finite = False
    batched = True

    def __post_init__(self) -> None:
        require(self.after >= 0, "Parameter `after` of crash", "be at least 0", self.after)

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.own if view.t <= self.after else view.like.fill_(nan)


@ATTACKS.register("straggle")
@dataclass(frozen=True)
class Straggle(Remembering):
    """A new message every `period` rounds only, in rounds 1, 1 + period, ...; the last one in between.

    Args:
        period: Rounds between two new messages.

    Examples:
        >>> import torch
        >>> from byzopt import Straggle
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> Straggle(period=5)(rows, byzantine=1)[1]  # round 1: a new message
        tensor([3., 4.])
    """

    period: int = 5
    knows: ClassVar[frozenset[Knowledge]] = OWN
    batched = True

    def __post_init__(self) -> None:
        require(self.period >= 1, "Parameter `period` of straggle", "be at least 1", self.period)

    def start(self, cohort: Cohort, x: Tensor) -> Past:
        return empty_past(cohort, x, 1)

    def step(self, state: Past, view: View, generator: torch.Generator) -> tuple[Tensor, Past]:
        said = view.own if (view.t - 1) % self.period == 0 else state.rows[0]
        return said, Past((said,))


@ATTACKS.register("stale")
@dataclass(frozen=True)
class Stale(Remembering):
    """The own message of `delay` rounds ago in every round; honest until there is one. Memory: delay b d.

    Args:
        delay: Age of the message, in rounds.

    Examples:
        >>> import torch
        >>> from byzopt import Stale
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> Stale(delay=5)(rows, byzantine=1)[1]  # round 1: there is no older message
        tensor([3., 4.])
    """

    delay: int = 5
    knows: ClassVar[frozenset[Knowledge]] = OWN
    batched = True

    def __post_init__(self) -> None:
        fits = 1 <= self.delay <= MOST
        require(fits, "Parameter `delay` of stale", f"lie in 1 .. {MOST:,} rounds", self.delay)

    def start(self, cohort: Cohort, x: Tensor) -> Past:
        return empty_past(cohort, x, self.delay)

    def step(self, state: Past, view: View, generator: torch.Generator) -> tuple[Tensor, Past]:
        return delayed(state, view.own, view.t)


@ATTACKS.register("replay")
@dataclass(frozen=True)
class Replay(Remembering):
    """Honest for `after` rounds; from then on the own message of round `after` again and again.

    Args:
        after: Round whose message is sent from then on.

    Examples:
        >>> import torch
        >>> from byzopt import Replay
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> Replay(after=1)(rows, byzantine=1)[1]
        tensor([3., 4.])
    """

    after: int = 1
    knows: ClassVar[frozenset[Knowledge]] = OWN
    batched = True

    def __post_init__(self) -> None:
        require(self.after >= 1, "Parameter `after` of replay", "be at least 1", self.after)

    def start(self, cohort: Cohort, x: Tensor) -> Past:
        return empty_past(cohort, x, 1)

    def step(self, state: Past, view: View, generator: torch.Generator) -> tuple[Tensor, Past]:
        said = view.own if view.t <= self.after else state.rows[0]
        return said, Past((said,))


@ATTACKS.register("equivocate")
@dataclass(frozen=True)
class Equivocate(Attack):
    """m + scale s from every other Byzantine worker, m - scale s from the rest: two stories at once.

    m and s are mean and standard deviation (ddof 1) of the honest rows. One server hears one row from each
    worker, so nobody can tell different receivers different things; what is left of equivocation is a
    coalition that contradicts itself. The first Byzantine worker has the plus sign.

    Args:
        scale: Number of standard deviations to each side of the mean.

    Examples:
        >>> import torch
        >>> from byzopt import Equivocate
        >>> rows = torch.tensor([[1.0], [2.0], [3.0], [0.0], [0.0]])
        >>> Equivocate()(rows, byzantine=2)[3:].tolist()  # mean 2, deviation 1
        [[3.0], [1.0]]
    """

    scale: float = 1.0
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        honest = view.honest
        sign = torch.ones(view.b, 1, dtype=honest.dtype, device=honest.device)
        sign[1::2] = -1
        return honest.mean(dim=-2, keepdim=True) + sign * self.scale * row_deviation(honest).unsqueeze(-2)
