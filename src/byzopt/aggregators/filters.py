"""Rules that remember, and how a pure rule is lifted to one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from byzopt.aggregators.base import Aggregator

State = Any  # a typed tuple of tensors and numbers, fixed in structure for the whole run


class At(NamedTuple):
    """Where a round stands: its number `t` from 1, and the point `x` `[d]` that workers were asked at."""

    t: int
    x: Tensor


class Filter(ABC):
    """A rule with memory: rows `[n, d]` to the aggregate `[d]`, round after round."""

    @property
    def batched(self) -> bool:
        """Whether it is written over leading dimensions, so that one call serves many runs."""
        return False

    @abstractmethod
    def init(self, x0: Tensor, n: int) -> State:
        """State before round 1 for n workers."""

    @abstractmethod
    def step(self, state: State, rows: Tensor, at: At) -> tuple[Tensor, State]:
        """The aggregate of this round's rows and the next state."""

    @abstractmethod
    def preview(self, state: State, rows: Tensor, at: At) -> Tensor:
        """What `step` would answer, leaving the state alone: the clone that an attack may search against."""


@dataclass(frozen=True)
class Pure(Filter):
    """A pure rule as a filter without memory."""

    rule: Aggregator
    batched = True

    def init(self, x0: Tensor, n: int) -> tuple[()]:
        self.rule.check(n)
        return ()

    def step(self, state: tuple[()], rows: Tensor, at: At) -> tuple[Tensor, tuple[()]]:
        return self.preview(state, rows, at), ()

    def preview(self, state: tuple[()], rows: Tensor, at: At) -> Tensor:
        rule = self.rule.at(at.t)
        return rule(rows) if rows.ndim == 2 else rule.batch(rows)
