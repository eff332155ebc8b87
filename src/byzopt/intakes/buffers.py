"""Buffers: rows are collected until there are enough, and the rule combines them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.errors import require
from byzopt.intakes.base import (
    INTAKES,
    NOTHING,
    Arrival,
    AtServer,
    Intake,
    Taken,
    check_above,
    check_enough,
    check_unnamed,
    check_works,
    put,
)


class BufferState(NamedTuple):
    """The rows so far, one tensor `[d]` a place, which places are filled, and how many rows were refused."""

    rows: tuple[Tensor, ...]
    filled: tuple[bool, ...]
    refused: int


def empty(places: int, x0: Tensor) -> BufferState:
    """A buffer without rows."""
    return BufferState((torch.zeros_like(x0),) * places, (False,) * places, 0)


@INTAKES.register("unique")
@dataclass(frozen=True)
class Unique(Intake):
    """The latest row of each worker, until `size` different workers have sent one; the rule combines those.

    Nobody has two rows in a step, however fast. `size` n is the synchronous method: it waits for everybody.
    The default n - f is the most that f silent workers cannot hold up. A row that is not finite has come, and
    counts against f as everywhere. All f liars may be among the `size` rows of a step, which have to be more
    than 2 f, by default n > 3 f, and enough for the rule to tolerate f of so many (Bulyan: 4 f + 3).

    Args:
        size: Number of different workers in a step; None: n - f.

    Examples:
        >>> import torch
        >>> from byzopt.intakes import Arrival, AtServer, Unique
        >>> intake, x = Unique(size=2), torch.zeros(1)
        >>> state, at = intake.start(x, 3, 0), AtServer(0, x, n=3, f=0)
        >>> for worker, value in ((0, 1.0), (0, 2.0), (2, 3.0)):
        ...     taken, state = intake.take(state, Arrival(torch.tensor([value]), worker, 0, x), at)
        >>> taken.rows.flatten(), taken.present
        (tensor([2., 0., 3.]), tensor([ True, False,  True]))
    """

    size: int | None = None

    @property
    def partial(self) -> bool:
        return True

    def __post_init__(self) -> None:
        if self.size is not None:
            check_above(self, 0, size=self.size)

    def check(self, n: int, f: int, rule: BaseAggregator) -> None:
        what = f"Parameter `size` of intake {self.name}"
        require(self.size is None or self.size <= n, what, f"be at most n = {n}", self.size)
        remedy, rows = "Wait for more workers, for all of them where f < n/2.", self._wanted(n, f)
        check_enough(rows, n, f, what, remedy)
        check_works(rule, rows, n, f, what, "Wait for more workers, or take a rule that needs fewer.")

    def start(self, x0: Tensor, n: int, f: int) -> BufferState:
        return empty(n, x0)

    def take(self, state: BufferState, arrival: Arrival, at: AtServer) -> tuple[Taken, BufferState]:
        rows = put(state.rows, arrival.worker, self._weighed(arrival))
        filled = put(state.filled, arrival.worker, True)
        if sum(filled) < self._wanted(at.n, at.f):
            return NOTHING, state._replace(rows=rows, filled=filled)
        here = torch.tensor(filled, device="cpu")
        taken = Taken(torch.stack(rows), None if all(filled) else here)
        return taken, empty(at.n, at.x)._replace(refused=state.refused)

    def _wanted(self, n: int, f: int) -> int:
        """Of how many workers a step has rows."""
        return n - f if self.size is None else self.size

    def _weighed(self, arrival: Arrival) -> Tensor:
        return arrival.row


@INTAKES.register("fed_buff")
@dataclass(frozen=True)
class FedBuff(Unique):
    """Rows times (1 + τ)^-`exponent` until there are `size` of them, which the rule combines.

    As released, with the mean, a worker may fill a buffer alone: `repeats = true`. **Then whoever is fast has
    most of the rows of a step, and no rule helps.** So it is off unless it is asked for: each worker has its
    latest row alone, and the step waits for `size` different workers. With `repeats` rows that are not finite
    are refused; without they count against f.

    Source: Nguyen et al., arXiv:2106.06639, Algorithm 1 (the weights and 10 rows from notes on it).

    Args:
        size: Number of rows in a step.
        exponent: Of the weights (1 + τ)^-exponent, >= 0; 0: all weigh the same.
        repeats: Whether a worker may have several rows in a step.

    Examples:
        >>> import torch
        >>> from byzopt.intakes import Arrival, AtServer, FedBuff
        >>> intake, x = FedBuff(size=2, repeats=True), torch.zeros(1)
        >>> state, at = intake.start(x, 3, 0), AtServer(5, x, n=3, f=0)
        >>> for staleness in (0, 3):
        ...     taken, state = intake.take(state, Arrival(torch.ones(1), 0, staleness, x), at)
        >>> taken.rows.flatten()
        tensor([1.0000, 0.5000])
    """

    size: int | None = 10
    exponent: float = 0.5
    repeats: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.exponent >= 0, "Parameter `exponent` of intake fed_buff", "be at least 0", self.exponent)
        sized = self.size is not None or not self.repeats
        require(sized, "Parameter `size` of intake fed_buff with repeats", "be a number", "none")

    @property
    def partial(self) -> bool:
        return not self.repeats

    def check(self, n: int, f: int, rule: BaseAggregator) -> None:
        if self.repeats:
            check_unnamed(rule, f"intake {self.name} with repeats")
            rule.check(self.size or 1)
        else:
            super().check(n, f, rule)

    def start(self, x0: Tensor, n: int, f: int) -> BufferState:
        return empty(self.size if self.repeats and self.size else n, x0)

    def take(self, state: BufferState, arrival: Arrival, at: AtServer) -> tuple[Taken, BufferState]:
        if not self.repeats:
            return super().take(state, arrival, at)
        if not arrival.sound:
            return NOTHING, state._replace(refused=state.refused + 1)
        place = sum(state.filled)
        rows, filled = put(state.rows, place, self._weighed(arrival)), put(state.filled, place, True)
        if not all(filled):
            return NOTHING, state._replace(rows=rows, filled=filled)
        return Taken(torch.stack(rows)), empty(len(rows), at.x)._replace(refused=state.refused)

    def _weighed(self, arrival: Arrival) -> Tensor:
        if not (self.exponent and arrival.staleness):
            return arrival.row
        weight: float = (1 + arrival.staleness) ** -self.exponent
        return arrival.row * weight

    def report(self, state: BufferState) -> dict[str, float]:
        """`refused_rows`: rows so far that were left out."""
        return {"refused_rows": float(state.refused)}


@INTAKES.register("latest")
@dataclass(frozen=True)
class Latest(Intake):
    """Everybody's last row, the rule on all of them at each arrival, and a step of 1/n of its answer.

    It begins when all but f workers were heard, which have to be more than 2 f, n > 3 f, and enough for the
    rule to tolerate f of so many. Absence is no fault. A row that is not finite is refused, and the one
    before it stays. A fast worker takes more steps, but has one row in each.

    Examples:
        >>> import torch
        >>> from byzopt.intakes import Arrival, AtServer, Latest
        >>> intake, x = Latest(), torch.zeros(1)
        >>> state, at = intake.start(x, 2, 0), AtServer(0, x, n=2, f=0)
        >>> for worker, value in ((0, 1.0), (1, 3.0)):
        ...     taken, state = intake.take(state, Arrival(torch.tensor([value]), worker, 0, x), at)
        >>> taken.rows.flatten(), taken.scale
        (tensor([1., 3.]), 0.5)
    """

    @property
    def partial(self) -> bool:
        return True

    def check(self, n: int, f: int, rule: BaseAggregator) -> None:
        what, remedy = "The n - f workers with whom intake latest begins", "Have n > 3 f, or take 'unique'."
        check_enough(n - f, n, f, what, remedy)
        remedy = "Have more workers, or take a rule that needs fewer rows."
        check_works(rule, n - f, n, f, what, remedy)

    def start(self, x0: Tensor, n: int, f: int) -> BufferState:
        return empty(n, x0)

    def take(self, state: BufferState, arrival: Arrival, at: AtServer) -> tuple[Taken, BufferState]:
        if not arrival.sound:
            return NOTHING, state._replace(refused=state.refused + 1)
        rows = put(state.rows, arrival.worker, arrival.row)
        filled = put(state.filled, arrival.worker, True)
        after = state._replace(rows=rows, filled=filled)
        if sum(filled) < at.n - at.f:
            return NOTHING, after
        here = None if all(filled) else torch.tensor(filled, device="cpu")
        return Taken(torch.stack(rows), here, 1 / at.n), after

    def report(self, state: BufferState) -> dict[str, float]:
        """`refused_rows`: rows so far that were left out."""
        return {"refused_rows": float(state.refused)}
