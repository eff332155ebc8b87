"""Who takes part: node ids in ascending order, fixed at the first round. Row i is node i of that order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from logging import getLogger
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from flwr.app import Message

from byzopt.errors import ByzoptError, require
from byzopt.flower.untrusted import BadReply
from byzopt.rng import stream

LOG = getLogger("flwr")
SUPERLINK = 1  # the node id under which the SuperLink itself answers
Faults: TypeAlias = "dict[int, str]"  # node id -> reason
T = TypeVar("T")


def wait_for_nodes(grid: Any, n: int | None, least: int, patience: float) -> tuple[int, ...]:
    """The node ids that are there, once they are `n` (None: at least `least`, what the settings need).

    Errors: `ByzoptError` when too few come within `patience` seconds; `InvalidInput` when more than n came.
    """
    end = time.monotonic() + patience
    while len(nodes := sorted(set(grid.get_node_ids()))) < (n or least):
        if time.monotonic() >= end:
            raise ByzoptError(
                f"Nodes should be {n or f'at least {least}, for this rule, f and fraction,'} within "
                f"{patience:g} s. Found {len(nodes)}. "
                "Start more SuperNodes, or give the strategy more `patience`."
            )
        time.sleep(0.5)
    remedy = "Turn on node authentication, so that nobody can enter who was not let in, or set another n."
    require(n is None or len(nodes) == n, "Nodes", f"be n = {n}", len(nodes), remedy)
    return tuple(nodes)


def sample_rows(n: int, k: int, seed: int, t: int, purpose: str = "sample") -> tuple[int, ...]:
    """The rows of round t: k of n, in ascending order, drawn from the seed, the round and the purpose."""
    if k == n:
        return tuple(range(n))
    drawn = torch.randperm(n, generator=stream(seed, "flower", purpose, t), device="cpu")[:k]
    return tuple(sorted(drawn.tolist()))


class RoundRequests(NamedTuple):
    """Round `t`: whose replies are due (node ids, one for each row), and the messages that were sent."""

    t: int
    nodes: tuple[int, ...]
    messages: Sequence[Message]

    def sender(self, reply: Message) -> int:
        """The node to which a reply is due: the one that was asked by the message that it answers.

        Errors: `BadReply` for a reply to no message of this round, or under another node's name.
        """
        source, answered = int(reply.metadata.src_node_id), reply.metadata.reply_to_message_id
        ids: dict[str, int] = {m.metadata.message_id: m.metadata.dst_node_id for m in self.messages}
        ids.pop("", None)  # a grid that gives no ids
        node = ids.get(answered) if ids else source
        if node is None or node not in self.nodes:
            raise BadReply("answers no message of this round")
        if source not in (node, SUPERLINK):
            raise BadReply(f"answers for node {node}")
        return node

    def by_node(self, replies: Iterable[Message]) -> tuple[dict[int, Message], Faults]:
        """The one reply of each node that gave one; for each other node, and each intruder, what is wrong.

        A reply that answers no message of this round is held against the node under whose name it came only
        where that node has no reply of its own: else anyone could shut it out.
        """
        accepted: dict[int, Message] = {}
        faults: Faults = {}
        strays: Faults = {}
        for reply in replies:
            try:
                node = self.sender(reply)
                if node in accepted:
                    faults[node] = "more than one reply"
                accepted[node] = reply
            except BadReply as error:
                strays[int(reply.metadata.src_node_id)] = str(error)
        asked = {message.metadata.dst_node_id for message in self.messages}
        missing = {node: "no reply in time" if node in asked else "not connected" for node in self.nodes}
        absent = {node: why for node, why in (missing | strays).items() if node not in accepted}
        return accepted, faults | absent

    def decode(
        self, replies: Iterable[Message], decoder: Callable[[Message], T]
    ) -> tuple[dict[int, T], Faults]:
        """What each node said, as the decoder reads it, in the order of `nodes`; and who is faulty."""
        accepted, faults = self.by_node(replies)
        decoded: dict[int, T] = {}
        for node in self.nodes:
            if node in accepted and node not in faults:
                try:
                    decoded[node] = decoder(accepted[node])
                except BadReply as error:
                    faults[node] = str(error)
        return decoded, faults
