"""Messages as bytes: as long as the ledger counts, the same row back, a named error for everything else."""

from __future__ import annotations

import random

import pytest
import torch

from byzopt.errors import BadMessage, InvalidInput
from byzopt.layout import Layout
from byzopt.rng import seed_of
from byzopt.wire import COMPRESSORS, Draw, Link
from byzopt.wire.messages import decode_message, encode_message, message_bytes

LAYOUT = Layout(("a", "b"), ((5, 7), (9,)))
KINDS = [
    "identity",
    {"name": "top_k", "k": 1},
    {"name": "top_k", "ratio": 0.2, "scope": "tensor"},
    {"name": "rand_k", "k": 3},
    {"name": "rand_k", "ratio": 0.3, "scaled": False, "scope": "tensor"},
    "natural",
    {"name": "natural", "scope": "tensor"},
    "scaled_sign",
    {"name": "scaled_sign", "scope": "tensor"},
    {"name": "qsgd", "levels": 1},
    {"name": "qsgd", "levels": 5, "scope": "tensor"},
    {"name": "shrunk", "inner": "natural"},
    {"name": "shrunk", "inner": {"name": "rand_k", "k": 4}},
    {"name": "shrunk", "inner": {"name": "qsgd", "levels": 3}},
]


def rows(dtype=torch.float64, n=4):
    made = torch.randn(n, LAYOUT.d, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    made[1, ::2] = 0
    made[2] = 0
    made[3] *= 1e-3
    return made.to(dtype)


@pytest.mark.parametrize("data", KINDS, ids=str)
@pytest.mark.parametrize("width, dtype", [(64, torch.float64), (32, torch.float32)])
def test_there_and_back_bit_for_bit(data, width, dtype):
    compressor = COMPRESSORS.build(data)
    for row in compressor(rows(dtype), Link(3, 1, LAYOUT)):
        message = encode_message(compressor, row, LAYOUT, width)
        assert len(message) == message_bytes(compressor, LAYOUT, width)
        assert len(message) == -(-compressor.bits(LAYOUT, width) // 8)
        assert decode_message(compressor, message, LAYOUT, width).to(dtype).equal(row)


def test_floats_of_32_bits_round_double_precision():
    compressor = COMPRESSORS.build({"name": "top_k", "k": 2})
    row = compressor(rows(), Link(3, 1, LAYOUT))[0]
    back = decode_message(compressor, encode_message(compressor, row, LAYOUT), LAYOUT)
    assert back.equal(row.float().double())


def test_top_1_of_a9a_takes_39_bits_and_5_bytes():
    compressor, layout = COMPRESSORS.build({"name": "top_k", "k": 1}), Layout.flat(123)
    assert compressor.bits(layout) == 39
    assert len(encode_message(compressor, torch.eye(123)[7], layout)) == 5


def test_seeded_messages_leave_the_indices_out():
    compressor = COMPRESSORS.build({"name": "rand_k", "k": 3, "seeded": True})
    link = Link(5, 2, LAYOUT)
    sent, noise = compressor(rows(), link), link.uniform(rows())
    for row, own in zip(sent, noise, strict=True):
        draw = Draw(seed_of(2, "wire", "up", 5), own)
        message = encode_message(compressor, row, LAYOUT, 64, draw)
        assert len(message) == (3 * 64 + 32) // 8
        assert decode_message(compressor, message, LAYOUT, 64, draw).equal(row)
        with pytest.raises(BadMessage, match="seed"):
            decode_message(compressor, message, LAYOUT, 64, draw._replace(seed=1))
    with pytest.raises(InvalidInput, match="draw"):
        encode_message(compressor, sent[0], LAYOUT)


@pytest.mark.parametrize("data", KINDS, ids=str)
def test_a_fuzzed_message_is_a_finite_row_or_a_named_error(data):
    """10,000 messages in all: noise, bits flipped in good ones, and wrong lengths."""
    compressor, dice = COMPRESSORS.build(data), random.Random(7)
    size = message_bytes(compressor, LAYOUT)
    good = [encode_message(compressor, row, LAYOUT) for row in compressor(rows(), Link(3, 1, LAYOUT))]
    refused = 0
    for k in range(720):
        if k % 3 == 0:
            message = dice.randbytes(size)
        elif k % 3 == 1:
            changed = bytearray(dice.choice(good))
            changed[dice.randrange(size)] ^= 1 << dice.randrange(8)
            message = bytes(changed)
        else:
            message = dice.randbytes(dice.choice([0, 1, size - 1, size + 1, 2 * size]))
        try:
            row = decode_message(compressor, message, LAYOUT)
        except BadMessage:
            refused += 1
        else:
            assert len(message) == size
            assert row.isfinite().all()
            assert row.shape == (LAYOUT.d,)
    assert refused >= 240


def test_each_fault_has_its_name():
    compressor, layout = COMPRESSORS.build({"name": "top_k", "k": 2}), Layout.flat(5)
    row = torch.tensor([0.0, 2.0, 0.0, -1.0, 0.0])
    good = encode_message(compressor, row, layout)
    assert decode_message(compressor, good, layout).equal(row.double())

    def bits(indices: str, floats: bytes = b"\x3f\x80\x00\x00" * 2) -> bytes:
        text = indices + "".join(f"{byte:08b}" for byte in floats)
        text += "0" * (-len(text) % 8)
        return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))

    for message, what in [
        (good[:-1], "bytes"),
        (good + b"\0", "bytes"),
        (bits("001111"), "lie in"),
        (bits("001001"), "distinct"),
        (bits("011001"), "ascending"),
        (bits("001011", b"\x7f\x80\x00\x00" * 2), "finite"),
        (bits("001011", b"\x7f\xc0\x00\x00" * 2), "finite"),
        (bits("001011")[:-1] + b"\x01", "zero bits"),
    ]:
        with pytest.raises(BadMessage, match=what):
            decode_message(compressor, message, layout)
    with pytest.raises(InvalidInput, match="at most 2"):
        encode_message(compressor, torch.ones(5), layout)
