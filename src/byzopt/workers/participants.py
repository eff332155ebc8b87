"""Who takes part in a round: everybody, a sample, or whom a trace names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.registry import Registry
from byzopt.rng import coin, stream

Absent: TypeAlias = Literal["drop", "keep"]


class Participants(ABC):
    """Who takes part in round t, a mask `[n]` that is a pure function of (seed, t), the same for all who ask.

    Absentees compute, receive, send and forge nothing. `absent` says what the rule gets in their place:
    "drop" nothing, so that it combines the rows of those who took part, and of those tolerates `tolerated`
    faulty ones, by default as many as it is set to, and never half of them; "keep" each worker's last row,
    times `decay` for each round of absence, once it was heard. `clip` a: rows may differ from the last
    aggregate by a ‖x - x_old‖ at most, what is more being cut (`ClippedChanges`).

    A round in which the rows that came hold more faulty ones than are tolerated, or in which nobody takes
    part, moves nothing, and is counted (`idle_rounds`); so is one in which so few came that fewer are
    tolerated than are to be (`lowered_rounds`).
    """

    name: ClassVar[str]
    absent: Absent = "drop"
    decay: float = 1.0
    tolerated: int | None = None
    clip: float | None = None

    def check(self, n: int) -> None:
        """Raise `InvalidInput` where it cannot choose among n workers. Default: it can."""
        return

    @abstractmethod
    def mask(self, seed: int, t: int, n: int) -> Tensor | None:
        """Who of n workers takes part in round t >= 1, `[n]` of bool on the CPU; None: everybody."""


PARTICIPANTS: Registry[Participants] = Registry("participants", Participants)


@dataclass(frozen=True)
class Sample(Participants):
    """What samples have in common: what the rule gets for absentees."""

    absent: Absent = field(default="drop", kw_only=True)
    decay: float = field(default=1.0, kw_only=True)
    tolerated: int | None = field(default=None, kw_only=True)
    clip: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        require(0 <= self.decay <= 1, f"Parameter `decay` of {self.name}", "lie in [0, 1]", self.decay)
        least = self.tolerated is None or self.tolerated >= 0
        require(least, f"Parameter `tolerated` of {self.name}", "be at least 0", self.tolerated)
        good = self.clip is None or self.clip > 0
        require(good, f"Parameter `clip` of {self.name}", "be positive", self.clip)


def _chosen(seed: int, t: int, n: int, count: int) -> Tensor:
    """`count` of n workers, every set of so many with the same probability."""
    order = torch.randperm(n, generator=stream(seed, "participants", t), device="cpu")
    mask = torch.zeros(n, dtype=torch.bool, device="cpu")
    mask[order[:count]] = True
    return mask


def _check_count(participants: Participants, name: str, count: int, n: int | None = None) -> None:
    what = f"Parameter `{name}` of {participants.name}"
    require(count >= 1, what, "be at least 1", count)
    require(n is None or count <= n, what, f"be at most n = {n}", count)


@PARTICIPANTS.register("all")
@dataclass(frozen=True)
class All(Participants):
    """Everybody, in every round.

    Examples:
        >>> from byzopt.workers import All
        >>> All().mask(seed=0, t=1, n=4) is None
        True
    """

    def mask(self, seed: int, t: int, n: int) -> None:
        return None


@PARTICIPANTS.register("bernoulli")
@dataclass(frozen=True)
class Bernoulli(Sample):
    """Each worker with probability `p`, independently of the others and of other rounds.

    Args:
        p: Probability of taking part in a round, in (0, 1].
        absent: What the rule gets for absentees: "drop" nothing, "keep" their last rows.
        decay: Factor of a kept row for each round of absence, in [0, 1].
        tolerated: Faulty rows tolerated among those that came; None: as the rule is set.
        clip: Bound a on how far rows may be from the last aggregate, in units of the last step; None: none.

    Examples:
        >>> from byzopt.workers import Bernoulli
        >>> sum(int(Bernoulli(0.25).mask(seed=0, t=t, n=100).sum()) for t in range(1, 101)) // 1000
        2
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.p <= 1, "Parameter `p` of bernoulli", "lie in (0, 1]", self.p)

    def mask(self, seed: int, t: int, n: int) -> Tensor | None:
        if self.p == 1:
            return None
        generator = stream(seed, "participants", t)
        return torch.rand(n, dtype=torch.float64, generator=generator, device="cpu") < self.p


