"""Work beside backward: sending, waiting and adding up, in one thread and in order."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch


class Background:
    """Runs what it is given one after the other, in a thread of its own, or at once where not `threaded`.

    gloo writes to sockets in the thread that sends, and waits for those that read them: backward goes on
    meanwhile. On a GPU nothing blocks, and work belongs to the stream of the thread that asks for it.
    """

    def __init__(self, threaded: bool) -> None:
        self._pool = ThreadPoolExecutor(1, "harden") if threaded else None
        self._pending: list[Future[None]] = []

    def do(self, work: Callable[[], None]) -> None:
        """Run `work` when all before it is done. Without a thread its errors are raised here."""
        if self._pool is None:
            work()
        else:
            self._pending.append(self._pool.submit(self._quietly, work))

    def finish(self) -> None:
        """Wait for everything. Errors: the first that anything raised; what came after it was not run."""
        pending, self._pending = self._pending, []
        errors = [each.exception() for each in pending]
        for error in errors:
            if error is not None:
                raise error

    def _quietly(self, work: Callable[[], None]) -> None:
        if any(each.done() and each.exception() is not None for each in self._pending):
            return
        with torch.no_grad():
            work()
