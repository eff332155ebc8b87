"""FoundationFL: by hand, its twin, what a copied liar does, and whom it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from byzopt.aggregators import (
    MDA,
    NNM,
    Foundation,
    GeometricMedian,
    Krum,
    Mean,
    Median,
    MoNNA,
    TrimmedMean,
    Weighted,
    rule_from,
)
from byzopt.aggregators.core.spelling import rule_data
from byzopt.errors import InvalidInput
from tests.reference import clustering as twin
from tests.reference import rules


def drawn(n=9, d=7, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand():
    # Extremes (3, 3) and (0, 0); (3, 0) is 3 from both, (1, 1) only 1.4 from the nearer.
    rows = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 3.0], [1.0, 1.0]])
    assert Foundation(Mean(), copies=2)(rows).tolist() == pytest.approx([13 / 6, 4 / 6])
    assert Foundation(Mean(), copies=2).explain(rows).selected is not None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("copies", [1, 2, 5])
def test_it_equals_its_twin(seed, copies):
    honest = drawn(9, 7, seed)
    for rows in (honest, torch.cat([honest, 30 * drawn(2, 7, 50 + seed)]), 1e3 + honest):
        listed = list(rows.numpy())
        for rule, slow in (
            (Median(f=2), lambda part: rules.median(part, 2)),
            (TrimmedMean(f=2), lambda part: rules.trimmed_mean(part, 2)),
            (Krum(f=2), lambda part: rules.krum(part, 2)),
        ):
            found = Foundation(rule, copies)(rows).numpy()
            # Sums of n + m numbers, centred about 1e3 at most: 1e3 eps (n + m).
            assert np.allclose(found, twin.foundation(listed, copies, slow), rtol=1e-11, atol=1e-11)


def test_equal_rows_and_copies_of_all_change_nothing():
    rows = drawn(1, 5).expand(7, -1)
    for rule in (Median(f=1), TrimmedMean(f=1), GeometricMedian(f=1)):
        assert torch.allclose(Foundation(rule)(rows), rows[0], rtol=1e-14)


def test_a_liar_who_is_copied_carries_off_what_cuts_too_little_and_nothing_else():
    honest, far = drawn(8, 10, 3), 1e6
    ends = torch.tensor([1.0, -1.0]).double().unsqueeze(1).expand(2, 10)
    third = torch.cat([torch.ones(5), -torch.ones(5)]).double()
    rows = torch.cat([honest, far * ends, far * third.unsqueeze(0)])
    middle = honest.mean(dim=0)

    def off(rule):
        return float((rule(rows) - middle).norm())

    assert off(Foundation(TrimmedMean(f=3), copies=2)) > far / 10
    assert off(Foundation(TrimmedMean(f=5), copies=2)) < 5
    assert off(Foundation(Median(f=3), copies=2)) < 5
    assert Foundation(TrimmedMean(f=3), copies=2).breakdown(11) == 1
    assert Foundation(TrimmedMean(f=5), copies=2).breakdown(11) == 3
    assert Foundation(Median(), copies=2).breakdown(11) == 4  # 6 of 13
    assert Foundation(Median(), copies=20).breakdown(11) == 0


@pytest.mark.parametrize("rule", ["median", "trimmed_mean(f=5)", "krum(f=4)", "nnm(f=5) >> median", "rfa"])
def test_it_stays_bounded_up_to_its_breakdown_point(rule):
    made = Foundation(rule_from(rule, f=3), copies=2)
    most = made.breakdown(15)
    assert most >= 2
    honest = drawn(15 - most, 6, 4)
    for k, lie in enumerate((torch.ones(6), torch.tensor([1.0, -1.0] * 3), -torch.ones(6))):
        lies = 1e8 * lie.double() * torch.linspace(-1, 1, most).double().unsqueeze(1) + drawn(most, 6, k)
        out = made(torch.cat([honest, lies]))
        assert (out - honest.mean(dim=0)).norm() < 50


def test_it_is_spelled_and_follows_the_house():
    rule = rule_from("foundation(rule='nnm >> median', copies=3)", f=2)
    assert rule_from(rule_data(rule)) == rule
    rows = drawn(11, 6)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(rule(rows[order]), rule(rows), rtol=1e-12)
    before = rows.clone()
    assert torch.equal(rule.explain(rows).aggregate, rule(rows))
    assert torch.equal(rows, before)
    bad = rows.clone()
    bad[3, 1] = float("nan")
    keep = [i for i in range(11) if i != 3]
    assert torch.equal(rule(bad), rule.lowered(1)(rows[keep]))
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert rule(rows.to(dtype)).dtype == dtype
    assert torch.isfinite(rule(1e30 * rows.float())).all()
    assert rule.kappa_squared(11) is None
    assert (NNM(f=2) >> rule)(rows).isfinite().all()
    stacked = torch.stack([rows, 2 * rows])
    assert torch.allclose(rule.batch(stacked), torch.stack([rule(rows), rule(2 * rows)]))
    # Influence: the answer is these weights' sum of rows, for rules that weigh whole rows.
    report = Foundation(MDA(f=2), copies=2).explain(rows)
    weights = torch.as_tensor(report.weights, dtype=torch.float64)
    assert torch.allclose(weights @ rows, report.aggregate)


def test_whom_it_refuses():
    for rule in (MoNNA(f=1), Weighted(Median(f=1), weights=(1.0,) * 5), rule_from("boba", f=1)):
        with pytest.raises(InvalidInput, match="no row whose it is"):
            Foundation(rule)
    with pytest.raises(InvalidInput, match="copies"):
        Foundation(Median(), copies=0)
    with pytest.raises(InvalidInput, match="f = 5 with n = 10"):
        Foundation(TrimmedMean(f=5), copies=2).check(8)
