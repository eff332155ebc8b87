"""What an engine is: it carries a point to all workers and brings back rows, row i from worker i."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor


class Exchange(NamedTuple):
    """One round's rows `[n, d]`, and what it cost one worker.

    `gradients` of a minibatch; a full pass counts as many as it holds minibatches (`Task.passes`). `bits` and
    `coordinates` sent up, `bits_down` and `coordinates_down` received.
    """

    rows: Tensor
    gradients: float
    bits: float
    coordinates: float = 0.0
    bits_down: float = 0.0
    coordinates_down: float = 0.0


class Engine(ABC):
    """Transport and workers, seen from the loop."""

    @property
    @abstractmethod
    def n(self) -> int:
        """Number of workers."""

    @abstractmethod
    def exchange(
        self,
        state: Any | None,
        x: Tensor,
        t: int,
        defence: Callable[[Tensor], Tensor],
        last: Tensor | None = None,
    ) -> tuple[Exchange, Any]:
        """Ask all workers at `x` `[d]` in round t >= 1; `state` is None before the first round.

        `last` is the aggregate of the round before, which some channels build on.

        `defence` is the server's rule as a pure function, for simulated attackers that may know it.
        """
