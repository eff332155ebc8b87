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
        self.within = Communicator(shards)
        self._everyone = WholeMesh(replicas, self.within)

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


class WholeMesh(Communicator):
    """All ranks of the mesh, which need not be all that there are, in the order of the mesh: those of the
    first replica, and so on. It gathers, and nothing else."""

    def __init__(self, replicas: Any, within: Communicator) -> None:
        super().__init__(replicas)
        self._across, self._within = Communicator(replicas), within
        self.rank, self.n = self.rank * within.n + within.rank, self.n * within.n

    def all_gather(self, local: Tensor) -> Tensor:
        return self._across.all_gather(self._within.all_gather(local)).reshape(self.n, *local.shape)
