"""Receiving reply by reply, so that one that cannot even be put together costs nobody but its sender."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from flwr.app import Error, Message
from flwr.serverapp import Grid

PAUSE = 0.2  # seconds between two looks for replies


class ReplyByReplyGrid:
    """Flower's own grid, with replies pulled one by one.

    Flower's `send_and_receive` pulls all pending replies in one call, and raises for all of them when one is
    malformed. It also sleeps three seconds between two looks.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        sent = list(messages)
        ids = list(self._grid.push_messages(sent)) if sent else []
        waiting = {id: message for id, message in zip(ids, sent, strict=False) if id}
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        replies: list[Message] = []
        while waiting:
            for id, message in list(waiting.items()):
                pulled = self._pull(id, message)
                replies += pulled
                if pulled:
                    del waiting[id]
            if not waiting or time.monotonic() >= end:
                break
            time.sleep(PAUSE)
        return replies

    def _pull(self, id: str, message: Message) -> list[Message]:
        try:
            return list(self._grid.pull_messages([id]))
        except Exception as error:
            if isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("httpx", "grpc"):
                raise  # no connection to the SuperLink: nobody's reply
            return [Message(Error(0, f"malformed: {error!r}"), reply_to=message)]


def reply_by_reply(grid: Any) -> Any:
    """`grid`, pulled one by one if it is Flower's own; a grid from elsewhere is left as it is."""
    from_flower = isinstance(grid, Grid) and type(grid).__module__.startswith("flwr.")
    return ReplyByReplyGrid(grid) if from_flower else grid
