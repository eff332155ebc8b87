"""Long rows on a graph: distances along its edges and moves along them, by machine code that reads rows once.

A product of all rows with all rows costs as much on a ring as on a complete graph; here the work follows the
edges. Without kernels, on other devices and for few numbers the products of `distances` do it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from byzopt import kernels
from byzopt.mixers.base import Hearing
from byzopt.mixers.distances import SMALL


class Edgewise:
    """The messages of a hearing that are heard, one after another by receiver, and their `squares` `[e]`:
    squared distances from where the receiver stands.

    `receivers` and `columns` `[e]` are places in the matrices over receivers and senders; `lengths` and
    `weights` `[H, K]` have distances and weights side by side by receiver, in the order of the columns, and
    zeros behind them.
    """

    def __init__(self, hearing: Hearing) -> None:
        self.hearing = hearing
        self.h, b = hearing.sizes
        self.receivers, self.columns = hearing.heard.nonzero().numpy().T.copy()
        lies = hearing.told if hearing.per_receiver else hearing.lies
        self.stacks = [hearing.rows, lies.flatten(0, -2)] if b else [hearing.rows]
        self.senders = self.columns
        if (
            hearing.per_receiver and b
        ):  # lie k to receiver i stands at k H + i, or at i where all say the same
            which = (self.columns - self.h) * (len(lies) > 1) * self.h + self.receivers
            self.senders = np.where(self.columns < self.h, self.columns, self.h + which)
        self.squares = self._squares()
        counts = np.bincount(self.receivers, minlength=self.h)
        starts = np.concatenate([[0], counts.cumsum()])
        self.places = np.arange(len(self.receivers)) - starts[self.receivers]
        self.most = int(counts.max(initial=0))

    @staticmethod
    def serves(hearing: Hearing) -> bool:
        """Whether the rows are long enough, of one run, and lie where kernels read them."""
        rows, lies = hearing.rows, hearing.lies
        long = rows.ndim == 2 and rows.numel() > SMALL and rows.dtype == lies.dtype
        return long and kernels.supports(rows) and kernels.supports(lies.flatten(0, -2))

    @classmethod
    def of(cls, hearing: Hearing) -> Edgewise:
        """The messages of a hearing. What is not finite shows in its distances: only then rows are looked at.

        Errors: `TooManyFaults` where a node hears too little.
        """
        found = cls(replace(hearing, sound=True))
        if np.isfinite(found.squares).all():
            return found
        _ = hearing.missing
        return cls(hearing)

    @property
    def lengths(self) -> Tensor:
        """Distances `[H, K]` (float64); what overflows is infinitely far."""
        return self._beside(np.nan_to_num(np.sqrt(self.squares), nan=np.inf, posinf=np.inf))

    @property
    def weights(self) -> Tensor:
        """Weights `[H, K]` (float64)."""
        return self._beside(self.hearing.edges.numpy()[self.receivers, self.columns])

    def moved(self, moves: Tensor) -> Tensor:
        """x_i + Σ_j s_ij (y_ij - x_i) `[H, d]` for weights s `[H, K]`, in the places of `lengths`."""
        shares = moves.double().numpy()[self.receivers, self.places]
        some = shares != 0
        counts = np.bincount(self.receivers[some], minlength=self.h)
        starts = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
        return kernels.moved_rows(self.stacks, self.h, starts, self.senders[some], shares[some])

    def _squares(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Of two honest nodes that hear each other the distance is taken once."""
        i, j, h = self.receivers, self.columns, self.h
        numbers = np.full((h, max(sum(self.hearing.sizes), 1)), -1)
        numbers[i, j] = np.arange(len(i))
        back = np.where(j < h, numbers[np.minimum(j, h - 1), i], -1)
        once = (back < 0) | (i < j)
        found = np.empty(len(i))
        found[once] = kernels.pair_squares(self.stacks, i[once], self.senders[once])
        found[~once] = found[back[~once]]
        return found

    def _beside(self, values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
        """Values `[e]` as `[H, K]`."""
        out = np.zeros((self.h, self.most))
        out[self.receivers, self.places] = values
        return torch.from_numpy(out)
