"""Stages that bound what one row can do: rows of one length, and mixing that carries no row far."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from byzopt.aggregators import (
    ARC,
    NNM,
    RFA,
    CappedNNM,
    CenteredClipping,
    Clipping,
    Krum,
    Mean,
    Normalise,
    NormClipping,
    RoundContext,
    TrimmedMean,
)
from byzopt.aggregators.core.batching import batch_aggregate
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


TOGETHER = (
    Normalise() >> Mean(),
    Normalise() >> RFA(f=3),
    Normalise() >> TrimmedMean(f=3),
    NNM(f=3) >> Normalise() >> RFA(f=3),
    ARC(f=3) >> RFA(f=3),
    ARC(f=3) >> NNM(f=3) >> Mean(),
    Clipping(tau=1.5) >> Krum(f=3),
    NormClipping(f=3),
    NormClipping(f=3, bound=0.7),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", TOGETHER, ids=str)
def test_many_sets_in_one_call_are_answered_as_each_alone(rule, dtype):
    sets = torch.from_numpy(np.stack([some(seed=seed) for seed in range(5)])).to(dtype)
    if not {"NNM", "Krum"} & set(re.findall(r"\w+", str(rule))):  # for which rows cut to one length would tie
        sets[1, 3] = 0.0
    sets[2, 4] *= 1e6
    stacked = batch_aggregate(rule.stages, rule.last, sets)
    assert stacked is not None  # not one by one
    alone = torch.stack([rule(each) for each in sets])
    # In float32 a row that is 10^6 times as long is cut to the others' length: six of seven digits of its
    # products with them are gone, alone too, before it is cut.
    loose = 1e-9 if dtype == torch.float64 else 1e-4
    assert torch.allclose(stacked[0], alone, rtol=loose, atol=loose)
    sets[3, 5] = torch.finfo(dtype).max / 4  # far beyond: left to one call each, with the same answer
    assert batch_aggregate(rule.stages, rule.last, sets) is None
    assert torch.equal(rule.batch(sets), torch.stack([rule(each) for each in sets]))


def test_lengths_after_a_stage_are_looked_at_one_set_at_a_time():
    """Products of mixed rows lose the digits that a length needs."""
    rule, sets = NNM(f=3) >> NormClipping(f=3), torch.from_numpy(np.stack([some(), some(seed=1)]))
    assert batch_aggregate(rule.stages, rule.last, sets) is None
    assert torch.equal(rule.batch(sets), torch.stack([rule(each) for each in sets]))


@pytest.mark.parametrize(
    "rule", [CenteredClipping(f=3), CenteredClipping(f=3, tau=0.5, iterations=3)], ids=str
)
def test_clipping_from_the_last_aggregate_answers_many_sets_at_once(rule):
    memory, at = rule.as_filter(), RoundContext(2, torch.zeros(5))
    first = torch.from_numpy(some(seed=9))
    _, state = memory.step(memory.init(first[0], 11), first, at)
    sets = torch.from_numpy(np.stack([some(seed=seed) for seed in range(5)]))
    alone = torch.stack([memory.preview(state, each, at) for each in sets])
    assert torch.allclose(memory.preview(state, sets, at), alone, rtol=1e-9)
    assert not torch.allclose(alone, torch.stack([rule(each) for each in sets]))  # the centre counts
