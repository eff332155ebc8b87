"""Hundreds and thousands of rows: other ways of computing, the same answers."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from byzopt import aggregators as ag
from byzopt import kernels, linalg
from byzopt.aggregators.core.inputs import as_rows
from byzopt.aggregators.numerics import distances, measuring, ordering, products
from byzopt.kernels import square


def drawn(n, d, dtype=torch.float32, seed=0, offset=0.0):
    return (torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + offset).to(dtype)


def test_products_of_many_rows_are_those_of_float64():
    rows = drawn(600, 5_000, offset=100.0)
    centred = rows.double() - rows[7].double()
    exact = centred @ centred.T
    order = np.random.default_rng(0).permutation(600)
    for found in (linalg.gram(rows, rows[7]), linalg.gram(rows, rows[7], order=order)):
        assert torch.equal(found, found.T)
        # Sums of 2048 products in float32: each adds at most half a unit of its last place.
        assert (found - exact).abs().max() <= 2048 * 6e-8 * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("given", [torch.float32, torch.float64])
@pytest.mark.parametrize("n,d", [(257, 256), (257, 1_000), (300, 5_001), (1_030, 300)])
def test_products_by_panels_are_those_of_float64(n, d, given, dtype):
    if not kernels.kernels_available() or dtype.itemsize < given.itemsize:
        pytest.skip("no kernels, or a dtype in which nothing is multiplied")
    rows = drawn(n, d, given, offset=3.0)
    rows[-1] = rows[0]
    centred = rows.double() - rows[7].double()
    exact = centred @ centred.T
    found = kernels.fused_gram(rows, rows[7], dtype)
    assert torch.equal(found, found.T)
    assert torch.equal(found[0], found[-1])
    # Sums of 256 products: each adds at most half a unit of its last place, and so did centring.
    assert (found - exact).abs().max() <= 258 * torch.finfo(dtype).eps * exact.abs().max()
    rows[5, d // 2] = float("nan")
    assert not kernels.fused_gram(rows, rows[7], dtype)[5, 5].isfinite()


def test_products_by_panels_do_not_depend_on_where_columns_begin():
    # Rows of a larger matrix: a stride of its own, and places that no vector begins at.
    if not kernels.kernels_available():
        pytest.skip("no kernels")
    whole = drawn(300, 1_003)
    part = whole[:, 3:900]
    assert torch.equal(kernels.fused_gram(part, part[1]), kernels.fused_gram(part.clone(), part[1].clone()))


@pytest.mark.parametrize("offset", [0.0, 0.5, 1e4])
def test_products_without_kernels_keep_their_digits_wherever_the_bulk_is(offset):
    rows = drawn(20, 60_000, offset=offset)
    rows[17:] *= 1e6
    with kernels.disabled():
        found = measuring.geometry_of(rows)
        near = found.sq_dists[:17, :17]
        assert (found.pivot is None) == (offset < 2)  # near the origin rows are multiplied as they lie
        norms = found.sq_norms
    exact = torch.cdist(rows[:17].double(), rows[:17].double()).square()
    # Rows lie up to 8 widths of the bulk from what products are about: 64 times a rounding of float32, and
    # centring rounds offsets of 1e4 to 1e-3.
    assert (near - exact).abs().max() <= (64 * 2 * 6e-8 + (2e-3 / 1.4 if offset == 1e4 else 0)) * exact.max()
    assert torch.allclose(norms, rows.double().square().sum(dim=1), rtol=1e-5)


def shares_of(n, count, seed):
    """Each row the mean of some: what stages that mix leave. Most choose the same ones."""
    generator = np.random.default_rng(seed)
    wanted = generator.random((n, n)) + np.where(np.arange(n) < count, 0, 0.8)
    wanted[n // 3] = wanted[2 * n // 3] = wanted[3]
    chosen = wanted.argsort(axis=1)[:, :count]
    shares = np.zeros((n, n))
    np.put_along_axis(shares, chosen, 1 / count, axis=1)
    return shares


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("n,count", [(257, 200), (300, 151), (301, 300), (400, 1)])
def test_products_of_even_shares_are_those_of_the_full_product(n, count, compiled):
    mixing = shares_of(n, count, seed=n)
    rows = np.random.default_rng(1).standard_normal((n, 50)) + 2
    mixed = mixing @ rows
    with nullcontext() if compiled else kernels.disabled():
        found = products.congruent(mixing, rows @ rows.T)
    assert np.array_equal(found, found.T)
    for twin in (n // 3, 2 * n // 3):
        assert np.array_equal(found[twin], found[3])
    # Sums of n products of rows whose squared lengths are below 500, summed with rounding of 1e-16 each.
    assert np.abs(found - mixed @ mixed.T).max() <= n * 500 * 1e-16


@pytest.mark.parametrize("count", [151, 260])
def test_sums_of_products_in_single_precision_lose_no_more_than_those_lost(count):
    n = 300
    mixing = shares_of(n, count, seed=n)
    rows = np.random.default_rng(1).standard_normal((n, 50)) + 2
    gram = rows @ rows.T
    if not kernels.supports(torch.from_numpy(gram)):
        pytest.skip("no kernels")
    exact, found = (products.congruent(mixing, gram, single) for single in (False, True))
    usual = 2 * (mixing > 0).sum(axis=0) > n
    unlike = ((mixing > 0) ^ usual).sum(axis=1).max()
    # Two passes of sums of at most 256 numbers, and their rounding, over all rows that are not as usual.
    assert 0 < np.abs(found - exact).max() <= 2 * 257 * 6e-8 * gram.max() * (unlike / count) ** 2
    assert np.array_equal(found[n // 3], found[3])
    # Products too large for it are summed in float64.
    scale = 2.0**200
    assert np.array_equal(products.congruent(mixing, gram * scale, True), exact * scale)


@pytest.mark.parametrize("huge", [1e10, 1e60])
def test_rows_that_nobody_chooses_leave_no_trace_in_products_of_the_others(huge):
    n, liars = 300, 90
    mixing = shares_of(n, n - liars - 30, seed=0)
    mixing[:, n - liars :] = 0
    rows = np.random.default_rng(1).standard_normal((n, 50))
    rows[n - liars :] *= huge
    honest = mixing @ np.where(np.arange(n)[:, None] < n - liars, rows, 0)
    found = products.congruent(mixing, rows @ rows.T)
    assert np.allclose(found, honest @ honest.T, rtol=0, atol=1e-11)


@pytest.mark.parametrize("equal", [0, 5, 300])
def test_a_rank_is_that_of_a_sort_however_many_values_are_equal(equal):
    values = np.random.default_rng(0).random((301, 301))
    values[:, :equal] = 0.5
    for rank in (0, 150, 299, 300):
        assert np.array_equal(distances.kth(values, rank), np.sort(values, axis=1)[:, rank])


def test_equal_rows_among_many_are_at_distance_zero():
    rows = drawn(700, 900, offset=3.0)
    rows[600:], rows[5] = rows[4], rows[699]
    rows[300], rows[301] = 0.0, -0.0
    rows[651, 0] += 1  # alike but for one number
    found = measuring.geometry_of(rows)
    twins = [4, 5, *range(600, 651), *range(652, 700)]
    assert (found.sq_dists[twins][:, twins] == 0).all()
    assert found.sq_dists[300, 301] == 0
    assert abs(found.sq_dists[651, 4] - 1) < 0.01
    assert (found.sq_dists[4, 6:300] > 0).all()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [1, 20, 39, 40])
def test_the_nearest_are_those_of_a_stable_sort(count, ties, monkeypatch):
    generator = np.random.default_rng(count)
    dists = generator.integers(0, 5, (30, 40)).astype(float) if ties else generator.random((30, 40))
    few = distances.nearest(dists, count)
    monkeypatch.setattr(distances, "WHOLE", 3)
    monkeypatch.setattr(distances, "_CACHED", 50)
    assert np.array_equal(distances.nearest(dists, count), few)
    assert (few.sum(axis=1) == count).all()


@pytest.mark.parametrize("count", [1, 2, 20, 40])
def test_whether_an_order_is_known_changes_nobody_near(count, monkeypatch):
    rows = np.random.default_rng(count).integers(-1, 2, (40, 6)).astype(float)
    few = distances.Distances(rows @ rows.T).nearest_shares(count)
    monkeypatch.setattr(square, "FEW", 5)
    monkeypatch.setattr(distances, "WHOLE", 5)
    many = distances.Distances(rows @ rows.T)
    unsorted = many.nearest_shares(count)
    _ = many.ranked
    order = np.random.default_rng(0).permutation(40)
    assert np.array_equal(unsorted, few)
    assert np.array_equal(many.nearest_shares(count), few)
    assert np.array_equal(
        many.taken(order).ranked, distances.Distances(many.gram[np.ix_(order, order)]).ranked
    )


def test_numbers_of_many_rows_are_those_of_few_to_rounding(monkeypatch):
    rows = drawn(37, 60, torch.float64)
    rows[30:] = rows[30]
    mixing = torch.rand(23, 37, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mixing[20], mixing[21] = mixing[3], mixing[3]
    mixing /= mixing.sum(dim=1, keepdim=True)

    def numbers():
        plain = measuring.geometry_of(rows)
        mixed = plain.mixed(mixing, affine=True)
        return plain.sq_dists, plain.ranked, plain.bulk(), mixed.centred, mixed.bulk()

    few = numbers()
    for module, name in ((distances, "WHOLE"), (products, "WHOLE"), (square, "FEW")):
        monkeypatch.setattr(module, name, 5)
    monkeypatch.setattr(distances, "_CACHED", 100)
    for most in (5, 1024):
        monkeypatch.setattr(distances, "_SORTED", most)
        for one, other in zip(few, numbers(), strict=True):
            assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
    product = numbers()[3]
    assert torch.equal(product, product.T)
    assert torch.equal(product[20], product[3])
    assert product[20, 21] == product[3, 3]


@pytest.mark.parametrize(
    "rule",
    [ag.Krum(f=120), ag.NNM(f=120) >> ag.RFA(), ag.NNM(f=120) >> ag.GeometricMedian(), ag.MultiKrum(f=120)],
    ids=repr,
)
def test_the_order_of_many_workers_means_nothing(rule):
    rows = drawn(600, 400, offset=2.0)
    rows[480:] = 5 * rows[480]  # liars agree
    order = torch.from_numpy(np.random.default_rng(3).permutation(600))
    exact = rule(rows.double())
    for found in (rule(rows), rule(rows[order])):
        assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_chains_of_many_rows_give_the_same_bits_in_any_order():
    rows = drawn(600, 300)
    rows[500:] = rows[3]
    order = torch.from_numpy(np.random.default_rng(3).permutation(600))
    chain = ag.NNM(f=150) >> ag.Krum(f=150)
    assert torch.equal(chain(rows), chain(rows[order]))


def test_the_sample_that_finds_equal_rows_is_of_the_columns_that_decide():
    rows = drawn(5, 2_000)
    assert ordering.sample(rows).shape == (5, 512)
    assert torch.equal(ordering.sample(rows[:, :100]), rows[:, :100])


@pytest.mark.parametrize(
    "name", [*ag.RULES, *(f"{stage} >> krum" for stage in ag.PRE_AGGREGATORS), "nnm >> median"]
)
def test_a_call_lets_go_of_its_rows_at_once(name):
    # Not only when garbage is collected: rows may take most of the memory there is.
    rule = ag.rule_from(name, f=2)
    rows = torch.from_numpy(memory := np.random.default_rng(0).random((15, 300), dtype=np.float32))
    held = weakref.ref(memory)
    gc.disable()
    try:
        rule(rows)
        del rows, memory
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["array", "mapped"])
def test_read_only_rows_are_not_copied(kind, tmp_path):
    rows = np.random.default_rng(0).random((5, 4_000), dtype=np.float32)
    if kind == "mapped":
        rows.tofile(tmp_path / "rows")
        rows = np.memmap(tmp_path / "rows", dtype=np.float32, mode="r", shape=(5, 4_000))
    else:
        rows.flags.writeable = False
    seen = as_rows(rows)
    assert seen.data_ptr() == rows.__array_interface__["data"][0]
    assert np.array_equal(ag.Krum(f=1)(rows), ag.Krum(f=1)(rows.copy()))
