"""Compressors that send every coordinate with few bits."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2, sqrt

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.wire.compressors import COMPRESSORS, FLOAT, Compressor, Scope

# The least and the greatest power of two that natural compression sends, as float32's exponents.
SMALLEST, LARGEST = 2.0**-126, 2.0**127


def unit_of(rows: Tensor) -> Tensor:
    """A power of two near each row's largest magnitude, `[..., 1]`: in that unit no square overflows or is
    lost, and all else is as it was, to the last bit."""
    top = rows.abs().amax(dim=-1, keepdim=True)
    exponent = torch.frexp(top).exponent - 1
    return torch.where((top > 0) & top.isfinite(), torch.ldexp(torch.ones_like(top), exponent), 1.0)


@COMPRESSORS.register("natural")
@dataclass(frozen=True)
class Natural(Compressor):
    """Each coordinate rounded at random to one of the two powers of two around it, without bias.

    ω = 1/8 (so α = 7/8 as it is); 9 bits a coordinate: a sign and an exponent of 8 bits. Magnitudes below
    2^-126 become 0 or 2^-126, those above 2^127 become 2^127. Source: Horváth et al., arXiv:1905.10988.
    """

    scope: Scope = "global"

    @property
    def unbiased(self) -> bool:
        return True

    @property
    def random(self) -> bool:
        return True

    def compress(self, rows: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is not None
        size = rows.abs()
        exponent = torch.frexp(size).exponent - 1  # size lies in [2^exponent, 2^(exponent + 1))
        low = torch.ldexp(torch.ones_like(size), exponent)
        tiny = size < SMALLEST
        low, gap = torch.where(tiny, 0.0, low), torch.where(tiny, SMALLEST, low)
        low = low.clamp(max=LARGEST)
        up = (noise * gap < size - low) & (low < LARGEST)
        rounded = torch.where(size.isfinite(), low + gap * up, size)
        return torch.copysign(rounded, rows)

    def alpha(self, d: int) -> float:
        return 7 / 8

    def omega(self, d: int) -> float:
        return 1 / 8

    def size(self, d: int, width: int = FLOAT) -> int:
        return 9 * d


@COMPRESSORS.register("scaled_sign")
@dataclass(frozen=True)
class ScaledSign(Compressor):
    """(‖a‖₁/d) sign(a) with sign(0) = 1: one bit a coordinate and a float. α = ‖a‖₁²/(d‖a‖²) >= 1/d."""

    scope: Scope = "global"

    def compress(self, rows: Tensor, noise: Tensor | None) -> Tensor:
        unit = unit_of(rows)
        scale = (rows / unit).abs().mean(dim=-1, keepdim=True) * unit
        return torch.where(rows < 0, -scale, scale)

    def alpha(self, d: int) -> float:
        return 1 / d

    def size(self, d: int, width: int = FLOAT) -> int:
        return d + width


@COMPRESSORS.register("qsgd")
@dataclass(frozen=True)
class QSGD(Compressor):
    """‖a‖ sign(a_k) ξ_k/s, with ξ_k the level s|a_k|/‖a‖ rounded at random to a whole one, without bias.

    `levels` s >= 1. ω = min(d/s², √d/s); s = 1: ω = √d - 1. Bits: a sign and a level of ⌈log₂(s + 1)⌉ bits a
    coordinate, and the norm. `elias` is the expected length with Elias coding, for comparison. Source:
    Alistarh et al., arXiv:1610.02132.
    """

    levels: int = 1
    scope: Scope = "global"

    def __post_init__(self) -> None:
        require(1 <= self.levels < 2**16, "Parameter `levels` of qsgd", "lie in 1 .. 65535", self.levels)

    @property
    def unbiased(self) -> bool:
        return True

    @property
    def random(self) -> bool:
        return True

    def compress(self, rows: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is not None
        unit = unit_of(rows)
        size = rows / unit
        length = torch.linalg.vector_norm(size, dim=-1, keepdim=True)
        level = size.abs() * (self.levels / torch.where(length == 0, 1.0, length))
        norm = (length * unit).clamp_(max=torch.finfo(rows.dtype).max)
        whole = level.floor()
        whole = (whole + (noise < level - whole)).clamp_(max=self.levels)
        return torch.copysign(norm * (whole / self.levels), rows)

    def alpha(self, d: int) -> float | None:
        omega = self.omega(d)
        return 1 - omega if omega < 1 else None

    def omega(self, d: int) -> float:
        s = self.levels
        return sqrt(d) - 1 if s == 1 else min(d / s**2, sqrt(d) / s)

    def size(self, d: int, width: int = FLOAT) -> int:
        return d * (1 + ceil(log2(self.levels + 1))) + width

    def elias(self, d: int) -> float:
        """About how many bits Elias coding takes (arXiv:1610.02132, Theorem 3.2)."""
        s = self.levels
        rate = 3 + 1.5 * log2(2 * (s**2 + d) / (s * (s + sqrt(d))))
        return rate * s * (s + sqrt(d)) + FLOAT
