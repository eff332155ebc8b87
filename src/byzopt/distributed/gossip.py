"""Gossip over a process group: a rank is a node, and speaks with its neighbours only.

Without a deadline rows cross by `batch_isend_irecv`: deg · d numbers a rank and round, in its own dtype. A
neighbour that is gone or silent then holds up those beside it, as in any collective.

With a deadline they cross by authenticated connections of their own, and no two ranks wait for a third: a
neighbour that is dead, stopped, late or malformed is a missing row to those beside it, counted against b, in
that round. gloo cannot do that: a receive that times out there closes all connections of the group.
"""

from __future__ import annotations

from threading import Condition
from time import monotonic
from typing import Any
from warnings import warn

import torch
import torch.distributed as dist
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.deadline.network import ROW, Message
from byzopt.distributed.deadline.network import Network as Links
from byzopt.distributed.deadline.transport import check_seconds
from byzopt.errors import require
from byzopt.graphs import Network
from byzopt.mixers import Mixer
from byzopt.mixers.local import check_alone, mix_one

_AHEAD = 8  # rounds of a faster neighbour that are kept, and beyond them its last one


class GossipNode:
    """This rank as a node of a graph: `mix(row)` sends its row to its neighbours and mixes in theirs.

    With a deadline a node that was away for so long that its neighbours have dropped its rounds goes on in
    theirs, with a warning: `t` counts the rounds, and scripts loop over it.

    Rank i is node i. What ranks compute is to the bit what a simulation with `together = False` does. A
    network without a cohort's liars gives α = 1/μ_max of the whole graph, which is never too large; give the
    mixer an `alpha` for another.

    Args:
        network: Who hears whom; the same on all ranks.
        mixer: What nodes make of what they hear: one that needs rows alone.
        b: How many faulty neighbours each node tolerates.
        rule: The rule of mixer "screen".
        deadline: Seconds after which a neighbour is missing from a round, > 0; None: they are waited for.
        group: Process group of the ranks; None: all.

    Raises:
        InvalidInput: Another number of ranks than nodes, a mixer that needs more than rows, and a rule that
            cannot work on a neighbourhood.

    Examples:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from byzopt import Cohort
        >>> from byzopt.distributed import GossipNode
        >>> from byzopt.graphs import Complete, Network
        >>> from byzopt.mixers import Gossip
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # torchrun has more
        >>> node = GossipNode(Network.of(Complete(), Cohort.of(1)), Gossip(), b=0)
        >>> node.mix(torch.ones(2))
        tensor([1., 1.])
        >>> node.close()
        >>> dist.destroy_process_group()
    """

    def __init__(
        self,
        network: Network,
        mixer: Mixer,
        b: int,
        rule: BaseAggregator | None = None,
        deadline: float | None = None,
        group: Any = None,
    ) -> None:
        check_alone(mixer)
        if deadline is not None:
            check_seconds(deadline)
        self.comm, self.network, self.mixer, self.b, self.rule = Communicator(group), network, mixer, b, rule
        self.group, self.deadline, self.rank = group, deadline, self.comm.rank
        require(self.comm.n == network.n, "Ranks on a graph", f"be its n = {network.n} nodes", self.comm.n)
        ruled = rule is not None or not mixer.uses_rule
        require(ruled, f"Mixer {mixer.name!r}", "be given a rule", "none")
        if rule is not None and mixer.uses_rule:
            mixer.check(network, b, rule)
        self.neighbours = network.neighbours(self.rank)
        self.t = 0
        self.missing: dict[int, str] = {}
        self._change, self._lost = Condition(), set[int]()
        self._rows: dict[tuple[int, int], Any] = {}
        self._latest = dict.fromkeys(self.neighbours, 0)  # the round of each one's last row
        self._links = Links(self.comm, self._heard, self._gone) if deadline is not None else None

    def mix(self, row: Tensor) -> Tensor:
        """One exchange: where this node stands after it, `[d]`, of the dtype and device of `row` `[d]`.

        `missing` then says which neighbours sent nothing usable, and why.

        Errors: `TooManyFaults` where these are more than b; the others go on without this rank.
        """
        require(row.ndim == 1, "A node's row", "be a vector [d]", f"shape {list(row.shape)}")
        self._keep_step()
        self.t += 1
        own = row.detach().cpu().contiguous()
        heard = self._exchanged(own) if self._links is None else self._exchanged_in_time(own)
        rule = self.rule.at(self.t) if self.rule is not None else None
        mixed = mix_one(self.mixer, self.network, self.rank, self.b, own, heard, rule)
        return mixed.to(row.device)

    def tell(self, rows: dict[int, Tensor]) -> None:
        """Send each neighbour a row of its own and take in nothing: what a liar does. For tests and demos."""
        self.t += 1
        if self._links is not None:
            for rank in self.neighbours:
                self._links.send(rank, Message(ROW, self.t, payload=_packed(rows[rank])))
            return
        sink = torch.empty_like(next(iter(rows.values())))
        works = [dist.P2POp(dist.isend, rows[rank], rank, self.group) for rank in self.neighbours]
        works += [dist.P2POp(dist.irecv, sink.clone(), rank, self.group) for rank in self.neighbours]
        for work in dist.batch_isend_irecv(works) if works else ():
            work.wait()

    def close(self) -> None:
        """Say goodbye: what is on its way still leaves, within the deadline."""
        if self._links is not None and self.deadline is not None:
            self._links.close(self.deadline)

    def _exchanged(self, own: Tensor) -> Tensor:
        heard = own.new_empty(len(self.neighbours), len(own))
        works = [dist.P2POp(dist.isend, own, rank, self.group) for rank in self.neighbours]
        works += [
            dist.P2POp(dist.irecv, heard[k], rank, self.group) for k, rank in enumerate(self.neighbours)
        ]
        for work in dist.batch_isend_irecv(works) if works else ():
            work.wait()
        self.missing = {
            rank: "Its row is not finite."
            for rank, row in zip(self.neighbours, heard, strict=True)
            if not row.isfinite().all()
        }
        return heard

    def _exchanged_in_time(self, own: Tensor) -> Tensor:
        assert self._links is not None
        assert self.deadline is not None
        payload, end = _packed(own), monotonic() + self.deadline
        for rank in self.neighbours:
            self._links.send(rank, Message(ROW, self.t, payload=payload))
        with self._change:
            while self._awaited() and (left := end - monotonic()) > 0:
                self._change.wait(left)
            got = {rank: self._rows.get((rank, self.t)) for rank in self.neighbours}
            for key in [key for key in self._rows if key[1] <= self.t]:
                del self._rows[key]
        self.missing = {}
        heard = torch.full((len(self.neighbours), len(own)), torch.nan, dtype=own.dtype, device="cpu")
        for k, rank in enumerate(self.neighbours):
            found = got[rank]
            if found is None:
                gone = rank in self._lost
                why = "It is gone." if gone else f"It was not heard within {self.deadline:g} s."
                self.missing[rank] = why
            elif len(found) != len(payload):
                self.missing[rank] = f"It sent {len(found)} bytes in place of {len(payload)}."
            else:
                heard[k] = torch.frombuffer(found, dtype=torch.uint8).view(own.dtype)
                if not heard[k].isfinite().all():
                    self.missing[rank] = "Its row is not finite."
        return heard

    def _keep_step(self) -> None:
        """Go on behind the round that more than b neighbours, and so an honest one, have begun, where rows
        on the way there are not kept any more."""
        with self._change:
            begun = sorted(self._latest.values(), reverse=True)[self.b : self.b + 1]
            before, last = self.t, max(begun, default=0)
            if last <= before + _AHEAD:
                return
            self.t = last
        warn(
            f"Node {self.rank} was away after round {before}: it goes on in round {last + 1}, from where it "
            "is, without what its neighbours have told in between.",
            stacklevel=3,
        )

    def _awaited(self) -> bool:
        return any((rank, self.t) not in self._rows and rank not in self._lost for rank in self.neighbours)

    def _heard(self, rank: int, message: Message) -> None:
        with self._change:
            if message.kind != ROW or rank not in self._latest or message.serial < self.t:
                return
            self._latest[rank] = max(self._latest[rank], message.serial)
            for key in [key for key in self._rows if key[0] == rank and key[1] > self.t + _AHEAD]:
                del self._rows[key]
            self._rows.setdefault((rank, message.serial), message.payload)
            self._change.notify_all()

    def _gone(self, rank: int) -> None:
        with self._change:
            self._lost.add(rank)
            self._change.notify_all()


def _packed(row: Tensor) -> bytes:
    """A row's bytes, in the order of this machine."""
    return row.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
