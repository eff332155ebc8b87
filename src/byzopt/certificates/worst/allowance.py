"""What a search may cost."""

from __future__ import annotations

from math import inf
from time import process_time


class Allowance:
    """A number of sets of rows that may be answered, and a number of seconds of this process on the
    processor; whichever is spent first ends the search. With seconds alone what is found depends on the
    machine."""

    def __init__(self, sets: int | None, seconds: float | None = None) -> None:
        self.most = inf if sets is None else sets
        self.seconds = inf if seconds is None else seconds
        self.begun, self.spent = process_time(), 0

    def spend(self, sets: int) -> None:
        """Sets of rows were answered."""
        self.spent += sets

    @property
    def gone(self) -> float:
        """Which part of it is spent; 1 and more: all."""
        by_sets = self.spent / self.most
        return by_sets if self.seconds == inf else max(by_sets, (process_time() - self.begun) / self.seconds)

    @property
    def sets(self) -> float:
        """How many sets it is for, as far as can be told from those that were answered."""
        gone = self.gone
        return min(self.most, self.spent / gone if gone > 0 else inf)
