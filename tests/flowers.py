"""How tests play Flower in one process: a grid that hands messages to ClientApps and shuffles the replies."""

from __future__ import annotations

import random
from collections.abc import Callable

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

Reply = Callable[[Message, Message], "list[Message]"]  # (asked, answer) -> what arrives


def crash(asked, answer):
    """The ClientApp raises; its SuperNode says so."""
    return [Message(Error(2, "ZeroDivisionError"), reply_to=asked)]


def silent(asked, answer):
    """Nothing arrives in time."""
    return []


class PlayGrid(Grid):
    """Nodes with ids far apart, each with its Context and a ClientApp; `ways` change what some answer."""

    def __init__(
        self, app, n: int, ways: dict[int, Reply] | None = None, seed: int = 0, run_config: dict | None = None
    ) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.random = random.Random(seed)
        self.app, self.ways = app, ways or {}
        self.nodes = sorted(self.random.sample(range(2, 2**63), n))
        self.contexts = [
            Context(1, node, {"partition-id": i, "num-partitions": n}, RecordDict(), run_config or {})
            for i, node in enumerate(self.nodes)
        ]
        self.gone: set[int] = set()
        self.sent = 0

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, *args, **kwargs):
        raise NotImplementedError

    def get_node_ids(self):
        ids = [node for i, node in enumerate(self.nodes) if i not in self.gone]
        self.random.shuffle(ids)
        return ids

    def push_messages(self, messages):
        raise NotImplementedError

    def pull_messages(self, message_ids):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for message in messages:
            self.sent += 1
            message.metadata.__dict__["_message_id"] = f"message {self.sent}"
            i = self.nodes.index(message.metadata.dst_node_id)
            answer = self._answered(message, i)
            replies += self.ways[i](message, answer) if i in self.ways else [answer]
        self.random.shuffle(replies)
        return replies

    def _answered(self, message, i):
        """What a SuperNode makes of its ClientApp: an error where that raises."""
        try:
            return self.app(message, self.contexts[i])
        except Exception as error:
            return Message(Error(2, repr(error)), reply_to=message)
