"""Compressors: constants that hold, bits of the table, inputs left alone, ties, scopes, randomness."""

from __future__ import annotations

from math import ceil, log2, sqrt

import pytest
import torch
from torch import Tensor

from byzopt.errors import InvalidInput
from byzopt.layout import Layout
from byzopt.rng import stream
from byzopt.wire import COMPRESSORS, QSGD, Link, Natural, RandK, ScaledSign, Shrunk, TopK
from byzopt.wire.messages import decode_message, encode_message

D = 31
CONTRACTIVE = [
    TopK(k=1),
    TopK(ratio=0.3),
    RandK(k=4, scaled=False),
    RandK(ratio=0.5, scaled=False),
    ScaledSign(),
    Natural(),
    QSGD(levels=8),
    Shrunk(RandK(k=4)),
    Shrunk(Natural()),
    Shrunk(QSGD(levels=1)),
    COMPRESSORS.build("identity"),
]
UNBIASED = [
    RandK(k=4),
    RandK(ratio=0.5),
    Natural(),
    QSGD(levels=1),
    QSGD(levels=4),
    COMPRESSORS.build("identity"),
]


def link(t: int = 1, d: int = D, seed: int = 0) -> Link:
    return Link(t, seed, Layout.flat(d))


def vectors() -> dict[str, Tensor]:
    normal = torch.randn(D, dtype=torch.float64, generator=stream(4, "vectors"))
    sparse = normal * (torch.arange(D) % 7 == 0)
    return {
        "random": normal,
        "sparse": sparse,
        "constant": torch.full((D,), -1.5, dtype=torch.float64),
        "zero": torch.zeros(D, dtype=torch.float64),
        "small": normal * 1e-30,
    }


@pytest.mark.parametrize("what", vectors())
@pytest.mark.parametrize("compressor", CONTRACTIVE, ids=repr)
def test_contraction(compressor, what):
    a = vectors()[what]
    rows = a.expand(4000, D)
    away = (compressor(rows, link()) - rows).square().sum(dim=1)
    alpha, room = compressor.alpha(D), 4 * float(away.std()) / sqrt(len(rows))
    assert alpha is not None
    assert float(away.mean()) <= (1 - alpha) * float(a.square().sum()) * (1 + 1e-12) + room
    if not compressor.random:
        assert float(away.max()) <= (1 - alpha) * float(a.square().sum()) * (1 + 1e-12)


@pytest.mark.parametrize("what", vectors())
@pytest.mark.parametrize("compressor", UNBIASED, ids=repr)
def test_unbiased_and_variance(compressor, what):
    a = vectors()[what]
    rows = a.expand(10_000, D)
    found = compressor(rows, link())
    error = found.std(dim=0) / sqrt(len(rows))
    assert ((found.mean(dim=0) - a).abs() <= 4.5 * error + 1e-12 * a.abs()).all()
    away = (found - rows).square().sum(dim=1)
    room = 4 * float(away.std()) / sqrt(len(rows))
    assert float(away.mean()) <= compressor.omega(D) * float(a.square().sum()) * (1 + 1e-12) + room


def test_the_signs_own_constant_is_exact():
    a = vectors()["sparse"]
    away = (ScaledSign()(a.unsqueeze(0), link())[0] - a).square().sum()
    alpha = a.abs().sum() ** 2 / (D * a.square().sum())
    assert float(away) == pytest.approx(float((1 - alpha) * a.square().sum()), rel=1e-12)


def test_bits_of_the_table():
    flat = Layout.flat(123)
    assert TopK(k=1).bits(flat) == 39
    assert TopK(ratio=0.1).bits(flat) == 12 * 39
    assert RandK(ratio=0.1).bits(flat) == 13 * 39  # rounds up
    assert RandK(k=5, seeded=True).bits(flat) == 32 * 5 + 32
    assert RandK(k=5, scaled=False).bits(flat) == 5 * 39
    assert Natural().bits(flat) == 9 * 123
    assert ScaledSign().bits(flat) == 123 + 32
    for s in (1, 3, 4):
        assert QSGD(levels=s).bits(flat) == 123 * (1 + ceil(log2(s + 1))) + 32
    assert COMPRESSORS.build("identity").bits(flat) == 32 * 123
    assert Shrunk(Natural()).bits(flat) == 9 * 123
    assert (TopK(k=3).coordinates(flat), Natural().coordinates(flat)) == (3, 123)
    elias = (3 + 1.5 * log2(2 * (1 + 123) / (1 + sqrt(123)))) * (1 + sqrt(123)) + 32
    assert QSGD(levels=1).elias(123) == pytest.approx(elias)


def test_constants_of_the_table():
    assert (TopK(k=1).alpha(123), RandK(k=1).omega(123)) == (1 / 123, 122)
    assert Shrunk(RandK(k=1)).alpha(123) == pytest.approx(1 / 123)
    assert Shrunk(Natural()).alpha(9) == pytest.approx(8 / 9)
    assert (RandK(k=4).alpha(31), TopK(k=4).omega(31)) == (None, None)
    assert QSGD(levels=1).omega(100) == 9
    assert QSGD(levels=20).omega(100) == pytest.approx(0.25)


