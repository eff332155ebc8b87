"""Decisions on few rows' n x n numbers: kernels beside NumPy, for every width of vectors, ties and twins."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from byzopt import aggregators as ag
from byzopt import kernels
from byzopt.aggregators.numerics import distances, geometry, measuring

pytestmark = pytest.mark.skipif(not kernels.kernels_available(), reason="needs llvmlite")
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 100]


def products(n, ties=False, seed=0):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 3, (n, 3), generator=draw) if ties else torch.randn(n, 9, generator=draw)
    rows = rows.double().numpy()
    return (rows - rows[n // 2]) @ (rows - rows[n // 2]).T


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", SIZES)
def test_distances_and_their_order_are_those_of_numpy_to_the_last_bit(n, ties):
    gram = products(n, ties)
    gram = (gram + gram.T) / 2
    found = kernels.measured_products(gram)
    dists = distances.squared(gram)
    assert np.array_equal(found.dists, dists)
    assert np.array_equal(found.ranked.T, np.sort(dists, axis=-1))
    assert found.finite
    assert found.ordinary == distances.within_range(gram.diagonal())
    radii = np.sort(dists, axis=-1)[:, n // 2]
    assert (found.best, found.radius) == (radii.argmin(), radii.min())


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", SIZES)
def test_the_nearest_are_those_of_a_stable_sort(n, ties):
    found = kernels.measured_products(products(n, ties))
    own = found.dists.copy()
    np.fill_diagonal(own, -1)  # a row is nearest to itself, even when others coincide with it
    for count in {1, n // 2 + 1, max(1, n - 1), n}:
        assert np.array_equal(kernels.nearest_shares(found, count).T * count > 0.5, _first(own, count))


def _first(dists, count):
    chosen = np.zeros(dists.shape, dtype=bool)
    np.put_along_axis(chosen, dists.argsort(axis=-1, kind="stable")[:, :count], True, axis=-1)
    return chosen


@pytest.mark.parametrize("n,m", [(1, 1), (3, 2), (4, 9), (9, 4), (20, 20), (100, 37)])
def test_products_after_mixing_are_symmetric_and_those_of_twins_equal(n, m):
    draw = np.random.default_rng(n)
    shares, gram = draw.random((n, m)), products(n)
    shares[:, -1] = shares[:, 0]
    found = kernels.mixed_products(shares, kernels.measured_products(gram)).gram
    assert np.allclose(found, shares.T @ gram @ shares, rtol=0, atol=1e-13 * n * np.abs(gram).max() * n)
    assert np.array_equal(found, found.T)
    assert np.array_equal(found[0], found[-1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [1, 3, 8, 19])
def test_one_bad_product_anywhere_is_seen(n, value):
    for i in {0, n // 2, n - 1}:
        gram = products(n)
        gram[i, 0] = gram[0, i] = value
        assert not kernels.measured_products(gram).finite


@pytest.mark.parametrize(
    "own", [[1e-201] * 5, [1e201, 1, 1, 1, 1], [1e-201, 1e-201, 1, 1, 1], [np.nan] + [1] * 4]
)
def test_lengths_out_of_range_are_those_of_numpy(own):
    assert kernels.measured_products(np.diag(own)).ordinary == distances.within_range(np.array(own))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", SIZES)
def test_the_bulk_and_steps_from_it_are_those_of_numpy(n, ties):
    gram = products(n, ties)
    found = []
    for plain in (nullcontext, kernels.disabled):
        with plain():
            here = geometry.Geometry(n, lambda: torch.from_numpy(gram), lambda: None)
            weights, squares = here.apart.bulk()
            floor, ones = np.array([0.01]), np.ones(n)
            found.append((weights, squares, here.apart.weiszfeld(ones, squares, floor, 5)))
    scale = max(1.0, np.abs(gram).max())
    for one, other in zip(*found, strict=True):
        assert np.allclose(one, other, rtol=0, atol=1e-11 * scale)  # a step divides by 0.01 at least


@pytest.mark.parametrize("d", [1, 2, 3, 7, 10, 15, 33, 63])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_narrow_rows_are_worked_on_by_kernels_and_get_the_same_answers(d, dtype):
    rows = torch.randn(9, d, generator=torch.Generator().manual_seed(d)).to(dtype)
    assert kernels.reduces_columns(rows)
    # Where RFA comes near a row, its distance to it is known to the root of rounding, 1e-8 in float64.
    slack = 1e-7 if dtype == torch.float64 else 64 * torch.finfo(dtype).eps
    for rule in (ag.Median(), ag.TrimmedMean(f=2), ag.MeaMed(f=2), ag.Krum(f=2), ag.MultiKrum(f=2), ag.RFA()):
        with kernels.disabled():
            plain = rule(rows)
        assert torch.allclose(rule(rows), plain, rtol=0, atol=slack)
        for bad in (float("nan"), float("inf")):
            worse = rows.clone()
            worse[3, d // 2] = bad
            with kernels.disabled():
                plain = rule(worse)
            assert torch.allclose(rule(worse), plain, rtol=0, atol=slack)


@pytest.mark.parametrize("n,d", [(1, 1), (4, 10), (8, 1000), (20, 3000), (7, 9363)])
def test_products_of_short_float32_rows_are_taken_in_float64_as_they_lie(n, d):
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(n)) + 3
    wide = rows.double() - rows[n // 2].double()
    found = kernels.fused_gram(rows, rows[n // 2], torch.float64)
    exact = wide @ wide.T
    assert (found - exact).abs().max() <= 1e-14 * d**0.5 * max(1.0, float(exact.abs().max()))
    assert torch.equal(found, measuring.linalg.gram(rows, rows[n // 2], torch.float64))
