"""The straight way of usual calls: the bits of the long way, on whatever rows; kernels beside NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from byzopt import aggregators as ag
from byzopt import kernels
from byzopt.aggregators.core import calling, straight
from byzopt.aggregators.numerics import ordering
from byzopt.aggregators.numerics.distances import Distances
from byzopt.aggregators.numerics.products import chained

pytestmark = pytest.mark.skipif(not kernels.kernels_available(), reason="needs llvmlite")
STAGES = [(), (ag.NNM(f=1),), (ag.NNM(f=1), ag.NNM(f=1))]
LAST = [
    ag.Krum(f=1),
    ag.Krum(f=1, extra=1, power=1),
    ag.MultiKrum(f=1),
    ag.RFA(),
    ag.RFA(start="mean"),
    ag.Medoid(),
    ag.MDA(f=1),
    ag.GeometricMedian(),
    ag.CenteredClipping(),
    ag.TrimmedMean(f=1),
    ag.Median(f=1),
    ag.MeaMed(f=1),
]
RULES = [ag.Chain(stages, last) if stages else last for stages in STAGES for last in LAST]
KINDS = {
    "usual": lambda n, d, draw: torch.randn(n, d, generator=draw, dtype=torch.float64),
    "tied": lambda n, d, draw: torch.randint(0, 2, (n, d), generator=draw).double(),
    "offset": lambda n, d, draw: 1e3 + 0.1 * torch.randn(n, d, generator=draw, dtype=torch.float64),
    "equal": lambda n, d, draw: torch.ones(n, d, dtype=torch.float64),
    "far": lambda n, d, draw: (
        torch.randn(n, d, generator=draw, dtype=torch.float64)
        * torch.tensor([1e6] + [1.0] * (n - 1), dtype=torch.float64)[:, None]
    ),
}


def rows_of(kind, n, d, dtype):
    return KINDS[kind](n, d, torch.Generator().manual_seed(n + d)).to(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_the_straight_way_has_the_bits_of_the_long_way(rule, kind):
    for n, d, dtype in (
        (5, 1, torch.float32),
        (6, 3, torch.float64),
        (9, 700, torch.float32),
        (8, 9000, torch.float32),
        (17, 5000, torch.float32),
    ):
        rows = rows_of(kind, n, d, dtype)
        before = rows.clone()
        assert rule.direct
        assert torch.equal(rule(rows), calling.call_rule(rule, rows, None, False).out), (n, d)
        assert torch.equal(rule(rows), calling.call_rule(rule, rows, None, False, explained=True).out), (n, d)
        assert torch.equal(rows, before)


def test_usual_rows_go_straight_and_others_do_not():
    rule = ag.NNM(f=1) >> ag.Krum(f=1)
    assert straight.straight_answer(rule, rows_of("usual", 9, 40, torch.float32)) is not None
    for i in range(9):  # one of them is the first pivot
        one = rows_of("usual", 9, 40, torch.float32)
        one[i] += 1e4
        assert torch.equal(rule(one), calling.call_rule(rule, one, None, False).out)
    spoilt = rows_of("usual", 9, 40, torch.float32)
    spoilt[2, 7] = torch.nan
    assert torch.equal(rule(spoilt), (ag.NNM(f=0) >> ag.Krum(f=0))(spoilt[[0, 1, 3, 4, 5, 6, 7, 8]]))


def test_subclasses_that_decide_otherwise_take_the_long_way():
    class Other(ag.Krum):
        def weights(self, geometry):
            return torch.full((geometry.m,), 1 / geometry.m, dtype=torch.float64)

    assert not Other(f=1).direct
    assert not (ag.NNM(f=1) >> Other(f=1)).direct
    assert not ag.RFA(nu_absolute=0.1).direct
    assert not ag.RFA(start="zero").direct
    assert not (ag.Bucketing(s=2) >> ag.Krum(f=0)).direct


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n,d", [(1, 1), (2, 3), (5, 17), (9, 600), (40, 3000)])
def test_rows_are_measured_in_the_order_of_their_keys(n, d, dtype):
    rows = rows_of("usual", n, d, dtype)
    columns, factors = ordering.listed(d)
    keys = kernels.row_sums(rows, columns, factors)
    wide = rows.double().numpy()
    # Sums of at most 512 numbers of size 10 in float64: 512 * 10 * 2^-53 is below 1e-12.
    assert np.allclose(keys, wide[:, columns] @ factors, rtol=0, atol=1e-12)
    order, found = kernels.measured_rows(rows, torch.float64, (columns, factors))
    assert np.array_equal(order, keys.argsort(kind="stable"))
    about = wide[order] - wide[order[n // 2]]
    assert np.allclose(found.gram, about @ about.T, rtol=1e-12, atol=1e-12 * d)
    none, plain = kernels.measured_rows(rows, torch.float64, None)
    about = wide - wide[0]
    assert none is None
    assert np.allclose(plain.gram, about @ about.T, rtol=1e-12, atol=1e-12 * d)


@pytest.mark.parametrize("n,m,depth", [(1, 1, 1), (3, 2, 5), (8, 1, 9), (20, 20, 20), (33, 7, 4)])
def test_products_and_blends_are_those_of_numpy(n, m, depth):
    draw = np.random.default_rng(n)
    left, right = draw.random((m, depth)), draw.random((depth, n))
    assert np.allclose(kernels.matrix_product(left, right), left @ right, rtol=1e-13)
    right[:, -1] = right[:, 0]
    assert (chained(left, right)[:, -1] == chained(left, right)[:, 0]).all()
    rows, weights = torch.from_numpy(draw.random((n, 70))), draw.random(m)
    shares = draw.random((n, m)) * (draw.random((n, m)) > 0.5)
    order = draw.permutation(n)
    out = kernels.mixed_blend(weights, shares, rows, order)
    assert np.allclose(out.numpy(), weights @ shares.T @ rows.numpy()[order], rtol=1e-12)
    assert np.allclose(kernels.mixed_blend(shares[:, 0], None, rows, None), shares[:, 0] @ rows.numpy())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 5, 8, 30])
def test_choices_of_kernels_are_those_of_numpy(n, kind):
    wide = rows_of(kind, n, 6, torch.float64).numpy()
    gram = (wide - wide[n // 2]) @ (wide - wide[n // 2]).T
    gram = (gram + gram.T) / 2
    apart = Distances(gram)
    ranked = np.sort(apart.squared, axis=-1)
    for neighbours, count in ((max(0, n - 3), 1), (n // 2, n // 2 + 1)):
        best = apart.best_shares(neighbours, count)
        scores = np.zeros(n)
        for k in range(1, 1 + min(neighbours, n - 1)):
            scores = scores + ranked[:, k]
        expected = np.zeros(n)
        expected[scores.argsort(kind="stable")[:count]] = 1 / count
        assert np.array_equal(best, expected)
    with kernels.disabled():
        plain = ag.RFA().decide(Distances(gram))
    assert np.allclose(apart.steps_from_bulk(1e-6, 8), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("d", [1, 2, 7, 15, 31, 63])
def test_few_columns_are_mixed_and_ranked_by_kernels(d):
    rows, draw = rows_of("usual", 9, d, torch.float32), np.random.default_rng(d)
    mixing, out = draw.random((6, 9)), torch.empty(d)
    assert kernels.reduces_columns(rows, mixing)
    assert kernels.reduce_columns(rows, kernels.RankWindow(2, 4), mixing, out, np.arange(9))
    mixed = np.sort(mixing @ rows.double().numpy(), axis=0)
    # Nine products of numbers below 4 in float32, and the mean of two: 9 * 4 * 2^-23 is below 1e-5.
    assert np.allclose(out.numpy(), mixed[2:4].mean(axis=0), atol=1e-5)
