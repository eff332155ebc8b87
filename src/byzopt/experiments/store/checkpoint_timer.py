"""When a checkpoint is due: as often as the user asks, else so that saving takes little of the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

SOON = 1.0  # seconds until the first, so that work that is stopped again and again goes on all the same
SHARE = 50  # keeping checkpoints takes one part of so many of the time
LONGEST = 60.0  # seconds between two, whatever one costs


class CheckpointTimer:
    """Says when a checkpoint is due: `every` so many seconds. None: after one second, and then so that saving
    takes one part in `SHARE` of the time."""

    def __init__(self, every: float | None = None, clock: Callable[[], float] = monotonic) -> None:
        self.clock, self.every, self.interval = clock, every, every or SOON
        self.kept = clock()

    @property
    def due(self) -> bool:
        """Whether one should be saved now."""
        return self.clock() - self.kept >= self.interval

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Measures how long saving one takes."""
        began = self.clock()
        yield
        self.kept = self.clock()
        if self.every is None:
            self.interval = min(LONGEST, max(SOON, SHARE * (self.kept - began)))
