"""Messages as bytes: fixed layouts, exactly as long as the ledger counts, decoded without trust.

Per block (the whole vector, or each tensor), one after the other, filled up to whole bytes at the end. Each
compressor lays out its own blocks (`Compressor.write` and `read`):

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

from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.errors import BadMessage, InvalidInput, require, said
from byzopt.layout import Layout
from byzopt.rng import stream
from byzopt.wire.bitstream import BitReader, BitWriter, Floats
from byzopt.wire.compressors import FLOAT, Compressor, Draw
from byzopt.wire.link import Link


def message_bytes(compressor: Compressor, layout: Layout, width: int = FLOAT) -> int:
    """Bytes of a message: the ledger's bits, rounded up."""
    return -(-compressor.bits(layout, width) // 8)


def encode_message(
    compressor: Compressor, row: Tensor, layout: Layout, width: int = FLOAT, draw: Draw | None = None
) -> bytes:
    """A compressed row `[d]` as bytes.

    Errors: `InvalidInput` for a row with too many coordinates, and for a compressor that has no layout of
    bits or writes more or fewer than it counts.
    """
    require(tuple(row.shape) == (layout.d,), "A row", f"have shape [{layout.d}]", tuple(row.shape))
    _need_layout(compressor, draw)
    out = BitWriter()
    for block, part in _blocks(compressor, row, layout, draw):
        before, counted = out.length, compressor.size(len(block), width)
        compressor.write(block, out, width, part)
        what, rule = f"`write` of the compressor {type(compressor).__name__}", "emit as many bits as `size`"
        shape = out.length - before
        require(shape == counted, what, rule, f"{shape} in place of {counted} for d = {len(block)}")
    return out.bytes()


def decode_message(
    compressor: Compressor, data: bytes, layout: Layout, width: int = FLOAT, draw: Draw | None = None
) -> Tensor:
    """The row `[d]`, float64, that a message stands for.

    Errors: `BadMessage` for a wrong length, numbers that are not finite, indices out of range, repeated or
    out of order, an impossible exponent or level, another seed, bits behind the end, and for whatever else
    the compressor's `read` cannot make a row of.
    """
    _need_layout(compressor, draw)
    length = message_bytes(compressor, layout, width)
    if len(data) != length:
        raise BadMessage(f"A message should have {length} bytes. Found {len(data)}.")
    source = BitReader(data)
    like = torch.empty(layout.d, dtype=torch.float64, device="cpu")
    parts = [
        _read(compressor, len(block), source, width, part)
        for block, part in _blocks(compressor, like, layout, draw)
    ]
    source.finish()
    row = np.concatenate(parts)
    if not np.isfinite(row).all():
        raise BadMessage("A message should stand for finite numbers. Found an overflow.")
    return torch.from_numpy(row)


def check_layout(compressor: Compressor, layout: Layout, dtype: torch.dtype) -> None:
    """Raise `InvalidInput` unless the compressor can be sent: a compressed row comes back from its bytes."""
    width = 64 if dtype == torch.float64 else FLOAT
    drawn = torch.randn(1, layout.d, dtype=torch.float64, generator=stream(0, "layout"), device="cpu")
    link = Link(1, 0, layout)
    draw = Draw(0, link.uniform(drawn.to(dtype))[0]) if compressor.shares_draw else None
    compressed = compressor(drawn.to(dtype), link)[0].double()
    what, rule = f"The compressor {type(compressor).__name__}", "read what it writes"
    data = encode_message(compressor, compressed, layout, width, draw)
    try:
        read = decode_message(compressor, data, layout, width, draw)
    except BadMessage as error:
        raise InvalidInput(f"{what} should {rule}. Found that it refuses its own message: {error}") from None
    # Layouts may round once; the levels of quantisers are met to rounding only.
    slack = 1e-3 * float(compressed.abs().max())
    off = float((read - compressed).abs().max())
    require(off <= slack, what, rule, f"a row that is off by {off:.2g}")


def _need_layout(compressor: Compressor, draw: Draw | None) -> None:
    what, rule = f"The compressor {type(compressor).__name__}", "have a layout of bits to be sent"
    remedy = "Write its `write` and `read`, or run it in simulation."
    require(compressor.has_layout, what, rule, "none", remedy)
    given = draw is not None or not compressor.shares_draw
    require(given, "A seeded message", "come with its draw", "none", "Pass `draw`.")


def _read(compressor: Compressor, k: int, source: BitReader, width: int, draw: Draw | None) -> Floats:
    before = source.position
    try:
        block: Any = np.asarray(compressor.read(k, source, width, draw), dtype=np.float64)
    except BadMessage:
        raise
    except Exception as error:  # whatever a compressor of somebody else makes of bytes that mean nothing
        shape = f"{type(error).__name__}: {said(str(error))}"
        raise BadMessage(f"A message should be readable. Found {shape}.") from None
    counted, used = compressor.size(k, width), source.position - before
    if block.shape != (k,) or used != counted:
        shape = f"shape {list(block.shape)} in {used} bits"
        raise BadMessage(f"A block should be {k} numbers in {counted} bits. Found {shape}.")
    numbers: Floats = block
    return numbers


def _blocks(
    compressor: Compressor, row: Tensor, layout: Layout, draw: Draw | None
) -> list[tuple[Floats, Draw | None]]:
    sizes = list(compressor.blocks(layout))
    blocks = [part.detach().cpu().double().numpy() for part in torch.split(row, sizes)]
    if draw is None:
        return [(block, None) for block in blocks]
    noises = torch.split(draw.noise, sizes)
    return [(block, Draw(draw.seed, noise)) for block, noise in zip(blocks, noises, strict=True)]
