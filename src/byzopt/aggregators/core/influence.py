"""Weights of rows in an answer, for rules that do not state them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.selection import NARROW


class _Watched(Mixed):
    """Mixed rows that note the weights with which they are blended."""

    def __init__(self, mixed: Mixed, weights_seen: list[Tensor]) -> None:
        super().__init__(mixed.rows, mixed.unit, mixed.mixing, mixed.geometry)
        self.inner, self.watched, self.first = mixed, weights_seen, mixed.first
        self.among, self.unmixed, self.sketched = mixed.among, mixed.unmixed, mixed.sketched

    @property
    def d(self) -> int:
        return self.inner.d

    def total(self, partial: Tensor) -> Tensor:
        return self.inner.total(partial)

    def held(self, vec: Tensor) -> Tensor:
        return self.inner.held(vec)

    def widened(self, centre: Tensor) -> Geometry:
        return self.inner.widened(centre)

    def again(self, rows: Tensor, mixing: Tensor | None = None, geometry: Geometry | None = None) -> Mixed:
        return _Watched(self.inner.again(rows, mixing, geometry), self.watched)

    def blend(self, weights: Tensor) -> Tensor:
        self.watched.append(self.through(weights))
        return super().blend(weights)


def blended(reduce: Callable[[Mixed], Tensor], mixed: Mixed) -> Tensor:
    """Weights `[n]` of the unmixed rows in the answer of `reduce`, which ends in one `blend`: it is run and
    watched."""
    weights_seen: list[Tensor] = []
    reduce(_Watched(mixed, weights_seen))
    if not weights_seen:
        raise NotImplementedError(f"{reduce.__qualname__} should blend rows, or the rule define `influence`.")
    return weights_seen[-1]


def column_weights(columns: Callable[[Tensor], Tensor], mixed: Mixed) -> Tensor:
    """Weights `[m]` of the mixed rows in a rule that acts column by column: the mean of ∂out/∂value.

    Sorting, selecting and averaging are linear where values differ, so the derivative of a column's answer
    is the weight of each value in it. Narrow pieces are sorted by an operation that has a derivative.
    """
    total = torch.zeros(mixed.m, dtype=torch.float64, device="cpu")
    width = NARROW - 1
    for _, block in mixed.blocks():
        for start in range(0, block.shape[1], width):
            with torch.inference_mode(False), torch.enable_grad():
                piece = block[:, start : start + width].clone().requires_grad_()
                (slope,) = torch.autograd.grad(
                    columns(piece.clone()).sum(), piece
                )  # it may write to its block
            total += slope.double().sum(dim=1).cpu()
    return mixed.total(total) / mixed.d
