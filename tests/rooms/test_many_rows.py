"""Hundreds and thousands of rows: other ways of computing, the same answers."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from byzopt import aggregators as ag
from byzopt import linalg
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
    monkeypatch.setattr(distances, "FEW", 3)
    monkeypatch.setattr(distances, "_CACHED", 50)
    assert np.array_equal(distances.nearest(dists, count), few)
    assert (few.sum(axis=1) == count).all()


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
    for module in (distances, products, square):
        monkeypatch.setattr(module, "FEW", 5)
    monkeypatch.setattr(distances, "_CACHED", 100)
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
