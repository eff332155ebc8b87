"""An unbiased compressor made contractive."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from byzopt.errors import require
from byzopt.wire.bitstream import BitReader, BitWriter, Floats
from byzopt.wire.compressors import COMPRESSORS, FLOAT, Compressor, Draw, Scope
from byzopt.wire.sparse import RandK


@COMPRESSORS.register("shrunk")
@dataclass(frozen=True)
class Shrunk(Compressor):
    """Q / (1 + ω): an unbiased compressor scaled down until it contracts, α = 1/(1 + ω); the bits of Q.

    ω is that of each block in the inner compressor's scope. Errors: an inner compressor that is biased.

    Args:
        inner: The unbiased compressor Q.

    Raises:
        InvalidInput: An inner compressor that is biased.

    Examples:
        >>> from byzopt.wire import RandK, Shrunk
        >>> Shrunk(RandK(k=2)).alpha(8)
        0.25
    """

    inner: Compressor = RandK()

    def __post_init__(self) -> None:
        require(self.inner.unbiased, "The compressor inside shrunk", "be unbiased", self.inner)

    @property
    def scope(self) -> Scope:  # type: ignore[override]
        return self.inner.scope

    @property
    def random(self) -> bool:
        return self.inner.random

    def compress(self, rows: Tensor, noise: Tensor | None) -> Tensor:
        return self.inner.compress(rows, noise) / (1 + self._omega(rows.shape[-1]))

    def alpha(self, d: int) -> float:
        return 1 / (1 + self._omega(d))

    def size(self, d: int, width: int = FLOAT) -> int:
        return self.inner.size(d, width)

    def kept(self, d: int) -> int:
        return self.inner.kept(d)

    @property
    def holds_any_scale(self) -> bool:
        return self.inner.holds_any_scale

    @property
    def shares_draw(self) -> bool:
        return self.inner.shares_draw

    @property
    def has_layout(self) -> bool:
        return self.inner.has_layout

    def write(self, block: Floats, out: BitWriter, width: int, draw: Draw | None) -> None:
        self.inner.write(block * self._undone(len(block)), out, width, draw)

    def read(self, k: int, source: BitReader, width: int, draw: Draw | None) -> Floats:
        return self.inner.read(k, source, width, draw) / self._undone(k)

    def _undone(self, d: int) -> float:
        """The factor that a message has to be without: layouts of floats take any, powers of two must be
        whole again."""
        return 1.0 if self.inner.holds_any_scale else 1 + self._omega(d)

    def _omega(self, d: int) -> float:
        omega = self.inner.omega(d)
        assert omega is not None
        return omega
