"""Products of a mixing matrix and column blocks of rows, in torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from byzopt import accelerator


class Mixer:
    """Mixes columns of rows, `[n, b] -> [m, b]`, by a matrix `mixing` `[m, n]`, which is taken in `dtype`.

    On a CPU sums are taken in the `order` of the rows, for which a block is copied, into memory that is
    used again: fresh memory costs as much as the product. About the row `pivot`, means keep the digits of
    rows that share an offset.
    """

    def __init__(
        self, mixing: Tensor, order: Any, pivot: int | None, rows: Tensor, dtype: torch.dtype
    ) -> None:
        order = None if accelerator.holds(rows) else order
        mixing = mixing if order is None else torch.from_numpy(mixing.numpy()[:, order])
        self.mixing, self.pivot = mixing.to(rows.device, dtype), pivot
        self.index = None if order is None else torch.from_numpy(order)
        self.copied = self.mixed = self.mixing.new_empty(0)

    def __call__(self, block: Tensor, again: bool = False) -> Tensor:
        """The mixed block; `again`: in memory that the next call overwrites."""
        about = None if self.pivot is None else block[self.pivot]
        if accelerator.holds(block):
            return self.mixing @ block if about is None else (self.mixing @ (block - about)).add_(about)
        (n, b), m = block.shape, len(self.mixing)
        if self.copied.numel() < n * b:
            self.copied, self.mixed = block.new_empty(n * b), block.new_empty(m * b if again else 0)
        copied = self.copied[: n * b].view(n, b)
        if self.index is not None:
            block = torch.index_select(block, 0, self.index, out=copied)
        if about is not None:
            block = torch.sub(block, about, out=copied)
        mixed = self.mixed[: m * b].view(m, b) if again else block.new_empty(m, b)
        torch.mm(self.mixing, block, out=mixed)
        return mixed if about is None else mixed.add_(about)


class Scaler:
    """Multiplies each row of a block by a number, and puts rows in their order, as a matrix `mixing` `[m, m]`
    with one number in each row and column does. Nothing is multiplied by 0."""

    def __init__(self, mixing: Tensor, dtype: torch.dtype) -> None:
        factors, index = mixing.max(dim=1)
        self.factors = factors.to(dtype).unsqueeze(1)
        self.index = None if torch.equal(index, torch.arange(len(index), device="cpu")) else index

    def __call__(self, block: Tensor, again: bool = False) -> Tensor:
        """The scaled block, in memory of its own."""
        return (block if self.index is None else block[self.index]) * self.factors
