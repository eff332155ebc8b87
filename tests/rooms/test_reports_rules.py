"""Reports on rules: what they say on small inputs worked out by hand, and how often the alarm is false."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from byzopt.aggregators import (
    CGE,
    NNM,
    Bucketing,
    Bulyan,
    FailClosed,
    FoolsGold,
    GeometricMedian,
    Krum,
    Mean,
    Median,
    MultiKrum,
    Phocas,
    SignMajority,
    TrimmedMean,
    Zeno,
    rule_data,
    rule_from,
)
from byzopt.aggregators.core.suspicion import dimensions, suspicion_radius
from byzopt.aggregators.numerics.measuring import geometry_of
from byzopt.errors import InvalidInput, TooManyFaults

NAN = float("nan")


def column(*values):
    return torch.tensor([[value] for value in values], dtype=torch.float64)


def gaussian(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_krum_reports_its_scores_and_the_one_row_it_chose():
    report = Krum(f=1).explain(column(0.0, 1.0, 3.0, 4.0, 100.0))
    # With n - f - 2 = 2 neighbours: 1 + 9, 1 + 4, 1 + 4, 1 + 9, 96² + 97².
    assert report.scores.tolist() == [10, 5, 5, 10, 18625]
    assert report.measure == "Krum score"
    assert report.weights.tolist() == [0, 1, 0, 0, 0]
    assert (report.selected, report.rejected) == ((1,), (0, 2, 3, 4))
    assert report.reasons[0] == "Krum score 10, at most 5 among the selected"
    assert report.reasons[2] == "weight 0 of an even 0.2"  # a tie, lost by index
    assert (report.f, report.breakdown, report.n) == (1, 1, 5)


def test_multi_krum_shares_its_weight_evenly():
    report = MultiKrum(f=1).explain(column(0.0, 1.0, 3.0, 4.0, 100.0))
    assert report.weights.tolist() == [0.25, 0.25, 0.25, 0.25, 0]
    assert report.rejected == (4,)


def test_other_scores_are_norms_promises_and_distances():
    rows = column(1.0, -2.0, 3.0)
    assert CGE(f=1).explain(rows).scores.tolist() == [1, 2, 3]
    assert Zeno(f=1, rho=0.5).explain(rows).scores.tolist() == [0.5 - 1, 2 + 2, 4.5 - 3]
    assert Median().explain(rows).scores.tolist() == [0, 3, 2]


def test_a_median_shares_each_column_between_its_middle_values():
    rows = torch.tensor([[0.0, 5.0], [1.0, 6.0], [2.0, 0.0], [3.0, 1.0]])
    report = Median().explain(rows)
    assert report.weights.tolist() == [0.25, 0.25, 0.25, 0.25]
    assert Median().explain(rows[:3]).weights.tolist() == [0.5, 0.5, 0]


def test_trimmed_mean_and_phocas_share_each_column_among_the_values_they_average():
    rows = column(0.0, 1.0, 2.0, 3.0, 50.0)
    assert TrimmedMean(f=1).explain(rows).weights.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0])
    assert Phocas(f=1).explain(rows).weights.tolist() == pytest.approx([0.25, 0.25, 0.25, 0.25, 0])


def test_bulyan_weighs_only_rows_that_it_picked():
    report = Bulyan(f=1).explain(column(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 90.0))
    assert report.weights[6] == 0
    assert sorted(report.weights.tolist())[-3:] == pytest.approx([1 / 3] * 3)


def test_a_sign_vote_is_shared_among_those_who_won_it():
    rows = torch.tensor([[1.0, 2.0, 0.0], [3.0, -1.0, 0.0], [-1.0, -4.0, 0.0]])
    assert SignMajority().explain(rows).weights.tolist() == pytest.approx([1 / 6, 1 / 3, 1 / 6])


def test_mixing_gives_weight_to_the_rows_behind_the_chosen_one():
    rows = column(0.0, 1.0, 2.0, 3.0, 100.0)
    report = (NNM(f=1) >> Krum(f=1)).explain(rows)
    assert sorted(report.weights.tolist()) == [0, 0.25, 0.25, 0.25, 0.25]
    assert report.rejected == (4,)
    assert float(report.weights @ rows[:, 0]) == float(report.aggregate[0])


def test_columns_taken_by_network_or_by_sort_report_alike():
    rows = gaussian(9, 5000)
    report = Median().explain(rows)
    rank = (rows.argsort(dim=0).argsort(dim=0) == 4).double().mean(dim=1)
    assert torch.allclose(report.weights, rank, atol=1e-12)


def test_a_faint_row_of_a_smooth_rule_is_rejected():
    rows = gaussian(11, 20)
    rows[3] += 1e3
    report = GeometricMedian().explain(rows)
    assert report.rejected == report.suspected == (3,)
    assert 0 < report.weights[3] < 0.01
    assert "times as far from the majority" in report.reasons[3]


def test_a_mean_selects_a_suspect_and_says_so():
    rows = gaussian(11, 20)
    rows[3] += 1e3
    report = Mean().explain(rows)
    assert 3 in report.selected
    assert report.suspected == (3,)
    assert list(report.reasons) == [3]
    assert (report.f, report.breakdown) == (0, 0)
    with pytest.raises(TooManyFaults):
        Mean()(rows, fail_closed=True)


def test_breakdown_is_the_rules_own_and_not_the_f_it_was_given():
    rows = gaussian(11, 4)
    assert Median(f=2).explain(rows).breakdown == GeometricMedian(f=1).explain(rows).breakdown == 5
    assert TrimmedMean(f=2).explain(rows).breakdown == 2
    assert (NNM(f=3) >> Median(f=3)).explain(rows).breakdown == 3
    assert (Bucketing(s=2) >> Median(f=1)).explain(rows).breakdown == 2
    assert FoolsGold().explain(rows).breakdown == 0


def test_a_report_reads_like_a_table_and_cannot_be_changed():
    rows = column(0.0, 1.0, 2.0, NAN)
    report = TrimmedMean(f=1).explain(rows)
    assert report.table()[3] == ("3", "0", "inf", "rejected, suspected", "not finite")
    assert report.table()[1] == ("1", "0.333", "0", "selected", "")
    text = str(report)
    assert text.startswith("TrimmedMean(f=1)\nn = 4, tolerates f = 1, bounded up to 1 faulty, kappa ")
    assert "kappa_squared unproved" in str(Bulyan(f=0).explain(rows[:3]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.f = 2


def test_explaining_works_where_gradients_are_off_or_asked_for():
    rows = gaussian(7, 3)
    expected = Median().explain(rows).weights
    with torch.inference_mode():
        assert torch.equal(Median().explain(rows + 0).weights, expected)
    with torch.no_grad():
        assert torch.equal(Median().explain(rows).weights, expected)
    wanted = rows.clone().requires_grad_()
    report = Median().explain(wanted)
    assert torch.equal(report.weights, expected)
    assert wanted.grad is None


def test_the_limit_is_the_documented_formula():
    assert suspicion_radius(5, 2) == pytest.approx(3 * (5 * math.comb(4, 2) / 0.01) ** (1 / 4))
    assert suspicion_radius(11, 7) == pytest.approx(3 * (11 * math.comb(10, 5) / 0.01) ** (1 / 35))
    assert suspicion_radius(1, 1) < suspicion_radius(2, 1)
    assert 3 < suspicion_radius(50, 10**6) < 3.001
    assert suspicion_radius(2000, 1) < 15


@pytest.mark.parametrize("sizes", [(5,), pytest.param((8, 11, 20, 50), marks=pytest.mark.slow)], ids=str)
def test_honest_gaussian_rows_practically_never_raise_an_alarm(sizes):
    worst = {}
    for n in sizes:
        for d, draws in ((1, 300), (2, 300), (10, 100), (1000, 8)):
            rows = gaussian(n * draws, d, seed=n).view(draws, n, d)
            worst[n, d] = sum(bool(Mean().explain(sample).suspected) for sample in rows) / draws
    assert max(worst.values()) <= 0.01
    assert sum(worst.values()) / len(worst) <= 0.001


def test_rows_that_differ_along_one_direction_of_many_rarely_raise_an_alarm():
    for n, share in ((5, 0.03), (11, 0.01), (20, 0.01)):
        rows = gaussian(n * 200, 50, seed=n).view(200, n, 50)
        rows[:, :, 0] *= 1000
        assert sum(bool(Mean().explain(sample).suspected) for sample in rows) / 200 <= share


@pytest.mark.parametrize("true", [1, 3, 10, 200])
def test_the_dimension_of_the_spread_is_seen(true):
    seen = []
    for seed in range(30):
        rows = torch.cat([gaussian(21, true, seed), 1e-3 * gaussian(21, 200 - true, seed + 99)], dim=1)
        geometry = geometry_of(rows + 1e3)
        seen.append(dimensions(geometry, geometry.apart.middle()[0], 200))
    assert 0.7 * true <= sorted(seen)[15] <= 1.4 * true
    assert 1 <= min(seen) <= max(seen) <= 200


def test_rows_at_ten_radii_are_seen_from_ten_dimensions_on():
    for n, d in ((5, 10), (11, 10), (50, 10), (11, 1000)):
        rows = gaussian(n, d)
        rows[-1] = 10 * math.sqrt(2 * d) / math.sqrt(d)
        assert Median().explain(rows).suspected == (n - 1,)


def test_a_minority_cluster_far_away_is_suspect_and_one_nearby_is_not():
    rows = gaussian(20, 50)
    far, near = rows.clone(), rows.clone()
    far[:6] += 10
    near[:6] += 1
    assert Median().explain(far).suspected == tuple(range(6))
    assert Median().explain(near).suspected == ()
    assert torch.equal(Median(f=6)(far, fail_closed=True), Median(f=6)(far))
    with pytest.raises(TooManyFaults, match=r"at most f = 5 of 20\. Found 6"):
        Median(f=5)(far, fail_closed=True)


def test_suspicion_is_blind_to_scale_and_offset_and_deaf_to_rounding():
    rows = gaussian(11, 6)
    rows[2] += 50
    for scale in (1e-300, 1e-12, 1e12, 1e290):
        assert Median().explain(rows * scale).suspected == (2,)
    assert Median().explain(rows + 1e4).suspected == (2,)
    same = torch.full((9, 5), 0.1)
    same[4] += 3e-8
    same[5] -= 3e-8
    assert not torch.equal(same[4], same[0])
    assert Median().explain(same).suspected == ()
    same[4] += 1e-3
    assert Median().explain(same).suspected == (4,)


def test_non_finite_and_remote_rows_are_counted_together():
    rows = gaussian(11, 20)
    rows[1], rows[8] = NAN, 1e4
    assert torch.equal(TrimmedMean(f=2)(rows, fail_closed=True), TrimmedMean(f=2)(rows))
    with pytest.raises(TooManyFaults) as caught:
        TrimmedMean(f=1)(rows, fail_closed=True)
    assert caught.value.rows == (1, 8)
    TrimmedMean(f=1)(rows)


def test_a_guard_may_stand_in_a_spec_and_anywhere_around_a_chain():
    rows = gaussian(11, 20)
    rows[1], rows[8] = 1e3, -1e4
    closed = [
        rule_from("fail_closed(rule='nnm >> krum')", f=1),
        rule_from({"name": "fail_closed", "rule": ["nnm", {"name": "krum"}]}, f=1),
        rule_from("nnm >> fail_closed(rule='krum')", f=1),
        NNM(f=1) >> FailClosed(Krum(f=1)),
        FailClosed(NNM(f=1) >> Krum(f=1)).at(3),
    ]
    for rule in closed:
        assert rule_from(rule_data(rule)) == rule
        with pytest.raises(TooManyFaults) as caught:
            rule(rows)
        assert caught.value.rows == (1, 8)
        assert torch.equal(rule(rows, f=2), (NNM(f=2) >> Krum(f=2))(rows))
    guard = FailClosed(Krum(f=2))
    assert guard.explain(rows).measure == "Krum score"
    assert guard.kappa_squared(11) == Krum(f=2).kappa_squared(11)
    for bad in (
        "fail_closed",
        {"name": "fail_closed"},
        "fail_closed(rule='nnm')",
        "fail_closed(role='krum')",
    ):
        with pytest.raises(InvalidInput):
            rule_from(bad, f=1)


def test_f_at_the_call_is_a_count_or_a_share_rounded_up():
    rows = gaussian(10, 4)
    assert torch.equal(TrimmedMean(f=0)(rows, f=3), TrimmedMean(f=3)(rows))
    assert torch.equal(TrimmedMean(f=0)(rows, f=0.3), TrimmedMean(f=3)(rows))
    assert torch.equal(TrimmedMean(f=0)(rows, f=0.21), TrimmedMean(f=3)(rows))
    assert torch.equal(TrimmedMean(f=3)(rows, f=0.0), TrimmedMean(f=0)(rows))
    assert torch.equal(torch.from_numpy(Krum(f=1)(rows.numpy(), f=3)), Krum(f=3)(rows))
    with pytest.raises(InvalidInput, match=r"satisfy 2 f < n. Found f = 5 with n = 10"):
        TrimmedMean(f=0)(rows, f=0.5)
    with pytest.raises(InvalidInput, match=r"at most 0 for Mean\(\)"):
        Mean()(rows, f=1)
