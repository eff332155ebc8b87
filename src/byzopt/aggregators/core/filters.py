"""Rules with memory (filters), and how a rule without memory becomes one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core import foreseeing
from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.certificate import Certificate
from byzopt.aggregators.core.expulsion import Expulsion
from byzopt.aggregators.core.foreseeing import Foreseen
from byzopt.errors import ByzoptError, require

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

    @property
    def needs_proxy(self) -> bool:
        """Whether it judges by a loss that the server owns, which `begin` hands it."""
        return False

    @abstractmethod
    def init(self, x0: Tensor, n: int) -> State:
        """State before round 1 for n workers."""

    def begin(self, x0: Tensor, n: int, proxy: Callable[[Tensor], Tensor] | None) -> State:
        """State before round 1 for n workers and a server that owns the loss `proxy`, or none. Default: that
        of `init`, which knows of no loss. Errors: `InvalidInput` without a loss that it needs."""
        return self.init(x0, n)

    @abstractmethod
    def step(self, state: State, rows: Tensor, at: RoundContext) -> tuple[Tensor, State]:
        """The aggregate of this round's rows and the next state."""

    @abstractmethod
    def preview(self, state: State, rows: Tensor, at: RoundContext) -> Tensor:
        """What `step` would answer, without a change of state: attacks may search against it."""

    def previews(self, state: State, rows: Tensor, at: RoundContext) -> Tensor:
        """The answers `[K, d]` of `preview` to K sets of rows `[K, n, d]`. Default: asked one by one."""
        return torch.stack([self.preview(state, each, at) for each in rows])

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

    @property
    def expels(self) -> bool:
        """Whether it may expel workers: whether it says whom (`expelled`)."""
        return type(self).expelled is not Filter.expelled

    def gone(self, states: State, count: int, n: int) -> Tensor:
        """Who of n workers is expelled in each of `count` states side by side, `[count, n]`: of a `batched`
        filter. Default: those whom `expelled` tells of."""
        return foreseeing.masks(self.expelled, states, count, n)

    def foresee(self, state: State, rows: Tensor, at: RoundContext, rounds: int = 1) -> Foreseen:
        """What `step` would answer to each of K sets of rows `[K, n, d]`, and who would be expelled after so
        many `rounds` of it, without a change of state. For what expels nobody, too."""

        def step(states: State, some: Tensor, ahead: int) -> tuple[Tensor, State]:
            x = at.x.expand(len(some), -1) if some.ndim == 3 else at.x
            return self.step(states, some, at._replace(t=at.t + ahead, x=x))

        if self.batched:
            try:
                return foreseeing.together(step, self.gone, state, rows, rounds)
            except ByzoptError:
                pass  # one after another tells which sets are refused
        return foreseeing.in_turn(step, self.expelled, state, rows, rounds)

    def vectors(self, state: State, at: RoundContext) -> Tensor | None:
        """All that it remembers in the coordinates of rows and that `step` depends on, `[m, d]`: for a filter
        that does the same in any orthonormal basis, but for the rule behind it. None: it does not, or does
        not say."""
        return None

    def with_vectors(
        self, state: State, at: RoundContext, vectors: Tensor
    ) -> tuple[Filter, State, RoundContext]:
        """The same filter, its state and the context with `vectors` `[m, k]` in their places: for rows of k
        coordinates, in which all inner products are what they were."""
        raise NotImplementedError


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

    def previews(self, state: State, rows: Tensor, at: RoundContext) -> Tensor:
        return self.now(state, at).batch(rows)


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
