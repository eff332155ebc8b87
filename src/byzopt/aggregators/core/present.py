"""Rules where not everybody takes part: they combine the rows that came, or everybody's last one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.filters import Filter, RoundContext, RoundRule
from byzopt.errors import InvalidInput, TooManyFaults, require


class PresentState(NamedTuple):
    """The rule's own state, and how many rounds moved nothing or tolerated fewer faulty rows than asked."""

    memory: Any
    idle: int
    lowered: int


@dataclass(frozen=True)
class PresentRows(Filter):
    """The rule `inner` on the rows of those who take part (`RoundContext.present`).

    Absence is no fault: of m rows it tolerates `tolerated` faulty ones, by default as many as the rule is set
    to, or the most with which it works on m rows where that is less. A round that the rule has no answer to
    (nobody came, or more rows are not finite than it tolerates) has the aggregate 0, and counts as idle.

    Errors: `InvalidInput` for a rule that remembers every worker's rows, which has no answer to a part.

    Args:
        inner: A rule as a filter, at most with its own answers as memory.
        tolerated: Faulty rows tolerated among those that came; None: as the rule is set.

    Examples:
        >>> import torch
        >>> from byzopt import Median
        >>> from byzopt.aggregators import PresentRows, RoundContext
        >>> filter = PresentRows(Median(f=1).as_filter())
        >>> rows, here = torch.tensor([[1.0], [2.0], [3.0], [90.0]]), torch.tensor([True, True, True, False])
        >>> filter.step(filter.init(rows[0], 4), rows, RoundContext(1, rows[0], here))[0]
        tensor([2.])
    """

    inner: Filter
    tolerated: int | None = None

    def __post_init__(self) -> None:
        remedy = "Use a rule without a memory of single workers, or let everybody take part."
        what = "The rule where not everybody takes part"
        require(isinstance(self.inner, RoundRule), what, "work on any rows", self.inner, remedy)

    @property
    def assumes_one_distribution(self) -> bool:
        return self.inner.assumes_one_distribution

    def init(self, x0: Tensor, n: int) -> PresentState:
        return PresentState(self.inner.init(x0, n), 0, 0)

    def step(self, state: PresentState, rows: Tensor, at: RoundContext) -> tuple[Tensor, PresentState]:
        out, lowered = self._answer(state, rows, at)
        if out is None:
            return torch.zeros_like(rows[0]), state._replace(idle=state.idle + 1)
        assert isinstance(self.inner, RoundRule)
        memory = self.inner.after(state.memory, out)
        return out, state._replace(memory=memory, lowered=state.lowered + lowered)

    def preview(self, state: PresentState, rows: Tensor, at: RoundContext) -> Tensor:
        out, _ = self._answer(state, rows, at)
        return torch.zeros_like(rows[0]) if out is None else out

    def rule_of(self, state: PresentState, at: RoundContext) -> BaseAggregator | None:
        return self.inner.rule_of(state.memory, at)

    def report(self, state: PresentState) -> dict[str, float]:
        """`idle_rounds`: rounds so far that moved nothing; `lowered_rounds`: those in which so few came that
        the rule tolerated fewer faulty rows than it is to."""
        counts = {"idle_rounds": float(state.idle), "lowered_rounds": float(state.lowered)}
        return self.inner.report(state.memory) | counts

    def _answer(self, state: PresentState, rows: Tensor, at: RoundContext) -> tuple[Tensor | None, bool]:
        """The rule's answer to the rows that came, None where it has none, and whether it tolerated fewer
        faulty ones than it is to."""
        assert isinstance(self.inner, RoundRule)
        present = torch.ones(len(rows), dtype=torch.bool, device="cpu") if at.present is None else at.present
        if not present.any():
            return None, False
        whole = self.inner.now(state.memory, at)
        rule = fitted(whole, present, self.tolerated)
        wanted = whole.tolerance(len(rows)) if self.tolerated is None else self.tolerated
        try:
            out: Tensor = rule(rows.index_select(0, present.nonzero().flatten().to(rows.device)))
        except TooManyFaults:
            return None, False
        return out, rule.tolerance(int(present.sum())) < wanted


