"""What a channel is: how messages cross, and which rows the server takes them for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.layout import Layout
from byzopt.registry import Registry
from byzopt.wire.compressors import FLOAT, Compressor, Identity
from byzopt.wire.link import Link

State = Any  # what each end remembers of each worker, rows [n, d]; fixed in structure for the whole run


class Cost(NamedTuple):
    """One worker's message: bits (32-bit floats), and coordinates with indices free.

    Args:
        bits: Bits of the message, floats taken as 32 bits each.
        coordinates: Coordinates in it, indices free.

    Examples:
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Cost, TopK
        >>> top, layout = TopK(k=2), Layout.flat(16)
        >>> Cost(top.bits(layout), top.coordinates(layout))  # two floats with indices of 4 bits
        Cost(bits=72, coordinates=2)
    """

    bits: float
    coordinates: float


class Channel(ABC):
    """The wire between n workers and the server, both ends of it; row i belongs to worker i.

    A round is `send` at the workers, then `receive` at the server. An adversary puts messages of its own
    between the two: `base` says what the server adds a message to, `compress` makes rows into messages that
    can cross, and `overwrite_memory` makes the server believe rows that never crossed. Each worker's own
    memory, also a Byzantine one's, follows the protocol; what the server remembers follows what it received.

    A message that leaves a row with NaN or Inf is malformed, its sender's fault. That row stays as it is, so
    that the rule drops it and counts it against f; the server keeps what it remembered (`keep_finite`), so
    that the worker's next good message counts again.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import EF21, Link, TopK
        >>> channel, link = EF21(TopK(k=1)), Link(t=1, seed=0, layout=Layout.flat(3))
        >>> rows = torch.tensor([[1.0, -5.0, 2.0], [3.0, 0.0, 1.0]])
        >>> messages, believed, workers = channel.send(channel.start(rows), rows, link)
        >>> received, server = channel.receive(channel.start(rows), messages, link)
        >>> bool((received == believed).all())
        True
    """

    name: ClassVar[str]

    @property
    def batched(self) -> bool:
        """Whether it is written over leading dimensions, so that one call serves many runs."""
        return False

    @property
    def noisy(self) -> bool:
        """Whether workers add noise for privacy, which nobody else may know where they are real."""
        return False

    def check(self, layout: Layout, liars: bool) -> None:
        """Raise `InvalidInput` for a layout or (`liars`) a Byzantine worker that it cannot have."""
        return

    def start(self, rows: Tensor) -> State:
        """The state before round 1; `rows` `[n, d]` shows shape, dtype and device. Default: none."""
        return ()

    @abstractmethod
    def send(self, state: State, values: Tensor, link: Link) -> tuple[Tensor, Tensor, State]:
        """The workers' values `[n, d]` to (messages, the rows that these stand for, the state after).

        The rows are those that the server will believe of an honest worker, bit for bit.
        """

    @abstractmethod
    def receive(self, state: State, messages: Tensor, link: Link) -> tuple[Tensor, State]:
        """Messages `[n, d]`, decoded, to (rows as the server believes them, the state after)."""

    @abstractmethod
    def compress(self, rows: Tensor, link: Link) -> Tensor:
        """Any rows `[n, d]` as messages of this round: what its compressor leaves of them."""

    def base(self, state: State, like: Tensor, link: Link) -> Tensor:
        """What the server adds this round's messages to, `[n, d]`. Default: 0."""
        return torch.zeros_like(like)

    def overwrite_memory(self, state: State, rows: Tensor, link: Link) -> State:
        """The state after the server was made to believe `rows` `[n, d]`, and remembered the finite ones.
        Default: it remembers none."""
        return state

    def report(self, state: State) -> dict[str, float]:
        """Figures of the server's memory, for records. Default: none."""
        return {}

    def coder(self, link: Link) -> Compressor:
        """The compressor whose layout of bytes this round's messages have. Default: d floats."""
        return Identity()

    def cost(self, link: Link) -> Cost:
        """What one worker's message of this round costs."""
        return message_cost(self.coder(link), link.layout)


CHANNELS: Registry[Channel] = Registry("channel", Channel)


def need_unbiased(compressor: Compressor, what: str) -> None:
    """Raise `InvalidInput` unless the compressor is unbiased."""
    remedy = "Use identity, rand_k(scaled=True), natural or qsgd."
    require(compressor.unbiased, f"The compressor of {what}", "be unbiased", compressor, remedy)


def need_contractive(compressor: Compressor, what: str, layout: Layout | None = None) -> None:
    """Raise `InvalidInput` unless the compressor is contractive (on this layout)."""
    good = compressor.contracts and (layout is None or compressor.least_alpha(layout) is not None)
    remedy = "Use top_k, rand_k(scaled=False), scaled_sign, or shrunk(inner), Q / (1 + ω)."
    require(good, f"The compressor of {what}", "be contractive", compressor, remedy)


def keep_finite(rows: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """What the server remembers, `[n, d]`: `rows` where they are finite, else what it did `before`; and whose
    are not, `[n]`."""
    sound = rows.isfinite().all(dim=-1)
    return torch.where(sound.unsqueeze(-1), rows, before), ~sound


def message_cost(compressor: Compressor, layout: Layout) -> Cost:
    """The cost of a compressed message."""
    return Cost(float(compressor.bits(layout)), float(compressor.coordinates(layout)))


def uncompressed_cost(layout: Layout) -> Cost:
    """The cost of d floats."""
    return Cost(float(FLOAT * layout.d), float(layout.d))


@CHANNELS.register("direct")
@dataclass(frozen=True)
class Direct(Channel):
    """m_i = Q(s_i), and the server's row is m_i: no memory. By default every coordinate is sent as it is.

    Errors: a biased compressor, whose error nothing would make up for.

    Args:
        compressor: What messages are compressed by; unbiased.

    Raises:
        InvalidInput: A biased compressor, whose error nothing would make up for.

    Examples:
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Direct, Link
        >>> Direct().cost(Link(t=1, seed=0, layout=Layout.flat(10)))
        Cost(bits=320.0, coordinates=10.0)
    """

    compressor: Compressor = Identity()
    batched = True

    def __post_init__(self) -> None:
        need_unbiased(self.compressor, "a direct channel")

    def send(self, state: State, values: Tensor, link: Link) -> tuple[Tensor, Tensor, State]:
        messages = self.compressor(values, link)
        return messages, messages, state

    def receive(self, state: State, messages: Tensor, link: Link) -> tuple[Tensor, State]:
        return messages, state

    def compress(self, rows: Tensor, link: Link) -> Tensor:
        return self.compressor(rows, link)

    def coder(self, link: Link) -> Compressor:
        return self.compressor
