"""Memory that is the same in every step: fresh memory costs as much as sending."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor


class Arena:
    """Room for up to `most` numbers, taken anew in each round, piece by piece; allocated when first taken."""

    def __init__(self, most: int, dtype: torch.dtype, device: torch.device) -> None:
        self._most, self._dtype, self._device = most, dtype, device
        self._memory: Tensor | None = None
        self._used = 0

    def clear(self) -> None:
        """Nobody needs what was taken any more."""
        self._used = 0

    def take(self, *shape: int) -> Tensor:
        """A contiguous tensor of any content."""
        if self._memory is None:
            self._memory = torch.empty(self._most, dtype=self._dtype, device=self._device)
        start = self._used
        self._used += prod(shape)
        return self._memory[start : self._used].view(shape)
