"""Blocks of columns: sums over them, and answers in their places."""

from __future__ import annotations

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.foreign import reduced
from byzopt.aggregators.numerics.mixed import Mixed


def by_rule(rule: BaseAggregator, unit: float, rows: Tensor, place: Tensor | None) -> Tensor:
    """The answer of a rule that needs no whole rows to some of their columns, in `place` where that fits."""
    mixed = Mixed(rows, unit)
    mixed.place = place
    return reduced(rule, mixed)


def put(answer: Tensor, place: Tensor) -> Tensor:
    """The `place` with an answer in it, which may have been written there already."""
    if answer.data_ptr() != place.data_ptr():
        place.copy_(answer)
    return place


def sum_of(parts: list[Tensor], *shape: int) -> Tensor:
    """The sum of float64 `parts`, on the CPU; zeros where there are none."""
    zeros = torch.zeros(*shape, dtype=torch.float64, device="cpu")
    return torch.stack(parts).sum(dim=0).cpu() if parts else zeros
