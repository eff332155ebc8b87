"""A bucket of gradients on its way between ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.futures import Future

from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.transfer import Transfer


@dataclass
class Bucket:
    """A bucket on its way: DDP's `[d]`, the same as it travels, this rank's columns `[n, b]` of all ranks',
    the place of the first, what DDP waits for, and what brings the columns."""

    whole: Tensor
    sent: Tensor
    block: Tensor
    first: int
    told: Future[Tensor]
    arrival: Transfer | None = None

    def parts(self, comm: Communicator) -> list[Tensor]:
        """Every rank's columns: what is sent first, and where answers come afterwards."""
        return [self.sent[start:stop] for start, stop in comm.columns(len(self.sent))]


def is_unanswered(buckets: Sequence[Bucket], comm: Communicator) -> bool:
    """Whether a rank may have met an error when it answered: its last number is NaN, or it has none that
    would show it. The same on all ranks."""
    last: dict[int, Tensor] = {}
    for bucket in reversed(buckets):
        for rank, piece in enumerate(bucket.parts(comm)):
            if len(piece):
                last.setdefault(rank, piece[-1])
        if len(last) == comm.n:
            return bool(torch.stack(list(last.values())).isnan().any())
    return True
