"""Who was expelled, when and why: the part of a guard's memory that people read."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# By code; the first that applies is told.
REASONS = ("", "not finite", "gradient", "sum B", "sum A", "prediction")


class Expulsion(NamedTuple):
    """Worker `worker` was expelled in round `round`, because of `reason`."""

    worker: int
    round: int
    reason: str

    def __str__(self) -> str:
        return f"{self.worker} (round {self.round}, {self.reason})"


class Roster(NamedTuple):
    """Who is `good` `[n]`; the round in which each was expelled (0: never) and the code of the reason."""

    good: Tensor
    round: Tensor
    reason: Tensor

    @classmethod
    def all(cls, n: int, device: torch.device) -> Roster:
        """Nobody is expelled."""
        zeros = torch.zeros(n, dtype=torch.int64, device=device)
        return cls(torch.ones(n, dtype=torch.bool, device=device), zeros, zeros)

    def keep(self, kept: Tensor, t: int, failed: tuple[Tensor, ...]) -> Roster:
        """Those `kept` `[..., n]` stay. `failed` are the tests that led to it, in the order of `REASONS`."""
        gone = self.good & ~kept
        code = torch.zeros_like(self.reason)
        for number in range(len(failed), 0, -1):
            code = torch.where(failed[number - 1], number, code)
        return Roster(
            self.good & kept, torch.where(gone, t, self.round), torch.where(gone, code, self.reason)
        )

    def expulsions(self) -> tuple[Expulsion, ...]:
        """The expelled workers, by number."""
        records = zip(self.round.tolist(), self.reason.tolist(), strict=True)
        return tuple(Expulsion(i, t, REASONS[why]) for i, (t, why) in enumerate(records) if t)