def test_scope_takes_k_of_each_tensor():
    layout = Layout(("a", "b"), ((2, 5), (3,)))
    rows = torch.arange(1.0, 14.0).expand(2, 13)
    whole, parts = TopK(ratio=0.25), TopK(ratio=0.25, scope="tensor")
    assert (whole(rows, Link(1, 0, layout)) != 0).sum(dim=1).tolist() == [3, 3]
    found = parts(rows, Link(1, 0, layout))[0]
    assert found.nonzero().flatten().tolist() == [8, 9, 12]
    assert parts.coordinates(layout) == 3
    assert parts.bits(layout) == 2 * (32 + 4) + 32 + 2
    assert RandK(ratio=0.25, scope="tensor").coordinates(layout) == 4


@pytest.mark.parametrize("k", [1, 2, 5])
def test_ties_go_to_the_lowest_index(k):
    rows = torch.tensor([[1.0, -2.0, 2.0, 2.0, -2.0, 0.5, 2.0], [0.0] * 7, [3.0] * 7])
    found = TopK(k=k)(rows, link(d=7))
    assert found[0].nonzero().flatten().tolist() == sorted([1, 2, 3, 4, 6][:k])
    assert found[2].nonzero().flatten().tolist() == list(range(k))
    assert not found[1].any()


@pytest.mark.parametrize("compressor", [*CONTRACTIVE, *UNBIASED], ids=repr)
def test_inputs_stay_and_dtypes_too(compressor):
    for dtype in (torch.float32, torch.float64):
        rows = torch.randn(3, D, generator=stream(1, "rows")).to(dtype)
        before = rows.clone()
        found = compressor(rows, link())
        assert rows.equal(before)
        assert (found.dtype, found.shape) == (dtype, rows.shape)
        assert compressor(rows, link()).equal(found)


def test_randomness_is_a_function_of_seed_round_and_worker():
    rows, drawn = torch.ones(6, D, dtype=torch.float64), RandK(k=3)
    first = drawn(rows, link())
    assert not drawn(rows, link(t=2)).equal(first)
    assert not drawn(rows, link(seed=1)).equal(first)
    assert not first[0].equal(first[1])
    changed = rows.clone()
    changed[2] = 7
    assert drawn(changed, link())[[0, 1, 3, 4, 5]].equal(first[[0, 1, 3, 4, 5]])
    both = drawn(torch.stack([rows, rows]), Link(1, (0, 1), Layout.flat(D)))
    assert both[0].equal(first)
    assert both[1].equal(drawn(rows, link(seed=1)))


def test_rand_k_draws_every_subset_alike():
    rows = torch.ones(20_000, 5, dtype=torch.float64)
    kept = RandK(k=2)(rows, link(d=5)) != 0
    assert (kept.sum(dim=1) == 2).all()
    code = (kept * 2 ** torch.arange(5)).sum(dim=1)
    counts = torch.bincount(code)[torch.bincount(code) > 0]
    assert len(counts) == 10
    assert ((counts - 2000).abs() < 4.5 * sqrt(2000)).all()


def test_what_is_not_finite_stays_so():
    """A Byzantine row that is not finite must be seen as such by the server."""
    rows = torch.ones(1, D, dtype=torch.float64)
    rows[0, 9] = torch.nan
    for compressor in (TopK(k=1), ScaledSign(), Natural(), QSGD()):
        assert not compressor(rows, link()).isfinite().all()


def test_wrong_parameters():
    for make in (lambda: TopK(k=0), lambda: RandK(ratio=0.0), lambda: TopK(ratio=1.5), lambda: QSGD(0)):
        with pytest.raises(InvalidInput):
            make()
    with pytest.raises(InvalidInput, match="unbiased"):
        Shrunk(TopK(k=1))


EXTREMES = {
    torch.float64: (5e-324, 1e-310, 1e-200, 1e-40, 1e30, 1e36),
    torch.float32: (1e-45, 1e-40, 1e-20, 1e20, 1e36),
}


@pytest.mark.parametrize("compressor", [*CONTRACTIVE, *UNBIASED], ids=repr)
def test_rows_of_any_size_are_compressed_and_cross_as_bytes(compressor):
    """Squares of such rows overflow or vanish; what 32 bits do not hold any more crosses as 0."""
    for dtype, sizes in EXTREMES.items():
        for size in sizes:
            rows = torch.randn(3, D, generator=stream(1, "extremes"), dtype=torch.float64)
            rows = (rows.sign() if size in (5e-324, 1e-45) else rows).mul(size).to(dtype)
            rows[0], rows[:, 5] = 0, 0
            out = compressor(rows, link())
            assert out.isfinite().all(), size
            assert not out[0].any(), size
            assert torch.equal(compressor(rows * 2, link()) / 2, out) or size < 1e-37, size
            for row in out:
                crossed = decode_message(
                    compressor, encode_message(compressor, row, Layout.flat(D)), Layout.flat(D)
                )
                assert torch.allclose(crossed, row.double(), rtol=1e-6, atol=1.5e-45), size
