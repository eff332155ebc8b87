"""A mean behind a stage that bounds every row: what it withstands, and at which doors that counts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from byzopt.aggregators import PRE_AGGREGATORS, Mean, Normalise, PreAggregator, rule_from
from byzopt.errors import TooManyFaults
from byzopt.methods import ByzNSGDM
from byzopt.testing.rules import enough
from tests.running import play

BOUNDED = ("normalise >> mean", "clipping >> mean", "arc >> mean", "normalise >> capped_nnm >> mean")
N, F = 20, 3


def huge(n, f, value):
    rows = 1 + 0.3 * torch.randn(n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows[:f] = value
    return rows


@pytest.mark.parametrize("name", PRE_AGGREGATORS)
def test_a_stage_says_that_it_bounds_rows_exactly_where_it_does(name):
    stage = PRE_AGGREGATORS.build(name, f=F)
    n = enough(stage)
    out = [float(stage(huge(n, stage.breakdown(n), value)).norm(dim=1).max()) for value in (1e9, 1e18)]
    assert stage.bounds == (out[1] <= 2 * out[0])


@pytest.mark.parametrize("name", BOUNDED)
def test_a_mean_behind_it_withstands_what_the_stages_withstand(name):
    rule = rule_from(name, f=F)
    stages = rule.stages
    assert rule.tolerance(N) == min(stage.tolerance(N) for stage in stages) >= F
    assert rule.breakdown(N) == min(stage.breakdown(N) for stage in stages)
    k = rule.breakdown(N)
    honest = float(huge(N, k, 0.0)[k:].norm(dim=1).max())
    for value in (1e6, -1e30):
        assert float(rule(huge(N, k, value)).norm()) <= honest
    assert rule.kappa_squared(N, F) is None
    assert "no coefficient is proved" in rule.unproved(N, F)


@pytest.mark.parametrize("name", BOUNDED)
def test_rows_that_are_not_finite_are_dropped_up_to_what_it_withstands(name):
    rule = rule_from(name, f=F)
    most = rule.tolerance(N)
    rows = huge(N, 0, 0.0)
    rows[:most] = torch.nan
    assert torch.equal(rule(rows), rule.lowered(most)(rows[most:]))
    rows[most] = torch.inf
    with pytest.raises(TooManyFaults):
        rule(rows)


@pytest.mark.parametrize("name", ["mean", "nnm >> mean", "bucketing >> mean", "capped_nnm >> mean"])
def test_a_mean_of_rows_that_nobody_has_bounded_withstands_none(name):
    rule = rule_from(name, f=F)
    assert rule.tolerance(N) == rule.breakdown(N) == 0
    with pytest.raises(TooManyFaults):
        rule(huge(N, 1, torch.nan))


def test_nothing_is_said_of_a_stage_or_a_mean_that_decides_in_its_own_way():
    class Longer(Normalise):
        def mixing(self, geometry):
            return super().mixing(geometry) * 1e9

    class Largest(Mean):
        def reduce(self, mixed):
            return super().reduce(mixed) * 1e9

    assert not Longer.bounds
    assert not Largest.keeps_bounds
    assert (Longer() >> Mean()).tolerance(N) == (Normalise() >> Largest()).tolerance(N) == 0


def test_a_stage_that_says_so_of_itself_is_believed():
    @dataclass(frozen=True)
    class Cut(PreAggregator):
        bounds = True
        affine = False

        def mixing(self, geometry):
            return (1 / (1 + geometry.sq_norms.sqrt())).diag_embed()

    assert (Cut() >> Mean()).tolerance(N) == (N - 1) // 2


@pytest.mark.parametrize("name", ["normalise >> mean", "normalise >> capped_nnm(cap=0.5) >> mean"])
def test_a_training_survives_workers_whose_rows_are_not_finite(name):
    ended = list(play(ByzNSGDM(), rule_from(name, f=2), "nan", n=9, byzantine=2, last=5))
    assert len(ended) == 5
    assert bool(ended[-1].x.isfinite().all())
