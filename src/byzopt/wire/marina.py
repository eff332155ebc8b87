"""MARINA's channels: whole gradients in rounds that a common coin picks, compressed differences between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.wire.base import CHANNELS, Channel, keep_finite, need_unbiased
from byzopt.wire.compressors import Compressor, Identity
from byzopt.wire.feedback import ChannelState, empty_state, malformed_count
from byzopt.wire.link import Link
from byzopt.wire.sparse import RandK


@dataclass(frozen=True)
class _Coined(Channel):
    """`p` in (0, 1], the chance of a synchronising round; round 1 is one."""

    compressor: Compressor = RandK()
    p: float = 0.1

    def __post_init__(self) -> None:
        need_unbiased(self.compressor, "MARINA")
        require(0 < self.p <= 1, "Parameter `p`", "lie in (0, 1]", self.p)

    def whole(self, link: Link) -> bool:
        """Whether this round's messages are whole gradients."""
        return link.first or link.coin(self.p)

    def compress(self, rows: Tensor, link: Link) -> Tensor:
        return rows if self.whole(link) else self.compressor(rows, link)

    def coder(self, link: Link) -> Compressor:
        return Identity() if self.whole(link) else self.compressor


@CHANNELS.register("marina")
@dataclass(frozen=True)
class Marina(_Coined):
    """Coin 1: the row is what the worker computed, sent raw. Coin 0: it is ĝ + Q(Δ_i), ĝ the last aggregate.

    Pairs with the estimator `marina` at the same `p`. Source: arXiv:2206.00529, Algorithm 1, restated in
    arXiv:2311.14127.

    Args:
        compressor: What differences are compressed by; unbiased.
        p: Chance of a raw round, in (0, 1], as the estimator's.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Link, Marina
        >>> channel, rows = Marina(p=0.1), torch.tensor([[2.0, 3.0]])
        >>> channel.send(channel.start(rows), rows, Link(1, seed=0, layout=Layout.flat(2)))[1]  # round 1: raw
        tensor([[2., 3.]])
    """

    def send(self, state: Any, values: Tensor, link: Link) -> tuple[Tensor, Tensor, Any]:
        messages = self.compress(values, link)
        return messages, self.base(state, messages, link) + messages, state

    def receive(self, state: Any, messages: Tensor, link: Link) -> tuple[Tensor, Any]:
        return self.base(state, messages, link) + messages, state

    def base(self, state: Any, like: Tensor, link: Link) -> Tensor:
        if self.whole(link):
            return torch.zeros_like(like)
        assert link.last is not None
        return link.last.unsqueeze(-2).expand_as(like)


@CHANNELS.register("marina2")
@dataclass(frozen=True)
class Marina2(_Coined):
    """As `marina`, with each worker's own g_i as base: g_i <- g_i + Q(Δ_i), and the row is g_i.

    Source: released code of arXiv:2310.09804 ("Byz-VR-MARINA 2.0").

    Args:
        compressor: What differences are compressed by; unbiased.
        p: Chance of a raw round, in (0, 1], as the estimator's.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Link, Marina2
        >>> channel, rows = Marina2(p=0.1), torch.tensor([[2.0, 3.0]])
        >>> channel.send(channel.start(rows), rows, Link(1, seed=0, layout=Layout.flat(2)))[1]  # round 1: raw
        tensor([[2., 3.]])
    """

    def start(self, rows: Tensor) -> ChannelState:
        return empty_state(rows)

    def send(self, state: ChannelState, values: Tensor, link: Link) -> tuple[Tensor, Tensor, ChannelState]:
        messages = self.compress(values, link)
        g = messages if self.whole(link) else state.worker + messages
        return messages, g, state._replace(worker=g)

    def receive(self, state: ChannelState, messages: Tensor, link: Link) -> tuple[Tensor, ChannelState]:
        g = self.base(state, messages, link) + messages
        server, bad = keep_finite(g, state.server)
        return g, state._replace(server=server, faults=state.faults + bad)

    def base(self, state: ChannelState, like: Tensor, link: Link) -> Tensor:
        return torch.zeros_like(like) if self.whole(link) else state.server

    def overwrite_memory(self, state: ChannelState, rows: Tensor, link: Link) -> ChannelState:
        return state._replace(server=keep_finite(rows, state.server)[0])

    def report(self, state: ChannelState) -> dict[str, float]:
        return malformed_count(state)
