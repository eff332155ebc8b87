"""A round on the wire, with the adversary at the place where it acts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from byzopt.attacks import Adversary


class RoundChannel(Protocol):
    """A channel in one round, with its state inside; or those of several runs, rows `[R, n, d]`."""

    def send(self, vectors: Tensor) -> tuple[Tensor, Tensor]: ...

    def receive(self, messages: Tensor) -> Tensor: ...

    def compress(self, rows: Tensor) -> Tensor: ...

    def base(self, like: Tensor) -> Tensor: ...

    def overwrite_memory(self, rows: Tensor) -> None: ...


def transmit(
    channel: RoundChannel,
    vectors: Tensor,
    adversary: Adversary,
    byzantine: Tensor | None,
    forge: Callable[[Tensor], Tensor],
) -> Tensor:
    """The workers' `vectors` `[n, d]`, sent and received: the rows `[n, d]` that the server believes in.

    `byzantine` is the mask `[n, 1]` of Byzantine workers, None where there are none. `forge` puts the
    attack's rows in their places, wherever `adversary.placement` has it act; no other rows are touched. A
    message that can cross unchanged is not compressed twice, which not every compressor would leave alone.
    """
    messages, targets = channel.send(vectors)
    if byzantine is None:
        return channel.receive(messages)
    if adversary.base == "last_honest":
        before = channel.base(messages)
        # One cohort for all runs: the batch is made of such.
        honest = before[..., adversary.cohort.honest[-1], None, :]
        channel.overwrite_memory(torch.where(byzantine, honest, before))
    if adversary.placement == "message":
        forged = forge(messages)
        # A message of the protocol, or the negative of one, crosses as it is.
        crosses = (forged.abs() == messages.abs()).all(dim=-1, keepdim=True)
        forged = torch.where(crosses, forged, channel.compress(forged))
        messages = torch.where(byzantine, forged, messages)
    elif adversary.placement == "state":
        forged = forge(targets)
        kept = (forged == targets).all(dim=-1, keepdim=True)  # who keeps the protocol sends its message
        forged = torch.where(kept, messages, channel.compress(forged - channel.base(messages)))
        messages = torch.where(byzantine, forged, messages)
    rows = channel.receive(messages)
    if adversary.placement == "free":
        forged = forge(targets)
        rows = forged if rows is targets else torch.where(byzantine, forged, rows)
        channel.overwrite_memory(rows)
    return rows
