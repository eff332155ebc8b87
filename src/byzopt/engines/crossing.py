"""A round on the wire, with the adversary at the place where it acts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from byzopt.attacks import Adversary


class RoundChannel(Protocol):
    """A channel in one round, with its state inside; or those of several runs, rows `[R, n, d]`."""

    def send(self, said: Tensor) -> tuple[Tensor, Tensor]: ...

    def receive(self, sent: Tensor) -> Tensor: ...

    def squeeze(self, rows: Tensor) -> Tensor: ...

    def base(self, like: Tensor) -> Tensor: ...

    def adopt(self, rows: Tensor) -> None: ...


def transmit(
    wire: RoundChannel,
    said: Tensor,
    adversary: Adversary,
    liars: Tensor | None,
    speak: Callable[[Tensor], Tensor],
) -> Tensor:
    """What workers want to say, `[n, d]`, to the rows as the server believes them.

    `liars` is the mask `[n, 1]` of Byzantine workers, None where there is none. `speak` puts the attack's
    rows in their places, wherever `adversary.placement` has it act. Only those rows are ever touched. A
    message that can cross as it is is not compressed twice, which not every compressor would leave alone.
    """
    sent, meant = wire.send(said)
    if liars is None:
        return wire.receive(sent)
    if adversary.base == "last_honest":
        before = wire.base(sent)
        # One cohort for all runs: the batch is made of such.
        honest = before[..., adversary.cohort.honest[-1], None, :]
        wire.adopt(torch.where(liars, honest, before))
    if adversary.placement == "message":
        spoken = speak(sent)
        kept = (spoken.abs() == sent.abs()).all(dim=-1, keepdim=True)  # a message, or the negative of one
        sent = torch.where(liars, torch.where(kept, spoken, wire.squeeze(spoken)), sent)
    elif adversary.placement == "state":
        spoken = speak(meant)
        kept = (spoken == meant).all(dim=-1, keepdim=True)  # who keeps the protocol sends its message
        forged = torch.where(kept, sent, wire.squeeze(spoken - wire.base(sent)))
        sent = torch.where(liars, forged, sent)
    rows = wire.receive(sent)
    if adversary.placement == "free":
        spoken = speak(meant)
        rows = spoken if rows is meant else torch.where(liars, spoken, rows)
        wire.adopt(rows)
    return rows
