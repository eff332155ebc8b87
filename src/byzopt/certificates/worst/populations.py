"""What a population of sets of rows has to know for a search to anneal it."""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[np.float64]
Map = tuple[Rows, Rows, Rows]  # shift, factor, back, `[R, 1, .]`: x becomes (x - shift) · factor + back


class Population(Protocol):
    """R sets of rows, however they are described."""

    def rows(self, numbers: np.random.Generator) -> Rows:
        """The rows `[R, n, d]`, the faulty ones first."""
        ...

    def moved(self, to: Map) -> Self:
        """The same elsewhere and in another unit."""
        ...

    def answered(self, answers: Rows) -> Self:
        """The same with what the rule has answered, `[R, d]`, NaN where nothing."""
        ...

    def mutated(self, largest: float, numbers: np.random.Generator) -> Self:
        """Changed copies: moves of sizes from 1e-4 of `largest` up to it, in honest spreads."""
        ...

    def lengths(self, many: int, numbers: np.random.Generator) -> Self:
        """Each `many` times, with the faulty rows at other lengths of their way."""
        ...

    def chosen(self, other: Self, mask: NDArray[np.bool_]) -> Self:
        """Those of `other` where the mask `[R]` is true, else one's own."""
        ...

    def taken(self, order: NDArray[np.int64]) -> Self:
        """Those at these indices."""
        ...


def survivors(errors: Tensor, islands: int) -> Tensor:
    """Indices `[R]`: in each of the islands the worst third stands in the place of the least bad one too."""
    order = torch.arange(len(errors), device="cpu")
    for island in order.chunk(islands):
        ranked, third = island[errors[island].argsort(descending=True)], len(island) // 3
        order[ranked[len(ranked) - third :]] = ranked[:third]
    return order
