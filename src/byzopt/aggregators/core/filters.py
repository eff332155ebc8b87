"""Rules with memory (filters), and how a rule without memory becomes one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.certificate import Certificate
from byzopt.aggregators.core.expulsion import Expulsion
from byzopt.errors import require

State = Any  # a typed tuple of tensors and numbers, fixed in structure for the whole run


class RoundContext(NamedTuple):
    """The context of a round: its number `t` from 1, the point `x` `[d]` at which workers were asked, and who
    took part.

    Args:
        t: The round, from 1.
        x: Where workers were asked, `[d]`.
        present: Who took part, `[n]` of bool on the CPU; None: everybody.
        seed: The run's, for common coins.

    Examples:
        >>> import torch
        >>> from byzopt.aggregators import RoundContext
        >>> RoundContext(3, torch.zeros(2)).t
        3
    """

    t: int
    x: Tensor
    present: Tensor | None = None
    seed: int = 0


class GuardLimits(NamedTuple):
    """The thresholds of a guard: V, τ_B of the sums, and the round k of T since these began."""

    noise: float
    sums: float
    k: int
    rounds: int


class Filter(ABC):
    """A rule with memory: rows `[n, d]` to the aggregate `[d]`, round after round.

    Examples:
        >>> import torch
        >>> from byzopt import CenteredClipping
        >>> from byzopt.aggregators import RoundContext
        >>> memory = CenteredClipping(f=1).as_filter()
        >>> state = memory.init(torch.zeros(2), n=5)
        >>> answer, state = memory.step(state, torch.ones(5, 2), RoundContext(1, torch.zeros(2)))
        >>> answer
        tensor([1., 1.])
    """

    @property
    def batched(self) -> bool:
        """Whether it is written over leading dimensions, so that one call serves many runs."""
        return False

    @property
    def assumes_one_distribution(self) -> bool:
        """Whether it expels workers for good on the premise that all honest ones sample one distribution. It
        must not run where they do not."""
        return False

    @abstractmethod
    def init(self, x0: Tensor, n: int) -> State:
        """State before round 1 for n workers."""

    @abstractmethod
    def step(self, state: State, rows: Tensor, at: RoundContext) -> tuple[Tensor, State]:
        """The aggregate of this round's rows and the next state."""

    @abstractmethod
    def preview(self, state: State, rows: Tensor, at: RoundContext) -> Tensor:
        """What `step` would answer, without a change of state: attacks may search against it."""

    def limits(self, state: State, at: RoundContext) -> GuardLimits | None:
        """How far a worker may go this round without being expelled, for attackers that know the defence.
        None: there is no such limit."""
        return None

    def rule_of(self, state: State, at: RoundContext) -> BaseAggregator | None:
        """The rule without memory that combines the rows of a round, its lots drawn; None: it is not known.
        Another `t` may stand for other lots only where it is."""
        return None

    def certifiable(self, n: int, f: int) -> bool:
        """Whether `certified_step` is worth its cost: single answers may be certified for f faulty rows of n,
        and nothing is proved in advance. Default: no."""
        return False

    def certified_step(
        self, state: State, rows: Tensor, at: RoundContext, f: int
    ) -> tuple[Tensor, State, list[Certificate]]:
        """`step`, and the certificate of its answer, f of the rows being faulty; where the filter is
        `batched`, those of R sets of rows. Default: no certificate."""
        return *self.step(state, rows, at), []

    def report(self, state: State) -> dict[str, float]:
        """Figures of the state, for records. Default: none."""
        return {}

    def expelled(self, state: State) -> tuple[Expulsion, ...]:
        """Who was expelled for good, when and why. Default: nobody."""
        return ()

    def expelled_by(self, state: State, rows: Tensor, at: RoundContext) -> frozenset[int] | None:
        """Who would be expelled after `step`, without a change of state; None for what expels nobody."""
        if type(self).expelled is Filter.expelled:
            return None
        return frozenset(one.worker for one in self.expelled(self.step(state, rows, at)[1]))


def check_unseen_data(filter: Filter) -> None:
    """Raise `InvalidInput` for a filter that expels workers on the premise of one distribution, where their
    data cannot be compared."""
    require(
        not filter.assumes_one_distribution,
        "A filter that expels workers for good",
        "be told that their data cannot be looked at here, and may differ",
        "one that takes them for alike",
        "Build it with differing=True if they all sample one distribution; else take another method.",
    )


