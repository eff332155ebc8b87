"""Compressed messages between ranks: bytes of a layout that both ends know, read without trust."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.errors import BadMessage
from byzopt.layout import Layout
from byzopt.rng import seed_of
from byzopt.wire import Channel, Compressor, Direct, Draw, Identity
from byzopt.wire import Link as WireLink
from byzopt.wire.messages import check_layout, decode_message, encode_message, message_bytes


class CompressedMessages:
    """One round over a channel: this rank's message as bytes, and everybody's bytes as rows.

    `payload` (uint8) is nothing but what the compressor emits, `messages.message_bytes`; floats have 64 bits
    for float64 rows, else 32, so that the receiver gets the sender's numbers to the last bit. `memory` is
    what a receiver remembers of all n workers; `read` replaces it. `link.only` tells this rank's place.
    """

    def __init__(self, channel: Channel, link: WireLink, sent: Tensor, memory: Any) -> None:
        self.channel, self.link, self.memory, self.like = channel, link, memory, sent
        self.coder, self.width = channel.coder(link), 64 if sent.dtype == torch.float64 else 32
        if bool(sent.isfinite().all()):
            data = encode_message(self.coder, sent[0], link.layout, self.width, self._draw())
        else:  # not every layout can say so; the header does, and nobody reads the message
            data = bytes(message_bytes(self.coder, link.layout, self.width))
        self.payload = torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())

    def read(self, payloads: Tensor, malformed: dict[int, str]) -> Tensor:
        """Rows `[n, d]` as the channel's receiver believes them, from all ranks' bytes `[n, length]`.

        A message that is malformed is its sender's fault: what is remembered of it stays, and its row is NaN
        this round, which rules drop and count against f. The reasons are added to `malformed`, by rank;
        messages of ranks that are in it already are not read.
        """
        sent = self.like.new_zeros(len(payloads), self.link.layout.d)
        for i, payload in enumerate(payloads.cpu()):
            try:
                sent[i] = torch.nan if i in malformed else self._decoded(i, payload)
            except BadMessage as error:
                sent[i], malformed[i] = torch.nan, str(error)
        rows, self.memory = self.channel.receive(self.memory, sent, self.link)
        return rows

    def _decoded(self, i: int, payload: Tensor) -> Tensor:
        data = payload.numpy().tobytes()
        row = decode_message(self.coder, data, self.link.layout, self.width, self._draw(i)).to(self.like)
        if not row.isfinite().all():
            raise BadMessage(f"A message should fit {self.like.dtype}. Found an overflow.")
        return row

    def _draw(self, i: int | None = None) -> Draw | None:
        """Worker i's seeded draw of this round (None: this rank's), where the compressor has one."""
        if not self.coder.shares_draw:
            return None
        assert self.link.only is not None
        assert isinstance(self.link.seed, int)
        rank, n = self.link.only
        link = self.link._replace(only=(rank if i is None else i, n))
        return Draw(seed_of(self.link.seed, "wire", "up", self.link.t), link.uniform(self.like)[0])


def check_sendable(channel: Channel, layout: Layout, seed: int, dtype: torch.dtype) -> None:
    """Raise `InvalidInput` unless every compressor of the channel can be sent as bytes and read again."""
    coders = [channel.coder(WireLink(t, seed, layout)) for t in (1, 2)]
    own = getattr(channel, "compressor", None)  # that of rounds which a coin picks, too
    for coder in dict.fromkeys([*coders, *([own] if isinstance(own, Compressor) else [])]):
        check_layout(coder, layout, dtype)


def is_plain(channel: Channel) -> bool:
    """Whether messages are the vectors themselves, which go as they are."""
    return isinstance(channel, Direct) and isinstance(channel.compressor, Identity)
