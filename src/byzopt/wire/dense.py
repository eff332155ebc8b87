"""Compressors that send every coordinate with few bits."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.errors import BadMessage, require
from byzopt.wire.bitstream import FLOAT_TYPES, BitReader, BitWriter, Floats
from byzopt.wire.compressors import COMPRESSORS, FLOAT, Compressor, Draw, Scope

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

    Args:
        scope: Whether it works on the "global" vector or by "tensor": all the same here.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Link, Natural
        >>> sent = Natural()(torch.tensor([[3.0, 4.0]]), Link(t=1, seed=0, layout=Layout.flat(2)))
        >>> float(sent[0, 0]) in (2.0, 4.0), float(sent[0, 1])
        (True, 4.0)
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

    def write(self, block: Floats, out: BitWriter, width: int, draw: Draw | None) -> None:
        exponent = np.frexp(np.abs(block))[1]
        code = np.where(block == 0, 0, np.clip(exponent - 1 + 127, 1, 254))
        code = np.where(np.isfinite(block), code, 255)  # which no receiver takes
        out.integers((np.signbit(block).astype(np.int64) << 8) | code, 9)

    def read(self, k: int, source: BitReader, width: int, draw: Draw | None) -> Floats:
        code = source.integers(k, 9)
        exponent = (code & np.uint64(255)).astype(np.int64)
        if (exponent == 255).any():
            raise BadMessage("An exponent should be at most 127. Found 128.")
        size = np.where(exponent == 0, 0.0, np.ldexp(1.0, exponent - 127))
        return _with_signs(size, code >> np.uint64(8))


@COMPRESSORS.register("scaled_sign")
@dataclass(frozen=True)
class ScaledSign(Compressor):
    """(‖a‖₁/d) sign(a) with sign(0) = 1: one bit a coordinate and a float. α = ‖a‖₁²/(d‖a‖²) >= 1/d.

    Args:
        scope: Whether it works on the "global" vector or by "tensor".

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Link, ScaledSign
        >>> ScaledSign()(torch.tensor([[1.0, -3.0]]), Link(t=1, seed=0, layout=Layout.flat(2)))
        tensor([[ 2., -2.]])
    """

    scope: Scope = "global"

    def compress(self, rows: Tensor, noise: Tensor | None) -> Tensor:
        unit = unit_of(rows)
        scale = (rows / unit).abs().mean(dim=-1, keepdim=True) * unit
        return torch.where(rows < 0, -scale, scale)

    def alpha(self, d: int) -> float:
        return 1 / d

    def size(self, d: int, width: int = FLOAT) -> int:
        return d + width

    @property
    def holds_any_scale(self) -> bool:
        return True

    def write(self, block: Floats, out: BitWriter, width: int, draw: Draw | None) -> None:
        out.floats(np.abs(block).max(initial=0.0), width)
        out.integers(np.signbit(block), 1)

    def read(self, k: int, source: BitReader, width: int, draw: Draw | None) -> Floats:
        scale = source.floats(1, width)[0]
        return _with_signs(np.full(k, scale), source.integers(k, 1))


@COMPRESSORS.register("qsgd")
@dataclass(frozen=True)
class QSGD(Compressor):
    """‖a‖ sign(a_k) ξ_k/s, with ξ_k the level s|a_k|/‖a‖ rounded at random to a whole one, without bias.

    `levels` s >= 1. ω = min(d/s², √d/s); s = 1: ω = √d - 1. Bits: a sign and a level of ⌈log₂(s + 1)⌉ bits a
    coordinate, and the norm. `elias` is the expected length with Elias coding, for comparison. Source:
    Alistarh et al., arXiv:1610.02132.

    Args:
        levels: Number s >= 1 of levels.
        scope: Whether it works on the "global" vector or by "tensor".

    Examples:
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import QSGD
        >>> QSGD(levels=4).bits(Layout.flat(100))  # a sign and 3 bits each, and the norm
        432
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
        return d * (1 + self._level_bits) + width

    @property
    def holds_any_scale(self) -> bool:
        return True

    def write(self, block: Floats, out: BitWriter, width: int, draw: Draw | None) -> None:
        norm, level = _norm_and_levels(block, self.levels, width)
        out.floats(norm, width)
        out.integers((np.signbit(block).astype(np.int64) << self._level_bits) | level, 1 + self._level_bits)

    def read(self, k: int, source: BitReader, width: int, draw: Draw | None) -> Floats:
        norm = source.floats(1, width)[0]
        code = source.integers(k, 1 + self._level_bits).astype(np.int64)
        level = code & ((1 << self._level_bits) - 1)
        if (level > self.levels).any():
            raise BadMessage(f"A level should be at most {self.levels}. Found {level.max()}.")
        return _with_signs(_magnitudes(norm, level, self.levels, width), code >> self._level_bits)

    @property
    def _level_bits(self) -> int:
        return ceil(log2(self.levels + 1))

    def elias(self, d: int) -> float:
        """About how many bits Elias coding takes (arXiv:1610.02132, Theorem 3.2)."""
        s = self.levels
        rate = 3 + 1.5 * log2(2 * (s**2 + d) / (s * (s + sqrt(d))))
        return rate * s * (s + sqrt(d)) + FLOAT


def _with_signs(size: Floats, minus: np.ndarray[Any, Any]) -> Floats:
    """Magnitudes with their signs, that of 0 too."""
    signed: Floats = np.copysign(size, np.where(minus, -1.0, 1.0))
    return signed


def _norm_and_levels(row: Floats, s: int, width: int) -> tuple[float, np.ndarray]:
    """A norm and levels that give the row back, bit for bit where any do.

    The row's longest coordinate is norm · m/s for an m in 1 .. s that the row does not tell.
    """
    kind = FLOAT_TYPES[width].newbyteorder("=").type
    size = np.abs(row)
    top = float(size.max(initial=0.0))
    best, least = (top, np.zeros(len(row), dtype=np.int64)), float("inf")
    if top == 0 or not np.isfinite(top):
        return best
    for m in range(s, 0, -1):
        with np.errstate(over="ignore"):
            guess = kind(top * s / m)
            guesses = guess, np.nextafter(guess, kind(0)), np.nextafter(guess, kind(np.inf))
        for norm in guesses:
            if not 0 < norm < np.inf:  # a length that these floats do not hold
                continue
            level = np.rint(size / float(norm) * s).astype(np.int64)
            off = float(np.abs(_magnitudes(norm, level, s, width) - size).max())
            if off < least and level.max() <= s:
                best, least = (float(norm), level), off
            if off == 0:
                return best
    return best


def _magnitudes(norm: float, level: np.ndarray, s: int, width: int) -> Floats:
    """norm · level/s, in the arithmetic of rows of that width."""
    kind = FLOAT_TYPES[width].newbyteorder("=").type
    size: Floats = (kind(norm) * (level / s).astype(kind)).astype(np.float64)
    return size
