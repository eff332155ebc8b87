"""Stages that bound what one row can do: rows of one length, and mixing that carries no row far."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from byzopt.aggregators import NNM, RFA, CappedNNM, Krum, Mean, Normalise, TrimmedMean
from byzopt.errors import InvalidInput
from tests.reference import rules as twin
from tests.reference import rules_more as more


def some(n=11, d=5, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d)) + 1.5
    rows[0] *= 40
    rows[1] *= 1e-3
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_both_equal_their_twins_alone_and_before_a_rule(seed):
    rows = some(seed=seed)
    for stage, expected in (
        (Normalise(), more.normalise(rows)),
        (CappedNNM(f=3), more.capped_nnm(rows, 3)),
        (CappedNNM(f=3, cap=0.3), more.capped_nnm(rows, 3, 0.3)),
    ):
        assert np.allclose(stage(rows), expected, rtol=1e-9)
        assert np.allclose((stage >> Mean())(rows), twin.mean(expected), rtol=1e-9)
        # A stretched row's products have lost up to four of sixteen digits.
        assert np.allclose((stage >> Krum(f=3))(rows), twin.krum(expected, 3), rtol=1e-6)
        assert np.allclose((stage >> TrimmedMean(f=3))(rows), twin.trimmed_mean(expected, 3), rtol=1e-9)


def test_no_row_weighs_more_than_another_however_long_it_is():
    rows = torch.from_numpy(some())
    rows[0], rows[1], rows[2] = 1e200, 1e-200, 0.0
    lengths = Normalise()(rows).norm(dim=1)
    middle = rows.norm(dim=1).median()
    assert torch.allclose(lengths[3:], middle, rtol=1e-9)
    assert lengths[0] == pytest.approx(float(middle), rel=1e-9)
    assert lengths[1] < 1e-190  # stretched a hundred times, no more
    assert lengths[2] == 0
    assert bool(((Normalise() >> Mean())(rows).norm() <= middle * (1 + 1e-9)).all())
    assert not Normalise()(torch.zeros(5, 3)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_that_is_all_but_zero_does_not_blur_the_geometry_behind(dtype):
    """A row stretched without end would have the products of its rounding errors."""
    rows = torch.from_numpy(some()).to(dtype)
    plain = (Normalise() >> RFA(f=3))(rows)
    for size in (1e-3, 1e-9, 1e-30):
        moved = rows.clone()
        moved[1] = rows[1] / rows[1].norm() * size
        behind = torch.from_numpy(more.normalise(moved.double().numpy()))
        expected = RFA(f=3)(behind).to(dtype)
        # Squared distances keep the dtype's digits less four, and distances half as many again.
        assert torch.allclose((Normalise() >> RFA(f=3))(moved), expected, atol=2e-2 * float(plain.norm()))


def test_a_long_way_is_cut_to_the_others_way_and_a_large_cap_is_nnm():
    rows = torch.from_numpy(some())
    moved = (CappedNNM(f=3)(rows) - rows).norm(dim=1)
    free = (NNM(f=3)(rows) - rows).norm(dim=1)
    assert float(moved.max()) == pytest.approx(float(free.median()), rel=1e-9)
    assert torch.allclose(CappedNNM(f=3, cap=1e9)(rows), NNM(f=3)(rows), rtol=1e-12)
    many = torch.stack([rows, rows.flip(0), rows + 1])
    rule = CappedNNM(f=3) >> RFA(f=3)
    assert torch.allclose(rule.batch(many), torch.stack([rule(each) for each in many]), rtol=1e-9)


@pytest.mark.parametrize("cap", [0.0, -1.0, float("nan")])
def test_a_cap_that_is_none_is_refused(cap):
    with pytest.raises(InvalidInput, match="cap"):
        CappedNNM(f=1, cap=cap)
