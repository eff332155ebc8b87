"""Workers that are replicas of several ranks: collectives that also sum over the shards of a replica."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from byzopt.distributed.communicator import Communicator


class MeshCommunicator(Communicator):
    """The collectives of the ranks with this rank's shard, one of each replica.

    Sums are over the whole mesh: every rank brings the part of its own shard's columns. What ranks tell
    (`tell`) is first brought together within each replica, which is one worker and has one voice.
    """

    def __init__(self, replicas: Any, shards: Any) -> None:
        super().__init__(replicas)
        self.within, self._everyone = Communicator(shards), Communicator(None)

    @property
    def everyone(self) -> Communicator:
        return self._everyone

    def all_reduce(self, partial: Tensor) -> Tensor:
        return super().all_reduce(self.within.all_reduce(partial))

    def tell(self, codes: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        told = self.within.all_gather(torch.cat([codes, sums]))
        voice = torch.cat([told[:, : len(codes)].amax(dim=0), told[:, len(codes) :].sum(dim=0)])
        every = self.all_gather(voice).cpu()
        return every[:, : len(codes)], every[:, len(codes) :].sum(dim=0)
