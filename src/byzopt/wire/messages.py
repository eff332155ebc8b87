"""Messages as bytes: fixed layouts, exactly as long as the ledger counts, decoded without trust.

Per block (the whole vector, or each tensor), one after the other, filled up to whole bytes at the end:

    identity            d floats
    top_k, rand_k       K indices of ⌈log₂ d⌉ bits, ascending, then K floats; fewer than K non-zeros are
                        filled up with zeros at the lowest free indices
    rand_k, seeded      the seed of the draw in 32 bits, then K floats in ascending order of index
    natural             d numbers of 9 bits: sign, exponent + 127, which is 0 for 0
    scaled_sign         the scale as a float, then d signs
    qsgd                the norm as a float, then d numbers: sign, level

A float has 32 bits, which rounds rows of float64; `width=64` keeps them exactly. `shrunk` has the layout of
what is inside it.
"""

from __future__ import annotations

from math import ceil, log2
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from byzopt.errors import BadMessage, InvalidInput, require
from byzopt.layout import Layout
from byzopt.wire.bitstream import KINDS, Reader, Real, Writer
from byzopt.wire.compressors import FLOAT, Compressor, Identity
from byzopt.wire.dense import QSGD, Natural, ScaledSign
from byzopt.wire.shrunk import Shrunk
from byzopt.wire.sparse import RandK, TopK, address, largest


class Draw(NamedTuple):
    """What both ends know of a seeded draw: its 32-bit seed, and the worker's uniform numbers `[d]`."""

    seed: int
    noise: Tensor


