"""More workers than coordinates: what kernels see of rows that are points, and of few columns."""

from __future__ import annotations

from math import fsum

import numpy as np
import pytest
import torch

from byzopt import aggregators as ag
from byzopt import kernels
from byzopt.aggregators.numerics.points import Points
from byzopt.aggregators.numerics.selection import answers
from byzopt.kernels import RankWindow

pytestmark = pytest.mark.filterwarnings("error")


def drawn(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lengths(rows, place):
    return np.sqrt(((rows - place) ** 2).sum(axis=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n,d", [(257, 1), (300, 3), (600, 70)])
def test_what_is_seen_of_rows_from_a_place_is_exact(n, d, dtype):
    if not kernels.kernels_available():
        pytest.skip("no kernels")
    whole = drawn(n, d + 5).to(dtype)
    rows, generator = whole[:, 3 : d + 3], np.random.default_rng(0)
    place, way, weights = generator.random(d), generator.random(d), generator.random(n)
    rows[5] = 0
    place[:] = 0 if dtype == torch.float64 else place
    ways = rows.double().numpy() - place
    squares = (ways**2).sum(axis=1)
    found, shares, pull = kernels.pulls(rows, place, weights)
    away = squares > 0
    # Sums of n numbers of size 10, rounded to 1e-16 of it each.
    atol = n * 1e-14
    assert np.allclose(found, squares, rtol=1e-13, atol=0)
    assert np.allclose(shares[away], (weights[away] / np.sqrt(squares[away])), rtol=1e-13, atol=0)
    assert (shares[~away] == 0).all()
    assert np.allclose(pull, (weights[away] / np.sqrt(squares[away])) @ ways[away], rtol=0, atol=atol)
    floored = weights / np.maximum(np.sqrt(squares), 1.5)
    assert np.allclose(kernels.pulls(rows, place, weights, 1.5)[2], floored @ ways, rtol=0, atol=atol)
    assert np.allclose(kernels.ways_to(rows, place, weights), weights @ ways, rtol=0, atol=atol)
    there = place
    for steps in range(4):  # of Weiszfeld's; each shrinks what rounding left
        assert np.allclose(kernels.walk(rows, place, weights, steps), there, rtol=0, atol=1e-12)
        away = rows.double().numpy() - there
        shares = np.divide(weights, norms := np.sqrt((away**2).sum(axis=1)), out=np.zeros(n), where=norms > 0)
        there = there + shares @ away / shares.sum()
    along = (weights * (ways @ way)) @ ways
    assert np.allclose(kernels.spread_along(rows, place, way, weights), along, rtol=0, atol=atol * d)
    assert np.array_equal(kernels.squares_to(rows, place), found)
    with kernels.disabled():
        plain = Points(rows)
        assert np.allclose(plain.pulls(place, weights)[2], pull, rtol=0, atol=atol)
        assert np.allclose(plain.spread_along(place, way, weights), along, rtol=0, atol=atol * d)
        assert np.allclose(plain.squares_to(place), found, rtol=1e-13)


def columns_of_many_kinds(n, dtype):
    spread = drawn(n, 1)
    zeros = spread.clone()
    zeros[::2] = 0
    scaled = spread * torch.where(torch.arange(n)[:, None] % 3 > 0, 1e30, 1e-30)
    same, steps = torch.full((n, 1), -2.5, dtype=torch.float64), spread.round()
    return torch.cat(
        [spread, spread + 1e3, zeros, scaled, same, steps, -spread.abs(), spread * 1e-38], dim=1
    ).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [70, 257, 514, 1300])
def test_order_statistics_of_few_columns_are_those_of_a_sort(n, dtype):
    if not kernels.kernels_available():
        pytest.skip("no kernels")
    rows = columns_of_many_kinds(n, dtype)
    order = torch.from_numpy(np.random.default_rng(0).permutation(n))
    ordered = rows.double().sort(dim=0).values
    for plan in (
        RankWindow((n - 1) // 2, n // 2 + 1),
        RankWindow(n // 4, n - n // 4),
        RankWindow(0, 1),
        RankWindow(7, n),
    ):
        kept = ordered[plan.first : plan.last]
        sums = [fsum(column) for column in kept.T.tolist()]
        exact = torch.tensor(sums, dtype=torch.float64) / len(kept)
        found = torch.empty(rows.shape[1], dtype=dtype)
        assert kernels.reduce_columns(rows, plan, None, found)
        # Each sum is rounded, and the mean.
        rounding = torch.finfo(dtype).eps * (len(kept) - 1) * kept.abs().amax(dim=0)
        assert ((found.double() - exact).abs() <= rounding + 1e-40).all()
        again = torch.empty_like(found)
        kernels.reduce_columns(rows[order].contiguous(), plan, None, again)
        assert torch.equal(again, found)
        for d in (3, 20):  # sorted, or selected
            wide = torch.cat([rows] * 3, dim=1)[:, :d]
            answers(wide, plan, plain := torch.empty(d, dtype=dtype))
            kernels.reduce_columns(wide, plan, None, found := torch.empty(d, dtype=dtype))
            assert torch.equal(found, plain)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_bad_numbers_in_few_columns_are_seen(bad):
    rows = drawn(300, 3)
    plain = ag.Median(f=0)(rows[1:])
    rows[0, 1] = bad
    assert torch.equal(ag.Median(f=1)(rows), plain)
    assert torch.equal(ag.TrimmedMean(f=9)(rows), ag.TrimmedMean(f=8)(rows[1:]))


@pytest.mark.parametrize("n", [257, 300, 641])
def test_the_tightest_majorities_are_those_of_a_sort(n):
    if not kernels.selects():
        pytest.skip("no kernels")
    for rows in (
        drawn(n, 3),
        drawn(n, 30).round(),
        torch.ones(n, 2, dtype=torch.float64),
        drawn(n, 1).round(),
    ):
        gram = (rows @ rows.T).numpy()
        every, few = kernels.reaches(gram, n // 2), kernels.tightest(gram, n // 2)
        best = every <= every.min() * (1 + kernels.TIE)
        assert np.array_equal(few[best], every[best])
        assert (few >= every).all()


@pytest.mark.parametrize("n,d", [(257, 1), (300, 30), (641, 3)])
@pytest.mark.parametrize("kind", ["spread", "far", "equal"])
def test_what_distances_between_short_rows_decide_is_as_by_products(kind, n, d):
    if not kernels.selects():
        pytest.skip("no kernels")
    rows, weights = drawn(n, d).numpy(), np.random.default_rng(0).random(n)
    if kind == "far":
        rows[::3] *= 1e15
        rows[5] *= 1e15
    if kind == "equal":
        rows[:, :] = rows[0]
        rows[0] += 1
    gram, beside = rows @ rows.T, kernels.SideBySide(rows)
    every, few = kernels.reaches(gram, n // 2), beside.tightest(n // 2)
    best = every <= every.min() * (1 + kernels.TIE)
    # Products of d numbers, and squares that are differences of these.
    rounding = 4 * (d + 2) * 1.2e-16 * np.diagonal(gram)
    assert (np.abs(few - every)[best] <= 3 * rounding[best]).all()
    assert (few >= every - 3 * rounding).all()
    sums = [fsum(weights * (lengths(rows, row) - np.sqrt(np.diagonal(gram)))) for row in rows]
    bulk = np.argsort(sums)[: n // 2]
    found = beside.sums_beyond(weights)
    # Distances of a tenth of the rows' lengths, or 0 of twins, keep all but some of their digits.
    size = np.sqrt(np.median(np.diagonal(gram)))
    atol = n * size * 1e-12
    assert np.abs(found - sums)[bulk].max() <= atol + 1e-16 * (1e15 * size * n if kind == "far" else 0)
    # By BLAS's products twins are not quite at distance 0: half of the digits of their lengths are left.
    assert np.allclose(kernels.sums_beyond(gram, weights)[bulk], found[bulk], rtol=0, atol=n * size * 1e-7)
