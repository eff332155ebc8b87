"""What a compressor is: rows to rows that cost fewer bits, with its constant and its cost.

Contractive: E‖C(a) - a‖² <= (1 - α)‖a‖² with 0 < α <= 1. Unbiased: E Q(a) = a and E‖Q(a) - a‖² <= ω‖a‖².
An unbiased one with ω < 1 contracts too, α = 1 - ω; any one divided by 1 + ω does with α = 1/(1 + ω).
Bits are those of 32-bit floats, whatever the rows' dtype: the convention of the papers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.layout import Layout
from byzopt.registry import Registry
from byzopt.wire.bitstream import BitReader, BitWriter, Floats
from byzopt.wire.link import Link

FLOAT = 32  # bits
Scope: TypeAlias = Literal["global", "tensor"]


class Draw(NamedTuple):
    """What both ends know of a draw that they share: its 32-bit seed, the worker's uniform numbers `[d]`.

    Args:
        seed: Of the draw, 32 bits.
        noise: Uniform numbers of the worker, `[d]`.

    Examples:
        >>> import torch
        >>> from byzopt.wire import Draw
        >>> Draw(seed=7, noise=torch.rand(3)).noise.shape
        torch.Size([3])
    """

    seed: int
    noise: Tensor


class Compressor(ABC):
    """A row-wise operator over the last dimension; leading dimensions are workers, and runs before them.

    `scope` says on what it works: the whole vector, or each tensor of the layout on its own. Constants that
    hold for each tensor hold for the whole vector.

    To cross a real wire a compressor also says how a block is laid out in bits: `write` and `read`.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Link, TopK
        >>> rows = torch.tensor([[1.0, -5.0, 2.0, 0.0]])
        >>> link = Link(t=1, seed=0, layout=Layout.flat(4))
        >>> TopK(k=2)(rows, link)
        tensor([[ 0., -5.,  2.,  0.]])
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

    @property
    def one_draw(self) -> bool:
        """Whether all workers of a round share one draw."""
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

    def write(self, block: Floats, out: BitWriter, width: int, draw: Draw | None) -> None:
        """Append a compressed block `[k]` to a message, in exactly `size(k, width)` bits.

        `width` is 32, or 64 where the rows are float64; `draw` is there for one that `shares_draw`.
        """
        raise NotImplementedError

    def read(self, k: int, source: BitReader, width: int, draw: Draw | None) -> Floats:
        """The block `[k]` that `size(k, width)` bits stand for, as `write` was given it.

        The bits come from somebody else and may be anything. Errors: `BadMessage` for those that `write`
        cannot have written; whatever else is raised counts as that, too.
        """
        raise NotImplementedError

    @property
    def has_layout(self) -> bool:
        """Whether it can be sent as bits: it has a `write` and a `read` of its own."""
        return type(self).write is not Compressor.write and type(self).read is not Compressor.read

    @property
    def shares_draw(self) -> bool:
        """Whether messages leave out what the receiver draws again (a `Draw`)."""
        return False

    @property
    def holds_any_scale(self) -> bool:
        """Whether its layout also holds a compressed block times any number, as floats do."""
        return False

    def __call__(self, rows: Tensor, link: Link) -> Tensor:
        """Rows `[..., n, d]` compressed with this round's randomness; `rows` stays as it is."""
        noise = link.uniform(rows) if self.random else None
        if self._whole or len(link.layout.shapes) == 1:
            return self.compress(rows, noise)
        sizes = list(link.layout.sizes)
        noises = torch.split(noise, sizes, dim=-1) if noise is not None else [None] * len(sizes)
        blocks = zip(torch.split(rows, sizes, dim=-1), noises, strict=True)
        return torch.cat([self.compress(block, drawn) for block, drawn in blocks], dim=-1)

    def blocks(self, layout: Layout) -> tuple[int, ...]:
        """Sizes of what it works on."""
        return (layout.d,) if self._whole else layout.sizes

    @property
    def _whole(self) -> bool:
        """Whether it works on the whole vector."""
        scope, who = getattr(self, "scope", None), f"Parameter `scope` of compressor {type(self).__name__}"
        if scope not in ("global", "tensor"):
            require(False, who, "be 'global' or 'tensor'", scope, 'Add `scope: str = "global"`.')
        return bool(scope == "global")

    def bits(self, layout: Layout, width: int = FLOAT) -> int:
        """Bits of one worker's message."""
        return sum(self.size(d, width) for d in self.blocks(layout))

    def coordinates(self, layout: Layout) -> int:
        """Coordinates in one worker's message, indices free: what some papers count."""
        return sum(self.kept(d) for d in self.blocks(layout))

    def least_alpha(self, layout: Layout) -> float | None:
        """α of the whole vector: the least over blocks; None where a block has none. Errors: `InvalidInput`
        for an α that does not lie in (0, 1]."""
        alphas = [self.alpha(d) for d in self.blocks(layout)]
        for d, alpha in zip(self.blocks(layout), alphas, strict=True):
            if not (alpha is None or 0 < alpha <= 1):
                what = f"The contraction constant `alpha({d})` of compressor {type(self).__name__}"
                require(False, what, "lie in (0, 1], or be None for none", alpha)
        return None if None in alphas else min(a for a in alphas if a is not None)

    def largest_omega(self, layout: Layout) -> float | None:
        """ω of the whole vector: the largest over blocks; None for a biased operator. Errors: `InvalidInput`
        for an ω that is no finite number of at least 0."""
        omegas = [self.omega(d) for d in self.blocks(layout)]
        for d, omega in zip(self.blocks(layout), omegas, strict=True):
            if not (omega is None or 0 <= omega < inf):
                what = f"The variance constant `omega({d})` of compressor {type(self).__name__}"
                require(False, what, "be finite and at least 0, or None", omega)
        return None if None in omegas else max(w for w in omegas if w is not None)


COMPRESSORS: Registry[Compressor] = Registry("compressor", Compressor)


@COMPRESSORS.register("identity")
@dataclass(frozen=True)
class Identity(Compressor):
    """C(a) = a: all d floats. α = 1, ω = 0.

    Args:
        scope: Whether it works on the "global" vector or by "tensor": all the same here.

    Examples:
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Identity
        >>> Identity().bits(Layout.flat(10))
        320
    """

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

    @property
    def holds_any_scale(self) -> bool:
        return True

    def write(self, block: Floats, out: BitWriter, width: int, draw: Draw | None) -> None:
        out.floats(block, width)

    def read(self, k: int, source: BitReader, width: int, draw: Draw | None) -> Floats:
        return source.floats(k, width)
