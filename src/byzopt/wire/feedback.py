"""Channels that send differences: EF21, DIANA, DASHA; and classic error feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.layout import Layout
from byzopt.wire.base import (
    CHANNELS,
    Channel,
    keep_finite,
    need_contractive,
    need_unbiased,
)
from byzopt.wire.compressors import Compressor, Identity
from byzopt.wire.dense import ScaledSign
from byzopt.wire.link import Link
from byzopt.wire.sparse import RandK, TopK

Opening: TypeAlias = Literal["compressed", "raw", "silent"]


class ChannelState(NamedTuple):
    """g `[n, d]` at the workers and at the server, equal bit for bit for a worker that keeps the protocol;
    how many malformed messages of each worker the server has seen, `[n]`."""

    worker: Tensor
    server: Tensor
    faults: Tensor


def empty_state(rows: Tensor) -> ChannelState:
    """Nothing said yet, by workers whose `rows` `[n, d]` look like these."""
    zeros = torch.zeros_like(rows)
    return ChannelState(zeros, zeros, torch.zeros(rows.shape[:-1], dtype=torch.int64, device=rows.device))


def malformed_count(state: ChannelState | DashaState) -> dict[str, float]:
    """The figure `malformed`: malformed messages of all workers so far."""
    return {"malformed": float(state.faults.sum())}


@CHANNELS.register("ef21")
@dataclass(frozen=True)
class EF21(Channel):
    """c_i = C(u_i - g_i), g_i <- g_i + c_i at both ends, and the server's row is g_i.

    `opening` is round 1: `"compressed"` C(u) from g = 0; `"raw"` u itself, d floats; `"silent"` the same d
    floats, which the server remembers as g = u but does not act on: the rows of round 1 are 0, and from round
    2 on they are g at both ends (released code of arXiv:2603.15144). `shortcut=True`: the server keeps the
    mean of the g_i only, g <- g + mean(c_i). That is right for the mean and nothing else, and leaves no rows
    to lie in.

    Errors: a compressor that is not contractive, above all a scaled rand_k. Source: arXiv:2106.05203.

    Args:
        compressor: What differences are compressed by; contractive.
        opening: What crosses in round 1: "compressed", "raw" or "silent".
        shortcut: Whether the server keeps the mean of the g_i only, for the mean alone.

    Raises:
        InvalidInput: A compressor that is not contractive.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import EF21, Link, TopK
        >>> channel, rows = EF21(TopK(k=1)), torch.tensor([[1.0, -5.0, 2.0]])
        >>> state, layout = channel.start(rows), Layout.flat(3)
        >>> for t in (1, 2, 3):  # each round tells one more coordinate
        ...     _, believed, state = channel.send(state, rows, Link(t, seed=0, layout=layout))
        >>> believed
        tensor([[ 1., -5.,  2.]])
    """

    compressor: Compressor = TopK(k=1)
    opening: Opening = "compressed"
    shortcut: bool = False
    batched = True

    def __post_init__(self) -> None:
        need_contractive(self.compressor, "an EF21 wire")

    def check(self, layout: Layout, liars: bool) -> None:
        need_contractive(self.compressor, "an EF21 wire", layout)
        what, rule = "A server that keeps the mean of the g_i only", "have no Byzantine worker"
        require(not (self.shortcut and liars), what, rule, "one", "Use shortcut = false.")

    def start(self, rows: Tensor) -> ChannelState:
        ends = empty_state(rows)
        if not self.shortcut:
            return ends
        return ChannelState(ends.worker, ends.server[..., :1, :], ends.faults[..., :1])

    def send(self, state: ChannelState, values: Tensor, link: Link) -> tuple[Tensor, Tensor, ChannelState]:
        messages = self.compress(values - state.worker, link)
        g = state.worker + messages
        return messages, torch.zeros_like(g) if self._silent(link) else g, state._replace(worker=g)

    def receive(self, state: ChannelState, messages: Tensor, link: Link) -> tuple[Tensor, ChannelState]:
        difference = messages.mean(dim=-2, keepdim=True) if self.shortcut else messages
        g = state.server + difference
        server, bad = keep_finite(g, state.server)
        if self._silent(link):
            g = g.masked_fill(~bad.unsqueeze(-1), 0.0)
        return g.expand_as(messages), state._replace(server=server, faults=state.faults + bad)

    def compress(self, rows: Tensor, link: Link) -> Tensor:
        return rows if link.first and self.opening != "compressed" else self.compressor(rows, link)

    def base(self, state: ChannelState, like: Tensor, link: Link) -> Tensor:
        return state.server.expand_as(like)

    def overwrite_memory(self, state: ChannelState, rows: Tensor, link: Link) -> ChannelState:
        if self._silent(link):  # who shows nothing is remembered by its message
            rows = torch.where((rows != 0).any(dim=-1, keepdim=True), rows, state.server)
        return state._replace(server=keep_finite(rows, state.server)[0])

    def report(self, state: ChannelState) -> dict[str, float]:
        return malformed_count(state)

    def coder(self, link: Link) -> Compressor:
        return Identity() if link.first and self.opening != "compressed" else self.compressor

    def _silent(self, link: Link) -> bool:
        return link.first and self.opening == "silent"


@CHANNELS.register("diana")
@dataclass(frozen=True)
class Diana(Channel):
    """m_i = Q(s_i - h_i), the server's row is h_i + m_i, and h_i <- h_i + β m_i at both ends; h_i = 0 first.

    `beta` in (0, 1]; None: 1/(1 + ω). Source: Mishchenko et al., arXiv:1901.09269.

    Args:
        compressor: What differences are compressed by; unbiased.
        beta: Weight β of a message in the memories, in (0, 1]; None: 1/(1 + ω).

    Examples:
        >>> from byzopt.wire import Diana, RandK
        >>> Diana(RandK(ratio=0.5)).beta is None
        True
    """

    compressor: Compressor = RandK()
    beta: float | None = None
    batched = True

    def __post_init__(self) -> None:
        need_unbiased(self.compressor, "DIANA")
        good = self.beta is None or 0 < self.beta <= 1
        require(good, "Parameter `beta` of diana", "lie in (0, 1]", self.beta)

    def start(self, rows: Tensor) -> ChannelState:
        return empty_state(rows)

    def send(self, state: ChannelState, values: Tensor, link: Link) -> tuple[Tensor, Tensor, ChannelState]:
        messages = self.compressor(values - state.worker, link)
        h = torch.add(state.worker, messages, alpha=self._beta(link))
        return messages, state.worker + messages, state._replace(worker=h)

    def receive(self, state: ChannelState, messages: Tensor, link: Link) -> tuple[Tensor, ChannelState]:
        h = torch.add(state.server, messages, alpha=self._beta(link))
        server, bad = keep_finite(h, state.server)
        return state.server + messages, state._replace(server=server, faults=state.faults + bad)

    def compress(self, rows: Tensor, link: Link) -> Tensor:
        return self.compressor(rows, link)

    def base(self, state: ChannelState, like: Tensor, link: Link) -> Tensor:
        return state.server

    def report(self, state: ChannelState) -> dict[str, float]:
        return malformed_count(state)

    def coder(self, link: Link) -> Compressor:
        return self.compressor

    def _beta(self, link: Link) -> float:
        omega = self.compressor.largest_omega(link.layout)
        return self.beta if self.beta is not None else 1 / (1 + (omega or 0.0))


class DashaState(NamedTuple):
    """h `[n, d]`, the values of each worker in the last round, and g at both ends, as in `ChannelState`."""

    h: Tensor
    worker: Tensor
    server: Tensor
    faults: Tensor


@CHANNELS.register("dasha")
@dataclass(frozen=True)
class Dasha(Channel):
    """m_i = Q(h_new - h - a (g_i - h)), g_i <- g_i + m_i at both ends, and the server's row is g_i.

    h is the worker's value of the round before. Round 1 is raw: g_i = h_i. `a` in (0, 1]; None:
    1/(2 ω + 1). Source: Tyurin, Richtárik, arXiv:2202.01268; Byzantine form arXiv:2310.09804.

    Args:
        compressor: What differences are compressed by; unbiased.
        a: Weight of the pull towards h, in (0, 1]; None: 1/(2 ω + 1).

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Dasha, Link
        >>> channel, rows = Dasha(), torch.tensor([[2.0, 3.0]])
        >>> channel.send(channel.start(rows), rows, Link(1, seed=0, layout=Layout.flat(2)))[1]  # round 1: raw
        tensor([[2., 3.]])
    """

    compressor: Compressor = RandK()
    a: float | None = None
    batched = True

    def __post_init__(self) -> None:
        need_unbiased(self.compressor, "DASHA")
        good = self.a is None or 0 < self.a <= 1
        require(good, "Parameter `a` of dasha", "lie in (0, 1]", self.a)

    def start(self, rows: Tensor) -> DashaState:
        return DashaState(torch.zeros_like(rows), *empty_state(rows))

    def send(self, state: DashaState, values: Tensor, link: Link) -> tuple[Tensor, Tensor, DashaState]:
        difference = values if link.first else values - state.h - self._a(link) * (state.worker - state.h)
        messages = self.compress(difference, link)
        g = state.worker + messages
        return messages, g, state._replace(h=values, worker=g)

    def receive(self, state: DashaState, messages: Tensor, link: Link) -> tuple[Tensor, DashaState]:
        g = state.server + messages
        server, bad = keep_finite(g, state.server)
        return g, state._replace(server=server, faults=state.faults + bad)

    def compress(self, rows: Tensor, link: Link) -> Tensor:
        return rows if link.first else self.compressor(rows, link)

    def base(self, state: DashaState, like: Tensor, link: Link) -> Tensor:
        return state.server

    def overwrite_memory(self, state: DashaState, rows: Tensor, link: Link) -> DashaState:
        return state._replace(server=keep_finite(rows, state.server)[0])

    def report(self, state: DashaState) -> dict[str, float]:
        return malformed_count(state)

    def coder(self, link: Link) -> Compressor:
        return Identity() if link.first else self.compressor

    def _a(self, link: Link) -> float:
        omega = self.compressor.largest_omega(link.layout)
        return self.a if self.a is not None else 1 / (1 + 2 * (omega or 0.0))


@CHANNELS.register("error_feedback")
@dataclass(frozen=True)
class ErrorFeedback(Channel):
    """q_i = s_i + e_i, c_i = C(q_i), e_i <- q_i - c_i at the worker, and the server's row is c_i; e_i = 0
    first.

    Source: Karimireddy et al., arXiv:1901.09847; with scaled sign EF-Sto-SignSGD.

    Args:
        compressor: What is sent; contractive.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import ErrorFeedback, Link, TopK
        >>> channel, rows = ErrorFeedback(TopK(k=1)), torch.tensor([[2.0, 3.0]])
        >>> state, layout = channel.start(rows), Layout.flat(2)
        >>> for t in (1, 2):  # what was left out before is sent later
        ...     _, believed, state = channel.send(state, rows, Link(t, seed=0, layout=layout))
        >>> believed
        tensor([[4., 0.]])
    """

    compressor: Compressor = ScaledSign()
    batched = True

    def __post_init__(self) -> None:
        need_contractive(self.compressor, "error feedback")

    def check(self, layout: Layout, liars: bool) -> None:
        need_contractive(self.compressor, "error feedback", layout)

    def start(self, rows: Tensor) -> Tensor:
        return torch.zeros_like(rows)

    def send(self, state: Tensor, values: Tensor, link: Link) -> tuple[Tensor, Tensor, Tensor]:
        q = values + state
        messages = self.compressor(q, link)
        return messages, messages, q - messages

    def receive(self, state: Tensor, messages: Tensor, link: Link) -> tuple[Tensor, Tensor]:
        return messages, state

    def compress(self, rows: Tensor, link: Link) -> Tensor:
        return self.compressor(rows, link)

    def coder(self, link: Link) -> Compressor:
        return self.compressor
