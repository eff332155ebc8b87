"""The asynchrony of a run as plain data: a table `asynchrony` of a spec."""

from __future__ import annotations

from dataclasses import dataclass

from byzopt.aggregators import Mean
from byzopt.aggregators.core.base import BaseAggregator
from byzopt.attacks import Attack, ClockAttack
from byzopt.clocks import Clock, Equal
from byzopt.errors import InvalidInput, require
from byzopt.intakes import Intake, Unique


@dataclass(frozen=True)
class Asynchrony:
    """How long workers take, and what the server makes of rows that come one at a time.

    Args:
        clock: Service times of the workers.
        intake: When the server takes a step, and with what.
        patience: Rows without a step of the server after which a run is given up, once n - f workers, or all
            who ever answer, have each sent so many.

    Raises:
        InvalidInput: A `patience` below 1.

    Examples:
        >>> from byzopt.clocks import Spread
        >>> from byzopt.engines import Asynchrony
        >>> from byzopt.intakes import Unique
        >>> Asynchrony(Spread(1.0, 3.0), Unique(size=8)).patience
        100
    """

    clock: Clock = Equal()
    intake: Intake = Unique()
    patience: int = 100

    def __post_init__(self) -> None:
        require(self.patience >= 1, "Parameter `patience` of asynchrony", "be at least 1", self.patience)


def check_intake(asynchrony: Asynchrony, rule: BaseAggregator, n: int, f: int) -> None:
    """Raise `InvalidInput` for a clock or an intake that does not fit the cohort, or passes over the rule."""
    asynchrony.clock.check(n)
    asynchrony.intake.check(n, f, rule)
    good = asynchrony.intake.uses_rule or isinstance(rule, Mean)
    remedy = "Leave `rule` out, or take an intake that hands rows to one, 'unique' for instance."
    require(
        good, f"The rule of a run with intake {asynchrony.intake.name!r}", "be the mean", repr(rule), remedy
    )


def check_clock(attack: Attack) -> None:
    """Raise `InvalidInput` for an attack on clocks where there are none."""
    if isinstance(attack, ClockAttack):
        raise InvalidInput(
            f"Attack {attack.name!r} should have a clock, on which it chooses its time. Found none. "
            "Add a table `asynchrony`, or take another attack."
        )
