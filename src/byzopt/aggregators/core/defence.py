"""The server's rule in the state of a round, as attackers see it that may know it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from byzopt.aggregators.core.filters import (
    Filter,
    GuardLimits,
    RoundContext,
    State,
    StatelessFilter,
)
from byzopt.aggregators.core.foreseeing import Foreseen
from byzopt.errors import require


@dataclass(frozen=True)
class Defence:
    """The server's rule in the state of a round, for attackers that may know it: `defence(rows)` `[d]`."""

    filter: Filter
    state: State
    at: RoundContext

    def __call__(self, rows: Tensor) -> Tensor:
        return self.filter.preview(self.state, self._beside(rows), self.at)

    def batch(self, rows: Tensor, vectors: Tensor | None = None) -> Tensor:
        """The answers `[K, d]` to K sets of rows `[K, n, d]`, each as this round would answer it.

        With `vectors` `[m, k]`, which are its own in other coordinates, rows have k of these. A rule without
        memory may be asked in any. Errors: `InvalidInput` for a filter that may remember rows, which fewer
        coordinates would not fit.
        """
        if vectors is not None:
            filter, state, at = self.filter.with_vectors(self.state, self.at, vectors.to(rows))
            return filter.previews(state, rows, at)
        d, what = rows.shape[-1], "Rows for a defence with memory"
        whole = d == self.at.x.shape[-1] or isinstance(self.filter, StatelessFilter)
        require(whole, what, f"have its {self.at.x.shape[-1]} coordinates", d)
        return self.filter.previews(self.state, self._beside(rows), self.at)

    def draws(self, count: int = 3) -> list[Defence]:
        """The defence as somebody knows it who does not know its lots: with `count` draws of other rounds, or
        as it is where it draws none."""
        others = [self.at._replace(t=self.at.t + (k << 20)) for k in range(1, count + 1)]
        here, there = (self.filter.rule_of(self.state, at) for at in (self.at, others[0]))
        return [replace(self, at=other) for other in others] if here != there else [self]

    @property
    def expels(self) -> bool:
        """Whether the rule may expel workers."""
        return self.filter.expels

    @property
    def hides(self) -> bool:
        """Whether it may remember what it does not say in `vectors`: then only whole rows fit."""
        return not isinstance(self.filter, StatelessFilter) and self.vectors is None

    @property
    def vectors(self) -> Tensor | None:
        """What the rule remembers in the coordinates of rows, `[m, d]`; None: it does not say."""
        return self.filter.vectors(self.state, self.at)

    def foresee(self, rows: Tensor, vectors: Tensor | None = None, rounds: int = 1) -> Foreseen:
        """The answers to K sets of rows `[K, n, d]`, and who would be expelled after so many rounds of each.

        With `vectors` `[m, k]`, which are its own in other coordinates, rows have k of these.
        """
        rows = self._beside(rows)
        if vectors is None:
            return self.filter.foresee(self.state, rows, self.at, rounds)
        filter, state, at = self.filter.with_vectors(self.state, self.at, vectors.to(rows))
        return filter.foresee(state, rows, at, rounds)

    def limits(self) -> GuardLimits | None:
        """How far a worker may go this round without being expelled; None where there is no such limit."""
        return self.filter.limits(self.state, self.at)

    def _beside(self, rows: Tensor) -> Tensor:
        """The rows on the device of what the rule remembers, where it may remember something."""
        return rows if isinstance(self.filter, StatelessFilter) else rows.to(self.at.x.device)
