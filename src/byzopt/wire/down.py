"""Downlinks: how the server's point reaches the workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from byzopt.layout import Layout
from byzopt.registry import Registry
from byzopt.wire.base import Cost, message_cost, need_contractive, uncompressed_cost
from byzopt.wire.compressors import Compressor
from byzopt.wire.link import Link
from byzopt.wire.sparse import TopK


class Downlink(ABC):
    """The broadcast from the server to all workers, who then evaluate at the point they received.

    Examples:
        >>> from byzopt.wire import Broadcast, Downlink
        >>> isinstance(Broadcast(), Downlink)
        True
    """

    name: ClassVar[str]

    @property
    def batched(self) -> bool:
        """Whether it is written over leading dimensions, so that one call serves many runs."""
        return True

    def check(self, layout: Layout) -> None:
        """Raise `InvalidInput` for a layout that it cannot have."""
        return

    @abstractmethod
    def start(self, x: Tensor) -> Any:
        """The state before round 1 at the point `x` `[d]`, which all know."""

    @abstractmethod
    def send(self, state: Any, x: Tensor, link: Link) -> tuple[Tensor, Any]:
        """The point `[d]` at which workers evaluate, and the state after."""

    @abstractmethod
    def cost(self, link: Link) -> Cost:
        """What this round's broadcast costs."""


DOWNLINKS: Registry[Downlink] = Registry("downlink", Downlink)


@DOWNLINKS.register("broadcast")
@dataclass(frozen=True)
class Broadcast(Downlink):
    """The point itself, d floats.

    Examples:
        >>> from byzopt.methods import ByzNSGDM
        >>> from byzopt import Median
        >>> ByzNSGDM().build(Median(f=1), lr=0.1, rounds=10).down
        Broadcast()
    """

    def start(self, x: Tensor) -> tuple[()]:
        return ()

    def send(self, state: tuple[()], x: Tensor, link: Link) -> tuple[Tensor, tuple[()]]:
        return x, state

    def cost(self, link: Link) -> Cost:
        return uncompressed_cost(link.layout)


@DOWNLINKS.register("ef21_p")
@dataclass(frozen=True)
class EF21P(Downlink):
    """w <- w + C(x - w), the message of which is broadcast; workers evaluate at w. w = x^0 at the start.

    Source: Gruntkowska et al., arXiv:2209.15218; Byzantine form arXiv:2310.09804 (Byz-EF21-BC).

    Args:
        compressor: What the difference x - w is compressed by; contractive.

    Examples:
        >>> from byzopt.wire import EF21P, TopK
        >>> EF21P(TopK(ratio=0.1)).compressor.alpha(100)
        0.1
    """

    compressor: Compressor = TopK(k=1)

    def __post_init__(self) -> None:
        need_contractive(self.compressor, "an EF21-P downlink")

    def check(self, layout: Layout) -> None:
        need_contractive(self.compressor, "an EF21-P downlink", layout)

    def start(self, x: Tensor) -> Tensor:
        return x

    def send(self, state: Tensor, x: Tensor, link: Link) -> tuple[Tensor, Tensor]:
        # One row: the server's own message.
        message = self.compressor((x - state).unsqueeze(-2), link).squeeze(-2)
        return state + message, state + message

    def cost(self, link: Link) -> Cost:
        return message_cost(self.compressor, link.layout)