def length(compressor: Compressor, layout: Layout, width: int = FLOAT) -> int:
    """Bytes of a message: the ledger's bits, rounded up."""
    return -(-compressor.bits(layout, width) // 8)


def encode(
    compressor: Compressor, row: Tensor, layout: Layout, width: int = FLOAT, draw: Draw | None = None
) -> bytes:
    """A compressed row `[d]` as bytes. Errors: `InvalidInput` for a row with too many coordinates."""
    require(tuple(row.shape) == (layout.d,), "A row", f"have shape [{layout.d}]", tuple(row.shape))
    out = Writer()
    for block, part in _blocks(compressor, row, layout, draw):
        _write(compressor, block, width, out, part)
    return out.bytes()


def decode(
    compressor: Compressor, data: bytes, layout: Layout, width: int = FLOAT, draw: Draw | None = None
) -> Tensor:
    """The row `[d]`, float64, that a message stands for.

    Errors: `BadMessage` for a wrong length, numbers that are not finite, indices out of range, repeated or
    out of order, an impossible exponent or level, another seed, and bits behind the end.
    """
    wanted = length(compressor, layout, width)
    if len(data) != wanted:
        raise BadMessage(f"A message should have {wanted} bytes. Found {len(data)}.")
    source = Reader(data)
    like = torch.empty(layout.d, dtype=torch.float64, device="cpu")
    parts = [
        _read(compressor, len(block), width, source, part)
        for block, part in _blocks(compressor, like, layout, draw)
    ]
    source.end()
    row = np.concatenate(parts)
    if not np.isfinite(row).all():
        raise BadMessage("A message should stand for finite numbers. Found an overflow.")
    return torch.from_numpy(row)


def decode_all(
    compressor: Compressor, messages: list[bytes], layout: Layout, width: int = FLOAT
) -> tuple[Tensor, dict[int, str]]:
    """Rows `[n, d]`, and the reasons by worker where a message is malformed: that worker's row is NaN, which
    the policy for bad rows drops and counts against f."""
    rows = torch.full((len(messages), layout.d), torch.nan, dtype=torch.float64, device="cpu")
    faults = {}
    for i, message in enumerate(messages):
        try:
            rows[i] = decode(compressor, message, layout, width)
        except BadMessage as error:
            faults[i] = str(error)
    return rows, faults


def _blocks(
    compressor: Compressor, row: Tensor, layout: Layout, draw: Draw | None
) -> list[tuple[Real, Draw | None]]:
    sizes = list(compressor.blocks(layout))
    blocks = [part.detach().cpu().double().numpy() for part in torch.split(row, sizes)]
    if draw is None:
        return [(block, None) for block in blocks]
    noises = torch.split(draw.noise, sizes)
    return [(block, Draw(draw.seed, noise)) for block, noise in zip(blocks, noises, strict=True)]


def _write(compressor: Compressor, row: Real, width: int, out: Writer, draw: Draw | None) -> None:
    d = len(row)
    if isinstance(compressor, Shrunk):
        return _write(compressor.inner, row * _factor(compressor, d), width, out, draw)
    if isinstance(compressor, Identity):
        return out.real(row, width)
    if isinstance(compressor, TopK | RandK):
        places = _drawn(compressor, draw, d) if _seeded(compressor) else _support(row, compressor.kept(d))
        if _seeded(compressor):
            assert draw is not None
            out.whole(draw.seed, 32)
        else:
            out.whole(places, address(d))
        return out.real(row[places], width)
    if isinstance(compressor, Natural):
        _, exponent = np.frexp(np.abs(row))
        code = np.where(row == 0, 0, np.clip(exponent - 1 + 127, 1, 254))
        return out.whole((np.signbit(row).astype(np.int64) << 8) | code, 9)
    if isinstance(compressor, ScaledSign):
        out.real(np.abs(row).max(initial=0.0), width)
        return out.whole(np.signbit(row), 1)
    if isinstance(compressor, QSGD):
        norm, level = _levels(row, compressor.levels, width)
        out.real(norm, width)
        wide = _depth(compressor)
        return out.whole((np.signbit(row).astype(np.int64) << wide) | level, 1 + wide)
    raise InvalidInput(f"A compressor should have a layout of bytes. Found {type(compressor).__name__}.")


def _read(compressor: Compressor, d: int, width: int, source: Reader, draw: Draw | None) -> Real:
    if isinstance(compressor, Shrunk):
        row = _read(compressor.inner, d, width, source, draw)
        return row / _factor(compressor, d)
    if isinstance(compressor, Identity):
        return source.real(d, width)
    if isinstance(compressor, TopK | RandK):
        places = _places(compressor, d, source, draw)
        row = np.zeros(d)
        row[places] = source.real(compressor.kept(d), width)
        return row
    if isinstance(compressor, Natural):
        return _powers(source.whole(d, 9))
    if isinstance(compressor, ScaledSign):
        scale = source.real(1, width)[0]
        return _signed(np.full(d, scale), source.whole(d, 1))
    if isinstance(compressor, QSGD):
        norm, wide = source.real(1, width)[0], _depth(compressor)
        code = source.whole(d, 1 + wide).astype(np.int64)
        level = code & ((1 << wide) - 1)
        if (level > compressor.levels).any():
            raise BadMessage(f"A level should be at most {compressor.levels}. Found {level.max()}.")
        return _signed(_sizes(norm, level, compressor.levels, width), code >> wide)
    raise InvalidInput(f"A compressor should have a layout of bytes. Found {type(compressor).__name__}.")


def _factor(compressor: Shrunk, d: int) -> float:
    """What the layout of the inner compressor cannot hold: powers of two have to be whole again, floats take
    any factor."""
    return 1 + compressor.inner.omega(d) if isinstance(compressor.inner, Natural) else 1.0


# Sparse messages.


def _seeded(compressor: TopK | RandK) -> bool:
    return isinstance(compressor, RandK) and compressor.seeded


def _drawn(compressor: TopK | RandK, draw: Draw | None, d: int) -> np.ndarray:
    if draw is None:
        raise InvalidInput("A seeded message should come with its draw. Found none. Pass `draw`.")
    return np.flatnonzero(largest(draw.noise, compressor.kept(d)).cpu().numpy())


def _support(row: Real, k: int) -> np.ndarray:
    """K ascending indices that hold all non-zeros."""
    held = np.flatnonzero(row)
    require(len(held) <= k, "A compressed row", f"have at most {k} coordinates", len(held))
    free = np.flatnonzero(row == 0)[: k - len(held)]
    return np.sort(np.concatenate([held, free]))


def _places(compressor: TopK | RandK, d: int, source: Reader, draw: Draw | None) -> np.ndarray:
    if _seeded(compressor):
        places = _drawn(compressor, draw, d)
        seed = int(source.whole(1, 32)[0])
        if draw is None or seed != draw.seed:
            raise BadMessage(f"A seeded message should name this round's draw. Found seed {seed}.")
        return places
    found = source.whole(compressor.kept(d), address(d)).astype(np.int64)
    if found.max(initial=0) >= d:
        raise BadMessage(f"Indices should lie in 0 .. {d - 1}. Found {found.max()}.")
    if (np.diff(found) <= 0).any():
        raise BadMessage("Indices should be distinct and ascending. Found others.")
    return found


# Dense messages.


def _powers(code: np.ndarray) -> Real:
    exponent = (code & np.uint64(255)).astype(np.int64)
    if (exponent == 255).any():
        raise BadMessage("An exponent should be at most 127. Found 128.")
    size = np.where(exponent == 0, 0.0, np.ldexp(1.0, exponent - 127))
    return _signed(size, code >> np.uint64(8))


def _signed(size: Real, minus: np.ndarray) -> Real:
    """Magnitudes with their signs, that of 0 too."""
    row: Real = np.copysign(size, np.where(minus, -1.0, 1.0))
    return row


def _depth(compressor: QSGD) -> int:
    return ceil(log2(compressor.levels + 1))


def _levels(row: Real, s: int, width: int) -> tuple[float, np.ndarray]:
    """A norm and levels that give the row back, bit for bit where any do.

    The row's longest coordinate is norm · m/s for an m in 1 .. s that the row does not tell.
    """
    kind = KINDS[width].newbyteorder("=").type
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
            off = float(np.abs(_sizes(norm, level, s, width) - size).max())
            if off < least and level.max() <= s:
                best, least = (float(norm), level), off
            if off == 0:
                return best
    return best


def _sizes(norm: float, level: np.ndarray, s: int, width: int) -> Real:
    """norm · level/s, in the arithmetic of rows of that width."""
    kind = KINDS[width].newbyteorder("=").type
    size: Real = (kind(norm) * (level / s).astype(kind)).astype(np.float64)
    return size
