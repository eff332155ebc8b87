"""Clip21's channel: clipped differences with noise, and averages at both ends."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.errors import require
from byzopt.wire.base import CHANNELS, Channel, keep_finite
from byzopt.wire.link import Link


class Clip21State(NamedTuple):
    """g `[n, d]` without noise at the workers; m `[n, d]` with it, as workers know it and as the server does;
    how many malformed messages of each worker the server has seen, and how many differences of each worker
    were not finite, both `[n]`."""

    quiet: Tensor
    worker: Tensor
    server: Tensor
    faults: Tensor
    zeroed: Tensor


@CHANNELS.register("clip21")
@dataclass(frozen=True)
class Clip21Wire(Channel):
    """k = clip_C(v - g), the message is η (k + ω), g <- g + η k; the row is m <- m + η (k + ω).

    Noise is ω ~ N(0, (σ C)² I). Both begin at 0. g, without noise, never leaves the worker, so that clipping
    settles; a difference that is not finite, which no clipping bounds, counts as zeros. m is g plus η Σ ω, a
    walk whose standard deviation grows as η σ C √T in each coordinate. The ends agree on m to the last bit,
    since a worker knows its own noise; g is not what the server believes. Source: Clip21-SGD2M,
    arXiv:2502.11682, and Byz-Clip21-SGD2M, arXiv:2603.23472, in released third-party code.

    Args:
        eta: Weight η of a message, in (0, 1].
        clip: Length C to which differences are clipped; None: they are not.
        noise: σ, the noise's standard deviation over C.

    Raises:
        InvalidInput: Noise without clipping, and a length or noise that is not finite.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Clip21Wire, Link
        >>> channel, rows = Clip21Wire(eta=1.0, clip=1.0), torch.tensor([[3.0, 0.0]])
        >>> state, layout = channel.start(rows), Layout.flat(2)
        >>> for t in (1, 2, 3):
        ...     _, believed, state = channel.send(state, rows, Link(t, seed=0, layout=layout))
        >>> believed
        tensor([[3., 0.]])
    """

    eta: float = 0.1
    clip: float | None = 1.0
    noise: float = 0.0
    batched = True

    def __post_init__(self) -> None:
        require(0 < self.eta <= 1, "Parameter `eta` of clip21", "lie in (0, 1]", self.eta)
        sized = self.clip is None or 0 < self.clip < inf
        require(sized, "Parameter `clip`", "be positive and finite, or left out", self.clip)
        bounded = self.noise == 0 or (0 < self.noise < inf and self.clip is not None)
        require(bounded, "The noise of clip21", "be finite, at least 0, and 0 without a `clip`", self.noise)

    @property
    def noisy(self) -> bool:
        return self.noise > 0

    def start(self, rows: Tensor) -> Clip21State:
        zeros = torch.zeros_like(rows)
        faults = torch.zeros(rows.shape[:-1], dtype=torch.int64, device=rows.device)
        return Clip21State(zeros, zeros, zeros, faults, faults)

    def send(self, state: Clip21State, values: Tensor, link: Link) -> tuple[Tensor, Tensor, Clip21State]:
        k = values - state.quiet
        zeroed = state.zeroed
        if self.clip is not None:
            k, bad = linalg.clip_all(k, self.clip)
            zeroed = zeroed + bad
        noised = k + self.noise * self.clip * link.normal(k) if self.noise and self.clip else k
        messages = self.eta * noised
        m = state.worker + messages
        return messages, m, state._replace(quiet=state.quiet + self.eta * k, worker=m, zeroed=zeroed)

    def receive(self, state: Clip21State, messages: Tensor, link: Link) -> tuple[Tensor, Clip21State]:
        m = state.server + messages
        server, bad = keep_finite(m, state.server)
        return m, state._replace(server=server, faults=state.faults + bad)

    def compress(self, rows: Tensor, link: Link) -> Tensor:
        return rows

    def base(self, state: Clip21State, like: Tensor, link: Link) -> Tensor:
        return state.server

    def overwrite_memory(self, state: Clip21State, rows: Tensor, link: Link) -> Clip21State:
        return state._replace(server=keep_finite(rows, state.server)[0])

    def report(self, state: Clip21State) -> dict[str, float]:
        return {"malformed": float(state.faults.sum()), "zeroed_gradients": float(state.zeroed.sum())}