@dataclass(frozen=True)
class Defence:
    """The server's rule in the state of a round, for attackers that may know it: `defence(rows)` `[d]`."""

    filter: Filter
    state: State
    at: RoundContext

    def __call__(self, rows: Tensor) -> Tensor:
        return self.filter.preview(self.state, self._beside(rows), self.at)

    def batch(self, rows: Tensor) -> Tensor:
        """The answers `[K, d]` to K sets of rows `[K, n, d]`, each as this round would answer it.

        A rule without memory may be asked in fewer coordinates, too. Errors: `InvalidInput` for a filter that
        may remember rows, which those would not fit.
        """
        d, what = rows.shape[-1], "Rows for a defence with memory"
        whole = d == self.at.x.shape[-1] or isinstance(self.filter, StatelessFilter)
        require(whole, what, f"have its {self.at.x.shape[-1]} coordinates", d)
        rows = self._beside(rows)
        if isinstance(self.filter, RoundRule):
            return self.filter.now(self.state, self.at).batch(rows)
        return torch.stack([self.filter.preview(self.state, each, self.at) for each in rows])

    def draws(self, count: int = 3) -> list[Defence]:
        """The defence as somebody knows it who does not know its lots: with `count` draws of other rounds, or
        as it is where it draws none."""
        others = [self.at._replace(t=self.at.t + (k << 20)) for k in range(1, count + 1)]
        here, there = (self.filter.rule_of(self.state, at) for at in (self.at, others[0]))
        return [replace(self, at=other) for other in others] if here != there else [self]

    def expelled_by(self, rows: Tensor) -> frozenset[int] | None:
        """Whom the rule would have expelled by the end of this round with these rows `[n, d]`; None for rules
        that expel nobody."""
        return self.filter.expelled_by(self.state, self._beside(rows), self.at)

    def limits(self) -> GuardLimits | None:
        """How far a worker may go this round without being expelled; None where there is no such limit."""
        return self.filter.limits(self.state, self.at)

    def _beside(self, rows: Tensor) -> Tensor:
        """The rows on the device of what the rule remembers, where it may remember something."""
        return rows if isinstance(self.filter, StatelessFilter) else rows.to(self.at.x.device)


class RoundRule(Filter):
    """A filter that is a rule without memory in each round, and remembers at most the answers.

    It works wherever its rule does, also where no process sees whole rows.

    Examples:
        >>> from byzopt import CenteredClipping
        >>> from byzopt.aggregators import RoundRule
        >>> isinstance(CenteredClipping(f=1).as_filter(), RoundRule)
        True
    """

    @abstractmethod
    def now(self, state: State, at: RoundContext) -> BaseAggregator:
        """The rule of this round."""

    @abstractmethod
    def after(self, state: State, out: Tensor) -> State:
        """The state after the rule has answered `out` `[d]`."""

    def rule_of(self, state: State, at: RoundContext) -> BaseAggregator | None:
        return self.now(state, at)

    def step(self, state: State, rows: Tensor, at: RoundContext) -> tuple[Tensor, State]:
        out = self.preview(state, rows, at)
        return out, self.after(state, out)

    def certified_step(
        self, state: State, rows: Tensor, at: RoundContext, f: int
    ) -> tuple[Tensor, State, list[Certificate]]:
        out, certificates = self.now(state, at).certified(rows, f)
        return out, self.after(state, out), certificates

    def preview(self, state: State, rows: Tensor, at: RoundContext) -> Tensor:
        rule = self.now(state, at)
        out: Tensor = rule(rows) if rows.ndim == 2 else rule.batch(rows)
        return out


@dataclass(frozen=True)
class StatelessFilter(RoundRule):
    """A rule without memory, as a filter.

    Args:
        rule: What answers in every round.

    Examples:
        >>> from byzopt import Median
        >>> from byzopt.aggregators import StatelessFilter
        >>> isinstance(Median(f=1).as_filter(), StatelessFilter)
        True
    """

    rule: BaseAggregator
    batched = True

    def certifiable(self, n: int, f: int) -> bool:
        return self.rule.certifiable(n, f) and self.rule.coefficients(n, f).squared is None

    def init(self, x0: Tensor, n: int) -> tuple[()]:
        self.rule.check(n)
        return ()

    def now(self, state: tuple[()], at: RoundContext) -> BaseAggregator:
        return self.rule.at(at.t)

    def after(self, state: tuple[()], out: Tensor) -> tuple[()]:
        return ()
