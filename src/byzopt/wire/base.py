"""What a channel is: how messages cross, and what the server believes each worker said."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from byzopt.registry import Registry

State = Any  # what both ends remember of each worker, rows [n, d]; fixed in structure for the whole run


class Channel(ABC):
    """The wire between n workers and the server. `bits` counts one worker's uplink in a round."""

    name: ClassVar[str]

    @property
    def batched(self) -> bool:
        """Whether it is written over leading dimensions, so that one call serves many runs."""
        return False

    @abstractmethod
    def init(self, rows: Tensor) -> tuple[Tensor, State, float]:
        """Round 1: messages `[n, d]` to (rows as received, state, bits per worker)."""

    @abstractmethod
    def send(self, state: State, rows: Tensor) -> tuple[Tensor, State, float]:
        """A later round: messages `[n, d]` to (rows as received, state, bits per worker)."""


CHANNELS: Registry[Channel] = Registry("channel", Channel)


@CHANNELS.register("direct")
@dataclass(frozen=True)
class Direct(Channel):
    """Every coordinate is sent as it is: d floats of the rows' own width."""

    batched = True

    def init(self, rows: Tensor) -> tuple[Tensor, State, float]:
        return self.send((), rows)

    def send(self, state: State, rows: Tensor) -> tuple[Tensor, State, float]:
        return rows, state, float(rows.shape[-1] * rows.element_size() * 8)
