"""Who takes part: node ids in ascending order, fixed at the first round. Row i is node i of that order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from flwr.app import Message

from byzopt.errors import ByzoptError, require
from byzopt.flower.replies import Refused
from byzopt.rng import stream

SUPERLINK = 1  # the node id under which the SuperLink itself answers


def gathered(grid: Any, n: int | None, least: int, patience: float) -> tuple[int, ...]:
    """The node ids that are there, once they are `n` (None: at least `least`).

    Errors: `ByzoptError` when too few come within `patience` seconds; `InvalidInput` when more than n came.
    """
    end = time.monotonic() + patience
    while len(nodes := sorted(set(grid.get_node_ids()))) < (n or least):
        if time.monotonic() >= end:
            raise ByzoptError(
                f"Nodes should be {n or f'at least {least}'} within {patience:g} s. Found {len(nodes)}. "
                "Start more SuperNodes, or give the strategy more `patience`."
            )
        time.sleep(0.5)
    remedy = "Turn on node authentication, so that nobody can enter who was not let in, or set another n."
    require(n is None or len(nodes) == n, "Nodes", f"be n = {n}", len(nodes), remedy)
    return tuple(nodes)


def sampled(n: int, k: int, seed: int, t: int) -> tuple[int, ...]:
    """The rows of round t: k of n, in ascending order, drawn from the seed and the round."""
    if k == n:
        return tuple(range(n))
    drawn = torch.randperm(n, generator=stream(seed, "flower", "sample", t), device="cpu")[:k]
    return tuple(sorted(drawn.tolist()))


class Turn(NamedTuple):
    """Round `t`: who was asked (node ids, one for each row), and by what messages."""

    t: int
    nodes: tuple[int, ...]
    messages: Sequence[Message]

    def sender(self, reply: Message) -> int:
        """The node to which a reply is due: the one that was asked by the message that it answers.

        Errors: `Refused` for a reply to no message of this round, or under another node's name.
        """
        source, back = int(reply.metadata.src_node_id), reply.metadata.reply_to_message_id
        ids: dict[str, int] = {m.metadata.message_id: m.metadata.dst_node_id for m in self.messages}
        ids.pop("", None)  # a grid that gives no ids
        node = ids.get(back) if ids else source
        if node is None or node not in self.nodes:
            raise Refused("answers no message of this round")
        if source not in (node, SUPERLINK):
            raise Refused(f"answers for node {node}")
        return node

    def sorted(self, replies: Iterable[Message]) -> tuple[dict[int, Message], dict[int, str]]:
        """The one reply of each node that gave one; for each other node, and each intruder, what is wrong.

        A reply that answers no message of this round is held against the node under whose name it came only
        where that node has no reply of its own: else anyone could shut it out.
        """
        found: dict[int, Message] = {}
        faults: dict[int, str] = {}
        strays: dict[int, str] = {}
        for reply in replies:
            try:
                node = self.sender(reply)
                if node in found:
                    faults[node] = "more than one reply"
                found[node] = reply
            except Refused as error:
                strays[int(reply.metadata.src_node_id)] = str(error)
        asked = {message.metadata.dst_node_id for message in self.messages}
        missing = {node: "no reply in time" if node in asked else "not connected" for node in self.nodes}
        odd = {node: why for node, why in (missing | strays).items() if node not in found}
        return found, faults | odd
