"""What a mixer is: from what all honest nodes hear to where they stand after it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.errors import TooManyFaults
from byzopt.graphs import Network
from byzopt.registry import Registry

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Hearing:
    """One exchange on a graph of H honest nodes and B liars; there may be leading dimensions of many runs.

    `rows` `[..., H, d]` are what honest nodes tell all their neighbours, and where they stand. `lies` are
    `[..., B, d]`, the same to everybody, or with `per_receiver` `[..., B, H, d]`. Columns of all matrices
    over senders are the honest nodes and then the liars, each in the order of the cohort.

    Args:
        network: Who hears whom.
        b: How many Byzantine neighbours each node tolerates.
        rows: What honest nodes say, `[..., H, d]`.
        lies: What Byzantine nodes say, `[..., B, d]` or `[..., B, H, d]`.
        per_receiver: Whether liars tell each receiver something of its own.
        rule: The run's rule, for mixers that use one.
        losses: The honest nodes' losses at a point `[d]`, in order, for mixers that judge by them.
        sound: Whether all messages are taken to be finite.
        store: What has been worked out of the honest rows and the network.

    Examples:
        >>> import torch
        >>> from byzopt import Cohort
        >>> from byzopt.graphs import Network, Ring
        >>> from byzopt.mixers import Hearing
        >>> rows = torch.eye(4, dtype=torch.float64)
        >>> Hearing(Network.of(Ring(), Cohort.of(4)), 0, rows, rows.new_zeros(0, 4)).heard.sum().item()
        8
    """

    network: Network
    b: int
    rows: Tensor
    lies: Tensor
    per_receiver: bool = False
    rule: BaseAggregator | None = None
    losses: Callable[[Tensor], Sequence[float]] | None = None
    sound: bool = False
    store: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def telling(self, lies: Tensor) -> Hearing:
        """The same exchange with other lies of the same shape; what follows from the honest rows alone is
        worked out once for all of them."""
        return replace(self, lies=lies)

    def kept(self, name: str, make: Callable[[], Kept]) -> Kept:
        """What `make` gives, which depends on the honest rows and the network alone: made once."""
        if name not in self.store:
            self.store[name] = make()
        found: Kept = self.store[name]
        return found

    @property
    def sizes(self) -> tuple[int, int]:
        """H and B."""
        return self.rows.shape[-2], self.lies.shape[-3 if self.per_receiver else -2]

    @property
    def names(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Which workers receive, and which send, in order."""
        cohort = self.network.cohort
        return cohort.honest, (*cohort.honest, *cohort.byzantine)

    @property
    def edges(self) -> Tensor:
        """w_ij of honest receivers and all senders `[H, H + B]`, float64 on the rows' device."""
        return self.kept("edges", self._edges)

    def _edges(self) -> Tensor:
        receivers, senders = (torch.tensor(names, device="cpu") for names in self.names)
        weights = self.network.weights[receivers[:, None], senders]
        return weights.to(self.rows.device)

    @cached_property
    def arrived(self) -> Tensor:
        """Which messages are finite, `[..., H, H + B]`; True where there is no edge."""
        h, b = self.sizes
        if self.sound:
            return torch.ones(*self.rows.shape[:-2], h, h + b, dtype=torch.bool, device=self.rows.device)
        rows = self.kept("finite", lambda: finite_rows(self.rows))
        rows = rows.unsqueeze(-2).expand(*rows.shape[:-1], h, h)
        lies = finite_rows(self.told)
        lies = lies.expand(*self.lies.shape[:-1])
        lies = (
            lies.mT if self.per_receiver else lies.unsqueeze(-2).expand(*lies.shape[:-1], h, lies.shape[-1])
        )
        return torch.cat([rows, lies], dim=-1) | (self.edges == 0)

    @property
    def told(self) -> Tensor:
        """The lies; where all liars tell a receiver the same (one row, expanded) it is looked at once."""
        same = self.per_receiver and self.lies.shape[-3] > 1 and self.lies.stride(-3) == 0
        return self.lies[..., :1, :, :] if same else self.lies

    @property
    def heard(self) -> Tensor:
        """Who is heard, `[..., H, H + B]`: neighbours whose message has arrived and is finite."""
        return self.arrived & (self.edges > 0)

    @cached_property
    def missing(self) -> Tensor:
        """How many neighbours of each node said nothing that is finite, `[..., H]`.

        Errors: `TooManyFaults` where these are more than b, which names the senders.
        """
        lost = ~self.arrived
        count = lost.sum(dim=-1)
        if (count > self.b).any():
            (receivers, order), at = self.names, (count > self.b).nonzero()[0]
            who = tuple(sorted(order[j] for j in lost[tuple(at)].nonzero().flatten().tolist()))
            raise TooManyFaults(
                f"Each node's neighbours should send finite rows but for b = {self.b} of them. Found NaN or "
                f"Inf from {list(who)} at node {receivers[int(at[-1])]}. Raise f, or leave them out.",
                who,
            )
        return count

    @cached_property
    def tolerance(self) -> Tensor:
        """The weight of as many of each node's heaviest edges as it tolerates, `[..., H]`: b - k of those
        that are left where k neighbours are missing. With unit weights that number itself."""
        left = self.b - self.missing
        if self.network.weighting == "unit":
            return torch.minimum(left, self.heard.sum(dim=-1)).double()
        weights = torch.where(self.heard, self.edges, 0.0).sort(dim=-1, descending=True).values
        places = torch.arange(weights.shape[-1], device=weights.device)
        return torch.where(places < left.unsqueeze(-1), weights, 0.0).sum(dim=-1)


def finite_rows(rows: Tensor) -> Tensor:
    """Which rows `[..., d]` hold finite numbers alone, `[...]`. A sum of what is not finite is not finite:
    only where a sum is not, numbers are looked at one by one."""
    sums = rows.sum(dim=-1).isfinite()
    return sums if sums.all() else rows.isfinite().all(dim=-1)


class Mixer(ABC):
    """A recipe that moves all honest nodes at once, by what they hear.

    `rho`: ρ of its robust summand (`theory.gossip`), None where none is known. `uses_rule`: whether it
    applies the run's rule; the others are rules themselves. `judges`: whether it evaluates losses.

    Examples:
        >>> from byzopt.mixers import MIXERS, Mixer
        >>> isinstance(MIXERS.build("cs+"), Mixer)
        True
    """

    name: ClassVar[str]
    rho: ClassVar[float | None] = None
    uses_rule: ClassVar[bool] = False
    judges: ClassVar[bool] = False

    @abstractmethod
    def mix(self, hearing: Hearing) -> Tensor:
        """Where the honest nodes stand after the exchange, `[..., H, d]`.

        Errors: `TooManyFaults` where a node has more neighbours without a finite row than it tolerates.
        """

    def check(self, network: Network, b: int, rule: BaseAggregator) -> None:
        """Raise `InvalidInput` where it cannot work on this network. Default: it works on all."""
        return

    def step(self, network: Network) -> float:
        """α: how far nodes move along the sum of differences. Default: 1."""
        return 1.0


MIXERS: Registry[Mixer] = Registry("mixer", Mixer)