def fitted(rule: BaseAggregator, present: Tensor, tolerated: int | None) -> BaseAggregator:
    """The rule for the rows where `present` `[n]` is true, with its tolerance or `tolerated`, or the most
    with which it works on so many. Errors: `InvalidInput` where it works on so few with none."""
    n, m = len(present), int(present.sum())
    wanted = rule.tolerance(n) if tolerated is None else tolerated
    for f in range(min(wanted, (m - 1) // 2), -1, -1):
        # `restricted` takes those that are not there off the tolerance, as if they were faulty.
        here = rule.tolerating(f + n - m).restricted(present)
        try:
            here.check(m)
        except InvalidInput:
            if f == 0:
                raise
            continue
        return here
    raise AssertionError("somebody is present")


class LastState(NamedTuple):
    """The rule's state, everybody's last row `[n, d]`, and who was heard so far, `[n]`."""

    memory: Any
    rows: Tensor
    heard: Tensor


@dataclass(frozen=True)
class LastRows(Filter):
    """`inner` on everybody's last row, that of an absentee times `decay` for each round of absence.

    Who was never heard is not there, or with `from_zero` has a row of zeros. A row that is not finite counts
    as its sender's fault in that round, and the row before it is what is remembered.

    Args:
        inner: What combines the rows; `PresentRows` where some may not have been heard yet.
        decay: Factor of a kept row for each round of absence, in [0, 1].
        from_zero: Whether those who were never heard have a row of zeros.

    Examples:
        >>> import torch
        >>> from byzopt import Mean
        >>> from byzopt.aggregators import LastRows, PresentRows, RoundContext
        >>> filter, x = LastRows(PresentRows(Mean().as_filter()), decay=0.5), torch.zeros(1)
        >>> _, state = filter.step(filter.init(x, 2), torch.tensor([[1.0], [2.0]]), RoundContext(1, x))
        >>> first_alone = RoundContext(2, x, torch.tensor([True, False]))
        >>> filter.step(state, torch.tensor([[3.0], [0.0]]), first_alone)[0]
        tensor([2.])
    """

    inner: Filter
    decay: float = 1.0
    from_zero: bool = False

    @property
    def assumes_one_distribution(self) -> bool:
        return self.inner.assumes_one_distribution

    def init(self, x0: Tensor, n: int) -> LastState:
        heard = torch.full((n,), self.from_zero, dtype=torch.bool, device="cpu")
        return LastState(self.inner.init(x0, n), x0.new_zeros(n, len(x0)), heard)

    def step(self, state: LastState, rows: Tensor, at: RoundContext) -> tuple[Tensor, LastState]:
        shown, kept, heard = self._known(state, rows, at)
        out, memory = self.inner.step(state.memory, shown, at._replace(present=_unless_all(heard)))
        return out, LastState(memory, kept, heard)

    def preview(self, state: LastState, rows: Tensor, at: RoundContext) -> Tensor:
        shown, _, heard = self._known(state, rows, at)
        return self.inner.preview(state.memory, shown, at._replace(present=_unless_all(heard)))

    def rule_of(self, state: LastState, at: RoundContext) -> BaseAggregator | None:
        return self.inner.rule_of(state.memory, at)

    def report(self, state: LastState) -> dict[str, float]:
        return self.inner.report(state.memory)

    def _known(self, state: LastState, rows: Tensor, at: RoundContext) -> tuple[Tensor, Tensor, Tensor]:
        """The rows that the rule gets, those that are remembered, and who was heard."""
        present = torch.ones_like(state.heard) if at.present is None else at.present
        here = present.to(rows.device).unsqueeze(1)
        old = state.rows * self.decay if self.decay != 1 else state.rows
        shown = torch.where(here, rows, old)
        sound = shown.isfinite().all(dim=1)
        kept = torch.where(sound.unsqueeze(1), shown, old)
        return shown, kept, state.heard | present


def _unless_all(heard: Tensor) -> Tensor | None:
    return None if bool(heard.all()) else heard
