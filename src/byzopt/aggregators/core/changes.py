"""Filters that look at what changed since the last aggregate, or average each worker's rows."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.filters import Filter, RoundContext
from byzopt.errors import require
from byzopt.linalg import clip, norm
from byzopt.rng import coin


class ChangesState(NamedTuple):
    """The rule's state, the last aggregate `g` and the last point `x` `[d]`, and the number of rounds."""

    memory: Any
    g: Tensor
    x: Tensor
    k: int


@dataclass(frozen=True)
class ClippedChanges(Filter):
    """g <- g + Agg(clip_λ(r_1 - g), ..), λ = `a` ‖x - x_old‖: rows move g by `a` times that at most.

    In round 1, and where the round's common coin falls with probability `p`, g <- Agg(r_1, ..) as it is. The
    server clips, whatever workers say. With `a` = 2 L an honest change is not cut, and a round in which most
    of those who came lie moves g by 2 L ‖x - x_old‖ at most.
    Source: heuristic (10) of Malinovsky et al., arXiv:2311.14127; with `p`, its Byz-VR-MARINA-PP.

    Args:
        inner: What combines the changes.
        a: Bound on a change of rows for a change of the point, > 0; infinite: nothing is cut.
        p: Probability of rounds in which rows are taken as they are; 0: round 1 alone.

    Examples:
        >>> import torch
        >>> from byzopt import Mean
        >>> from byzopt.aggregators import ClippedChanges, RoundContext
        >>> filter, x = ClippedChanges(Mean().as_filter(), a=2.0), torch.zeros(1)
        >>> g, state = filter.step(filter.init(x, 2), torch.tensor([[1.0], [1.0]]), RoundContext(1, x))
        >>> rows = torch.tensor([[1.0], [90.0]])  # the second is let move by 0.2
        >>> filter.step(state, rows, RoundContext(2, x + 0.1))[0]
        tensor([1.1000])
    """

    inner: Filter
    a: float
    p: float = 0.0

    def __post_init__(self) -> None:
        require(self.a > 0, "Parameter `a` of clipped changes", "be positive", self.a)
        require(0 <= self.p <= 1, "Parameter `p` of clipped changes", "lie in [0, 1]", self.p)

    @property
    def assumes_one_distribution(self) -> bool:
        return self.inner.assumes_one_distribution

    def init(self, x0: Tensor, n: int) -> ChangesState:
        return ChangesState(self.inner.init(x0, n), torch.zeros_like(x0), x0, 0)

    def step(self, state: ChangesState, rows: Tensor, at: RoundContext) -> tuple[Tensor, ChangesState]:
        base = self._base(state, at)
        out, memory = self.inner.step(state.memory, self._cut(state, rows, base, at), at)
        out = out if base is None else base + out
        return out, ChangesState(memory, out, at.x, state.k + 1)

    def preview(self, state: ChangesState, rows: Tensor, at: RoundContext) -> Tensor:
        base = self._base(state, at)
        out = self.inner.preview(state.memory, self._cut(state, rows, base, at), at)
        return out if base is None else base + out

    def rule_of(self, state: ChangesState, at: RoundContext) -> BaseAggregator | None:
        return self.inner.rule_of(state.memory, at) if self.p == 0 else None  # its coin is known to all

    def report(self, state: ChangesState) -> dict[str, float]:
        return self.inner.report(state.memory)

    def _base(self, state: ChangesState, at: RoundContext) -> Tensor | None:
        """What rows are taken as changes of; None where they are taken as they are."""
        whole = state.k == 0 or (self.p > 0 and coin(at.seed, at.t, self.p))
        return None if whole else state.g

    def _cut(self, state: ChangesState, rows: Tensor, base: Tensor | None, at: RoundContext) -> Tensor:
        if base is None:
            return rows
        changes = rows - base
        return changes if self.a == inf else clip(changes, self.a * norm(at.x - state.x))


class RowMomentumState(NamedTuple):
    """The rule's state, and each worker's average m `[n, d]`."""

    memory: Any
    m: Tensor


@dataclass(frozen=True)
class RowMomentum(Filter):
    """m_i <- (1 - η) m_i + η r_i at the server, from m = 0, and the rule on the m_i.

    A row that is not finite is its sender's fault in that round, and does not enter its average.

    Args:
        inner: What combines the averages.
        eta: Weight η of the new row, in (0, 1].

    Examples:
        >>> import torch
        >>> from byzopt import Mean
        >>> from byzopt.aggregators import RoundContext, RowMomentum
        >>> filter, x = RowMomentum(Mean().as_filter(), eta=0.5), torch.zeros(1)
        >>> filter.step(filter.init(x, 2), torch.tensor([[1.0], [3.0]]), RoundContext(1, x))[0]
        tensor([1.])
    """

    inner: Filter
    eta: float

    def __post_init__(self) -> None:
        require(0 < self.eta <= 1, "Parameter `eta` of row momentum", "lie in (0, 1]", self.eta)

    @property
    def assumes_one_distribution(self) -> bool:
        return self.inner.assumes_one_distribution

    def init(self, x0: Tensor, n: int) -> RowMomentumState:
        return RowMomentumState(self.inner.init(x0, n), x0.new_zeros(n, len(x0)))

    def step(
        self, state: RowMomentumState, rows: Tensor, at: RoundContext
    ) -> tuple[Tensor, RowMomentumState]:
        m = (state.m * (1 - self.eta)).add_(rows, alpha=self.eta)
        out, memory = self.inner.step(state.memory, m, at)
        sound = m.isfinite().all(dim=1, keepdim=True)
        return out, RowMomentumState(memory, torch.where(sound, m, state.m))

    def preview(self, state: RowMomentumState, rows: Tensor, at: RoundContext) -> Tensor:
        m = (state.m * (1 - self.eta)).add_(rows, alpha=self.eta)
        return self.inner.preview(state.memory, m, at)

    def rule_of(self, state: RowMomentumState, at: RoundContext) -> BaseAggregator | None:
        return self.inner.rule_of(state.memory, at)

    def report(self, state: RowMomentumState) -> dict[str, float]:
        return self.inner.report(state.memory)
