"""Aksel: the mean of the rows nearest to the coordinate-wise median."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt import accelerator
from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.median import Median
from byzopt.aggregators.numerics.mixed import Mixed


@RULES.register("aksel")
@dataclass(frozen=True)
class Aksel(Aggregator):
    """The mean of the rows no farther from the coordinate-wise median than half of the rows are.

    That is the (n + 1) // 2 nearest rows, and those tied with the last of them. `f` only says how many rows
    may be dropped. Needs 2 f < n. Cost: a selection network and one pass for distances. Source: Boussetta et
    al., OPODIS 2021.

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.

    Examples:
        >>> import torch
        >>> from byzopt import Aksel
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> Aksel(f=1)(rows)
        tensor([1.6667, 1.3333])
    """

    ties = "rounding"

    f: int | None = None

    def splits(self) -> bool:
        return True

    def reduce(self, mixed: Mixed) -> Tensor:
        place, mixed.place = mixed.place, None  # the rows are read once more behind this answer
        centre, mixed.place = Median().reduce(mixed), place
        dists = torch.zeros(mixed.m, dtype=torch.float64, device=mixed.rows.device)
        for piece, block in mixed.blocks():
            if accelerator.holds(block):
                dists += accelerator.squares(block - centre[piece], block.dtype)
            else:
                dists += (block.double() - centre[piece].double()).square().sum(dim=1)
        dists = mixed.total(dists).cpu()
        near = dists <= dists.sort().values[(mixed.m - 1) // 2]
        return mixed.blend(near.double() / near.sum())
