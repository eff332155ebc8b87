"""What every registered compressor promises of its messages, and what one of somebody else's gets for it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from byzopt.errors import BadMessage, InvalidInput
from byzopt.layout import Layout
from byzopt.rng import seed_of
from byzopt.wire import COMPRESSORS, BitReader, Compressor, Draw, Link, RandK, Shrunk, TopK
from byzopt.wire.messages import check_layout, decode_message, encode_message, message_bytes
from tests.compressors import Halves

LAYOUT = Layout(("a", "b", "c"), ((5, 7), (9,), (1,)))
DTYPES = [(64, torch.float64), (32, torch.float32)]


REGISTERED = [COMPRESSORS.build(name) for name in COMPRESSORS]
SCOPED = [replace(one, scope="tensor") for one in REGISTERED if not isinstance(one, Shrunk)]
OTHERS = [
    RandK(k=3, seeded=True),
    Shrunk(RandK(ratio=0.5, seeded=True)),
    *(Shrunk(one) for one in REGISTERED if one.unbiased),
]
EVERY = [*REGISTERED, *SCOPED, *OTHERS, Halves(), Halves(scope="tensor")]


def rows(dtype, n=5):
    made = torch.randn(n, LAYOUT.d, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    made[1, ::2] = 0
    made[2] = 0
    made[3] *= 1e-20
    made[4] *= 1e20
    return made.to(dtype)


def draws(compressor, dtype, n=5):
    if not compressor.shares_draw:
        return [None] * n
    return [Draw(seed_of(1, "wire", "up", 3), one) for one in Link(3, 1, LAYOUT).uniform(rows(dtype, n))]


def messages(compressor, width, dtype):
    """(compressed row, its draw, its bytes)."""
    sent = compressor(rows(dtype), Link(3, 1, LAYOUT))
    return [
        (row, draw, encode_message(compressor, row, LAYOUT, width, draw))
        for row, draw in zip(sent, draws(compressor, dtype), strict=True)
    ]


@pytest.mark.parametrize("compressor", EVERY, ids=repr)
def test_messages_have_the_bits_of_the_ledger_and_give_the_row_back(compressor):
    for width, dtype in DTYPES:
        for row, draw, data in messages(compressor, width, dtype):
            assert len(data) == message_bytes(compressor, LAYOUT, width)
            assert len(data) == -(-compressor.bits(LAYOUT, width) // 8)
            back = decode_message(compressor, data, LAYOUT, width, draw).to(dtype)
            # Layouts of the library lose nothing; that of `Halves` multiplies, and rounds once more.
            eps = 4 * torch.finfo(dtype).eps if isinstance(compressor, Halves) else 0.0
            torch.testing.assert_close(back, row, rtol=eps, atol=0.0)
        check_layout(compressor, LAYOUT, dtype)


@pytest.mark.parametrize("compressor", EVERY, ids=repr)
def test_bytes_that_mean_nothing_are_refused_or_stand_for_finite_numbers(compressor):
    dice, refused = random.Random(7), 0
    good = messages(compressor, 32, torch.float32)
    size = message_bytes(compressor, LAYOUT)
    for k in range(120):
        _, draw, data = dice.choice(good)
        spoilt = bytearray(data)
        spoilt[dice.randrange(size)] ^= 1 << dice.randrange(8)
        wrong = dice.randbytes(dice.choice([0, 1, size - 1, size + 1, 2 * size]))
        message = [bytes(spoilt), dice.randbytes(size), wrong][k % 3]
        try:
            found = decode_message(compressor, message, LAYOUT, 32, draw)
        except BadMessage:
            refused += 1
        else:
            assert len(message) == size
            assert found.shape == (LAYOUT.d,)
            assert found.isfinite().all()
    assert refused >= 40  # the wrong lengths at least


@pytest.mark.parametrize("compressor", REGISTERED, ids=repr)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_never_becomes_a_message_that_is(compressor, bad):
    row = rows(torch.float32)[:1].clone()
    row[0, :3] = bad
    sent = compressor(row, Link(3, 1, LAYOUT))[0]
    if sent.isfinite().all():  # what a random choice of coordinates left out
        assert compressor.kept(LAYOUT.d) < LAYOUT.d
        return
    with pytest.raises(BadMessage):
        decode_message(compressor, encode_message(compressor, sent, LAYOUT), LAYOUT)


def test_a_compressor_without_a_layout_is_refused_in_its_name():
    class Bare(Halves):
        write, read = Compressor.write, Compressor.read

    for one in (Bare(), replace(Shrunk(), inner=replace(RandK(), k=2))):
        if one.has_layout:
            continue
        with pytest.raises(InvalidInput, match="Bare should have a layout of bits to be sent"):
            check_layout(one, LAYOUT, torch.float32)
        with pytest.raises(InvalidInput, match="Bare"):
            decode_message(one, b"", LAYOUT)


def test_one_that_miscounts_or_does_not_read_what_it_writes_is_refused_before_any_work():
    class Long(Halves):
        def write(self, block, out, width, draw):
            super().write(block, out, width, draw)
            out.integers(1, 1)

    class Deaf(Halves):
        def read(self, k, source, width, draw):
            return -super().read(k, source, width, draw)

    class Short(Halves):
        def read(self, k, source, width, draw):
            return np.full(k, source.floats(1, width)[0])

    for kind, what in ((Long, "as many bits as `size`"), (Deaf, "read what it writes"), (Short, "refuses")):
        with pytest.raises(InvalidInput, match=what):
            check_layout(kind(), LAYOUT, torch.float32)


@pytest.mark.parametrize(
    "error",
    [IndexError("17"), ZeroDivisionError(), MemoryError(), InvalidInput("no"), KeyError("x")],
    ids=repr,
)
def test_whatever_a_layout_raises_on_foreign_bytes_is_their_senders_fault(error):
    class Fragile(Halves):
        def read(self, k, source, width, draw):
            raise error

    compressor = Fragile()
    with pytest.raises(BadMessage):
        decode_message(compressor, bytes(message_bytes(compressor, LAYOUT)), LAYOUT)


def test_a_count_out_of_a_message_makes_nothing_of_that_size():
    source = BitReader(b"\xff" * 8)
    count = int(source.integers(1, 60)[0])
    for read in (source.integers, source.floats):
        with pytest.raises(BadMessage, match="numbers of"):
            read(count, 32)
    with pytest.raises(BadMessage):
        BitReader(b"").integers(-1, 8)


def test_seeded_messages_need_their_draw():
    for compressor in (RandK(k=3, seeded=True), Shrunk(RandK(k=3, seeded=True))):
        with pytest.raises(InvalidInput, match="draw"):
            encode_message(compressor, torch.zeros(LAYOUT.d), LAYOUT)
    assert not TopK().shares_draw
