"""What a compressor is: rows to rows that cost fewer bits, with its constant and its cost.

Contractive: E‖C(a) - a‖² <= (1 - α)‖a‖² with 0 < α <= 1. Unbiased: E Q(a) = a and E‖Q(a) - a‖² <= ω‖a‖².
An unbiased one with ω < 1 contracts too, α = 1 - ω; any one divided by 1 + ω does with α = 1/(1 + ω).
Bits are those of 32-bit floats, whatever the rows' dtype: the convention of the papers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from byzopt.layout import Layout
from byzopt.registry import Registry
from byzopt.wire.link import Link

FLOAT = 32  # bits
Scope: TypeAlias = Literal["global", "tensor"]


class Compressor(ABC):
    """A row-wise operator over the last dimension; leading dimensions are workers, and runs before them.

    `scope` says on what it works: the whole vector, or each tensor of the layout on its own. Constants that
    hold for each tensor hold for the whole vector.
    """

    name: ClassVar[str]
    scope: Scope

    @property
    def unbiased(self) -> bool:
        """Whether E C(a) = a for every a."""
        return False

    @property
    def contracts(self) -> bool:
        """Whether it is contractive for some d at least: `alpha` tells for which."""
        return True

    @abstractmethod
    def compress(self, rows: Tensor, noise: Tensor | None) -> Tensor:
        """One block of rows `[..., k]` compressed; `noise` as `rows`, uniform, if `random`."""

    @property
    def random(self) -> bool:
        """Whether it draws."""
        return False

    @abstractmethod
    def alpha(self, d: int) -> float | None:
        """The contraction constant in dimension d; None where there is none."""

    def omega(self, d: int) -> float | None:
        """The variance constant in dimension d; None for a biased operator."""
        return None

    @abstractmethod
    def size(self, d: int, width: int = FLOAT) -> int:
        """Bits of one message of d coordinates with floats of `width` bits."""

    def kept(self, d: int) -> int:
        """Coordinates that one message holds: all, unless it leaves some out."""
        return d

    def __call__(self, rows: Tensor, link: Link) -> Tensor:
        """Rows `[..., n, d]` compressed with this round's randomness; `rows` stays as it is."""
        noise = link.uniform(rows) if self.random else None
        if self.scope == "global" or len(link.layout.shapes) == 1:
            return self.compress(rows, noise)
        sizes = list(link.layout.sizes)
        noises = torch.split(noise, sizes, dim=-1) if noise is not None else [None] * len(sizes)
        blocks = zip(torch.split(rows, sizes, dim=-1), noises, strict=True)
        return torch.cat([self.compress(block, drawn) for block, drawn in blocks], dim=-1)

    def blocks(self, layout: Layout) -> tuple[int, ...]:
        """Sizes of what it works on."""
        return (layout.d,) if self.scope == "global" else layout.sizes

    def bits(self, layout: Layout, width: int = FLOAT) -> int:
        """Bits of one worker's message."""
        return sum(self.size(d, width) for d in self.blocks(layout))

    def coordinates(self, layout: Layout) -> int:
        """Coordinates in one worker's message, indices free: what some papers count."""
        return sum(self.kept(d) for d in self.blocks(layout))

    def least_alpha(self, layout: Layout) -> float | None:
        """α of the whole vector: the least over blocks; None where a block has none."""
        found = [self.alpha(d) for d in self.blocks(layout)]
        return None if None in found else min(a for a in found if a is not None)

    def largest_omega(self, layout: Layout) -> float | None:
        """ω of the whole vector: the largest over blocks; None for a biased operator."""
        found = [self.omega(d) for d in self.blocks(layout)]
        return None if None in found else max(w for w in found if w is not None)


COMPRESSORS: Registry[Compressor] = Registry("compressor", Compressor)


@COMPRESSORS.register("identity")
@dataclass(frozen=True)
class Identity(Compressor):
    """C(a) = a: all d floats. α = 1, ω = 0."""

    scope: Scope = "global"

    @property
    def unbiased(self) -> bool:
        return True

    def compress(self, rows: Tensor, noise: Tensor | None) -> Tensor:
        return rows

    def alpha(self, d: int) -> float:
        return 1.0

    def omega(self, d: int) -> float:
        return 0.0

    def size(self, d: int, width: int = FLOAT) -> int:
        return d * width
