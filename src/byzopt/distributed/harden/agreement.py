"""What goes wrong on one rank while others wait for it: kept until all can hear of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import torch

from byzopt.distributed.agreement import share_error
from byzopt.distributed.communicator import Communicator
from byzopt.errors import require


class Trouble:
    """The first error that this rank has met since the last agreement, if any."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Errors raised inside are kept for the agreement, so that what others wait for is still sent."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error

    def shared(self, comm: Communicator) -> None:
        """A collective that raises on all ranks if any has met an error."""
        share_error(comm, self._again)

    def _again(self) -> None:
        if self.error is not None:
            raise self.error


def require_same(comm: Communicator, text: str, what: str, remedy: str) -> None:
    """A collective that raises `InvalidInput` on all ranks unless all have the same `text`."""
    digest = sha256(text.encode()).digest()
    told = comm.all_gather(torch.frombuffer(bytearray(digest), dtype=torch.uint8)).cpu().tolist()
    usual = max(told, key=told.count)
    odd = [rank for rank, each in enumerate(told) if each != usual]
    require(not odd, "Ranks", f"be alike in {what}", f"ranks {odd} that differ from the others", remedy)