@PARTICIPANTS.register("exactly")
@dataclass(frozen=True)
class Exactly(Sample):
    """`count` C workers, every set of so many with the same probability, anew in each round.

    Args:
        count: Number C of workers that take part.
        absent: What the rule gets for absentees: "drop" nothing, "keep" their last rows.
        decay: Factor of a kept row for each round of absence, in [0, 1].
        tolerated: Faulty rows tolerated among those that came; None: as the rule is set.
        clip: Bound a on how far rows may be from the last aggregate, in units of the last step; None: none.

    Examples:
        >>> from byzopt.workers import Exactly
        >>> int(Exactly(3).mask(seed=0, t=1, n=10).sum())
        3
    """

    count: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count(self, "count", self.count)

    def check(self, n: int) -> None:
        _check_count(self, "count", self.count, n)

    def mask(self, seed: int, t: int, n: int) -> Tensor | None:
        return None if self.count == n else _chosen(seed, t, n, self.count)


@PARTICIPANTS.register("coin")
@dataclass(frozen=True)
class Coined(Sample):
    """`whole` Ĉ workers in round 1 and where the round's common coin falls, with probability `p`; else
    `count` C. It is the coin that channels and estimators see (Byz-VR-MARINA-PP, arXiv:2311.14127).

    Args:
        count: Number C of workers that take part in other rounds.
        whole: Number Ĉ of those in rounds of the coin; None: all.
        p: Probability of the coin, in (0, 1].
        absent: What the rule gets for absentees: "drop" nothing, "keep" their last rows.
        decay: Factor of a kept row for each round of absence, in [0, 1].
        tolerated: Faulty rows tolerated among those that came; None: as the rule is set.
        clip: Bound a on how far rows may be from the last aggregate, in units of the last step; None: none.

    Examples:
        >>> from byzopt.workers import Coined
        >>> [int(Coined(2, whole=5, p=1e-9).mask(seed=0, t=t, n=10).sum()) for t in (1, 2, 3)]
        [5, 2, 2]
    """

    count: int = 4
    whole: int | None = None
    p: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count(self, "count", self.count)
        _check_count(self, "whole", self.count if self.whole is None else self.whole)
        require(0 < self.p <= 1, "Parameter `p` of coin", "lie in (0, 1]", self.p)

    def check(self, n: int) -> None:
        _check_count(self, "count", self.count, n)
        _check_count(self, "whole", n if self.whole is None else self.whole, n)

    def mask(self, seed: int, t: int, n: int) -> Tensor | None:
        full = t == 1 or coin(seed, t, self.p)
        count = (n if self.whole is None else self.whole) if full else self.count
        return None if count == n else _chosen(seed, t, n, count)


@PARTICIPANTS.register("trace")
@dataclass(frozen=True)
class Trace(Sample):
    """In round t those whom `rounds[t - 1]` names, by number from 0; after its end from its start again.

    Args:
        rounds: Who takes part, round by round.
        absent: What the rule gets for absentees: "drop" nothing, "keep" their last rows.
        decay: Factor of a kept row for each round of absence, in [0, 1].
        tolerated: Faulty rows tolerated among those that came; None: as the rule is set.
        clip: Bound a on how far rows may be from the last aggregate, in units of the last step; None: none.

    Examples:
        >>> from byzopt.workers import Trace
        >>> Trace(rounds=((0, 1), (2,))).mask(seed=0, t=4, n=3).tolist()
        [False, False, True]
    """

    rounds: tuple[tuple[int, ...], ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rounds", tuple(tuple(who) for who in self.rounds))
        require(len(self.rounds) > 0, "Parameter `rounds` of trace", "name at least one round", "none")

    def check(self, n: int) -> None:
        named = {i for who in self.rounds for i in who}
        what = "The workers in `rounds` of trace"
        require(all(0 <= i < n for i in named), what, f"lie in 0..{n - 1}", sorted(named)[:8])

    def mask(self, seed: int, t: int, n: int) -> Tensor:
        mask = torch.zeros(n, dtype=torch.bool, device="cpu")
        mask[list(self.rounds[(t - 1) % len(self.rounds)])] = True
        return mask
