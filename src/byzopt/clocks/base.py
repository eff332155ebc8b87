"""What a clock is: service times, pure in (seed, worker, count)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from byzopt.errors import require
from byzopt.registry import Registry


class Clock(ABC):
    """How long workers take. Times are in a unit of the clock's own, and have nothing to do with seconds.

    Workers that answer at the same time are heard in the order of their numbers, and sent the server's point
    after all of them were heard.

    Examples:
        >>> from byzopt.clocks import CLOCKS, Clock
        >>> isinstance(CLOCKS.build("equal"), Clock)
        True
    """

    name: ClassVar[str]

    def check(self, n: int) -> None:
        """Raise `InvalidInput` where it cannot time n workers. Default: it can."""
        return

    @abstractmethod
    def service(self, seed: int, worker: int, count: int, n: int) -> float:
        """How long `worker` of n takes for its job number `count`, from 1: above 0."""

    @abstractmethod
    def mean(self, worker: int, n: int) -> float:
        """How long `worker` of n takes on average."""


CLOCKS: Registry[Clock] = Registry("clock", Clock)


def check_time(clock: Clock, name: str, value: float) -> None:
    """Raise `InvalidInput` unless a parameter is a time above 0."""
    require(value > 0, f"Parameter `{name}` of clock {clock.name}", "be above 0", value)
