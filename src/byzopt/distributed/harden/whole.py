"""Collectives of a rank that holds all rows whole already: nothing is sent."""

from __future__ import annotations

import torch
from torch import Tensor

from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.round import CODES


class Alone(Communicator):
    """The collectives of one rank."""

    def __init__(self, n: int = 1) -> None:  # no process group behind it
        self.rank, self.n, self.sent = 0, n, 0
        self.device = torch.device("cpu")

    def all_reduce(self, partial: Tensor) -> Tensor:
        return partial

    def all_gather(self, local: Tensor) -> Tensor:
        return local.unsqueeze(0)


class WholeRows(Alone):
    """The collectives of one round over n rows that every rank holds whole. `rounds` and `sizes` `[n]` are
    what has been told of each row: its rank's round, and its largest magnitude."""

    def __init__(self, rounds: Tensor, sizes: Tensor) -> None:
        super().__init__(len(sizes))
        self.rounds, self.sizes = rounds, sizes

    @property
    def everyone(self) -> Communicator:
        """Nobody else waits for this rank once rows are here: an error is its own."""
        return Alone()

    def columns(self, d: int) -> list[tuple[int, int]]:
        """All columns are here."""
        return [(0, d)]

    def tell(self, codes: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        told = codes.repeat(self.n, 1)
        told[:, CODES.index("t")], told[:, CODES.index("size")] = self.rounds, self.sizes
        return told, sums
