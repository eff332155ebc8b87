"""The attacks on clocks: more often than anybody, later than anybody, or never."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from byzopt.attacks.base import Attack
from byzopt.attacks.clocks.base import CLOCK_ATTACKS, ClockAttack
from byzopt.attacks.flips import BitFlip, SignFlip
from byzopt.errors import require


@CLOCK_ATTACKS.register("flooding")
@dataclass(frozen=True)
class Flooding(ClockAttack):
    """Every liar answers `rate` times as often as the fastest honest worker, and sends what `rows` says.

    Where a worker may have several rows in a step, liars so have most of them. `rate` below 1: a slow liar.

    Args:
        rate: Answers of a liar for each of the fastest honest worker, > 0.
        rows: What liars send.

    Examples:
        >>> from byzopt.attacks import Flooding
        >>> Flooding(rate=10.0).pace(fastest=1.0, slowest=3.0)
        0.1
    """

    rate: float = 10.0
    rows: Attack = SignFlip(scale=10.0)

    def __post_init__(self) -> None:
        require(self.rate > 0, "Parameter `rate` of flooding", "be above 0", self.rate)

    def pace(self, fastest: float, slowest: float) -> float:
        return fastest / self.rate


@CLOCK_ATTACKS.register("late_poison")
@dataclass(frozen=True)
class LatePoison(ClockAttack):
    """Every liar answers after `delay` times the slowest honest worker's time, by default with minus the
    gradient at the point that it was sent then.

    Such a row is as long as honest ones were when the liar was asked. What has since come near to an optimum
    it throws back, where rows are not weighed by their age.

    Args:
        delay: Time of a liar's answer, in times of the slowest honest worker, > 0.
        rows: What liars send.

    Examples:
        >>> from byzopt.attacks import LatePoison
        >>> LatePoison(delay=20.0).pace(fastest=1.0, slowest=3.0)
        60.0
    """

    delay: float = 10.0
    rows: Attack = BitFlip()

    def __post_init__(self) -> None:
        require(self.delay > 0, "Parameter `delay` of late_poison", "be above 0", self.delay)

    def pace(self, fastest: float, slowest: float) -> float:
        return slowest * self.delay


@CLOCK_ATTACKS.register("silence")
@dataclass(frozen=True)
class Silence(ClockAttack):
    """No liar ever answers: an intake that waits for everybody waits for ever.

    Args:
        rows: What liars would send.

    Examples:
        >>> from byzopt.attacks import Silence
        >>> Silence().pace(fastest=1.0, slowest=3.0)
        inf
    """

    rows: Attack = BitFlip()

    def pace(self, fastest: float, slowest: float) -> float:
        return inf
