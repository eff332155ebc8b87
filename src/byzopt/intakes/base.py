"""What an intake is: it is fed one row at a time, and says when the server takes a step, and with what."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.present import fitted
from byzopt.errors import require
from byzopt.registry import Registry

State = Any  # a typed tuple of tensors and numbers, fixed in structure for the whole run


class Arrival(NamedTuple):
    """A row that has come: from whom, how old, and where it was taken.

    Args:
        row: What the worker sent, `[d]`.
        worker: Its number, from 0.
        staleness: Server steps since the worker was sent its point, τ >= 0.
        point: That point, `[d]`.

    Examples:
        >>> import torch
        >>> from byzopt.intakes import Arrival
        >>> Arrival(torch.tensor([1.0, torch.nan]), worker=0, staleness=0, point=torch.zeros(2)).sound
        False
    """

    row: Tensor
    worker: int
    staleness: int
    point: Tensor

    @property
    def sound(self) -> bool:
        """Whether the row is finite."""
        return bool(self.row.isfinite().all())


class AtServer(NamedTuple):
    """What the server knows when a row comes.

    Args:
        t: Finished server steps.
        x: The server's point, `[d]`.
        n: Number of workers.
        f: How many of them it tolerates.
        proxy: The loss that the server owns; None: it owns none.

    Examples:
        >>> import torch
        >>> from byzopt.intakes import AtServer
        >>> AtServer(0, torch.zeros(2), n=10, f=2).t
        0
    """

    t: int
    x: Tensor
    n: int
    f: int
    proxy: Callable[[Tensor], Tensor] | None = None


class Taken(NamedTuple):
    """What came of a row: nothing yet, or what the server steps with.

    Args:
        rows: What the rule combines, `[m, d]`; of an intake that uses no rule the step itself, `[1, d]`;
            None: no step.
        present: Whose rows these are, `[n]` of bool, where they are `[n, d]`; None: all count.
        scale: Factor of the rule's answer.
        restart: Whether what workers are at is given up, and all begin anew at the server's new point.

    Examples:
        >>> from byzopt.intakes import Taken
        >>> Taken().rows is None
        True
    """

    rows: Tensor | None = None
    present: Tensor | None = None
    scale: float = 1.0
    restart: bool = False


NOTHING = Taken()


class Intake(ABC):
    """A rule fed one row at a time: a server step is a round.

    `uses_rule`: whether it hands rows to the run's rule; the others are rules themselves. `partial`: whether
    it may hand over rows of some workers alone. `needs_proxy`: whether it needs a loss that the server owns.

    Examples:
        >>> from byzopt.intakes import INTAKES, Intake
        >>> isinstance(INTAKES.build("unique"), Intake)
        True
    """

    name: ClassVar[str]
    uses_rule: ClassVar[bool] = True
    needs_proxy: ClassVar[bool] = False

    @property
    def partial(self) -> bool:
        """Whether it hands over rows of some workers alone, `[n, d]` with a mask of whose they are."""
        return False

    def check(self, n: int, f: int, rule: BaseAggregator) -> None:
        """Raise `InvalidInput` where it cannot serve n workers, f of them faulty, with this rule."""
        return

    @abstractmethod
    def start(self, x0: Tensor, n: int, f: int) -> State:
        """The state before the first row of n workers, f of whom may be faulty."""

    @abstractmethod
    def take(self, state: State, arrival: Arrival, at: AtServer) -> tuple[Taken, State]:
        """What comes of a row, and the state after it."""

    def report(self, state: State) -> dict[str, float]:
        """Figures of the state, for records. Default: none."""
        return {}


INTAKES: Registry[Intake] = Registry("intake", Intake)


def put(parts: tuple[Any, ...], i: int, part: Any) -> tuple[Any, ...]:
    """The tuple with `part` in place i."""
    return (*parts[:i], part, *parts[i + 1 :])


def check_enough(rows: int, n: int, f: int, what: str, remedy: str) -> None:
    """Raise `InvalidInput` where a step is made of `rows` rows, of different workers, in which f liars may
    have the half: no rule then tolerates f, and it would be set to fewer."""
    require(rows > 2 * f or f == 0, what, f"be more than 2 f = {2 * f}", f"{rows} of n = {n}", remedy)


def check_works(rule: BaseAggregator, rows: int, n: int, f: int, what: str, remedy: str) -> None:
    """Raise `InvalidInput` where the rule, on a step of `rows` rows of n workers, cannot tolerate f of them
    (Bulyan needs 4 f + 3 rows), and would be set to fewer in silence."""
    wanted = min(f, rule.tolerance(n))
    present = torch.ones(n, dtype=torch.bool, device="cpu")
    spare = [i for i in reversed(range(n)) if i not in rule.trusts]
    present[spare[: n - rows]] = False
    found = fitted(rule, present, wanted).tolerance(rows)
    told = f"{rows} of n = {n}, on which {rule!r} tolerates {found}"
    require(found >= wanted, what, f"be enough for a rule that tolerates f = {wanted}", told, remedy)


def check_unnamed(rule: BaseAggregator, what: str) -> None:
    """Raise `InvalidInput` for a rule with a place for each worker, where rows are not those of workers in
    order."""
    remedy = "Take 'unique', whose row i is worker i's, or a rule to which all rows are alike."
    require(not rule.by_worker, f"The rule of {what}", "ask of no row whose it is", repr(rule), remedy)


def check_above(intake: Intake, least: float, **values: float) -> None:
    """Raise `InvalidInput` unless parameters are above `least`."""
    for name, value in values.items():
        require(value > least, f"Parameter `{name}` of intake {intake.name}", f"be above {least:g}", value)
