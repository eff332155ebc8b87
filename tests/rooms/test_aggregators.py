"""Rules by hand-computed values, their switches, and the traps that other libraries fell into."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from byzopt.aggregators import (
    ARC,
    CGE,
    FABA,
    MDA,
    NNM,
    RFA,
    Aksel,
    Bucketing,
    Bulyan,
    Clipping,
    GeometricMedian,
    Krum,
    MeaMed,
    Mean,
    Median,
    Medoid,
    MultiKrum,
    Phocas,
    TrimmedMean,
)
from byzopt.aggregators.mda import smallest_diameter
from byzopt.errors import InvalidInput
from tests.reference import rules as twin

LINE = torch.tensor([[0.0], [1.0], [2.0], [4.0], [100.0]], dtype=torch.float64)


def fixed_rows(n=20, d=40):
    i = np.arange(n)[:, None] + 1.0
    return np.sin(i * (np.arange(d) + 1.0)) + 0.1 * np.cos(i * i)


def test_golden_mean():
    assert Mean()(LINE).item() == pytest.approx(21.4)


def test_golden_median_takes_the_midpoint_for_even_n():
    assert Median()(LINE).item() == 2.0
    assert Median()(LINE[:4]).item() == 1.5


def test_golden_trimmed_mean():
    assert TrimmedMean(f=1)(LINE).item() == pytest.approx(7 / 3)
    assert TrimmedMean(f=2)(LINE).item() == 2.0
    assert TrimmedMean(f=0)(LINE).item() == pytest.approx(21.4)


def test_golden_krum_looks_at_n_minus_f_minus_2_others_and_one_more_on_request():
    # Two nearest others, squared: 1+4, 1+1, 1+4, ...
    assert Krum(f=1)(LINE).item() == 1.0
    rows = torch.tensor([[2.0], [0.0], [5.0], [24.0], [19.0], [27.0]], dtype=torch.float64)
    # Three others: 5 has 9+25+196 = 230, 19 has 25+64+196 = 285. Four: 5 has 230+361, 19 has 285+289.
    assert Krum(f=1)(rows).item() == 5.0
    assert Krum(f=1, extra=1)(rows).item() == 19.0


def test_golden_krum_power_of_the_distance():
    rows = torch.tensor([[25.0], [19.0], [15.0], [8.0], [9.0], [1.0]], dtype=torch.float64)
    # Three others: 8 has distances 1, 7, 7 and 15 has 4, 6, 7; 99 < 101 squared, 4803 > 3953 to the fourth.
    assert Krum(f=1, power=2)(rows).item() == 8.0
    assert Krum(f=1, power=4)(rows).item() == 15.0
    rows = torch.tensor([[8.0], [28.0], [13.0], [24.0], [6.0], [10.0], [27.0]], dtype=torch.float64)
    # Four others: 10 has distances 2, 3, 4, 14, 13 has 3, 5, 7, 11: 23 < 26 as they are, 225 > 204 squared.
    assert Krum(f=1, power=1)(rows).item() == 10.0
    assert Krum(f=1, power=2)(rows).item() == 13.0


def test_golden_multi_krum_is_a_mean_and_defaults_to_n_minus_f():
    assert MultiKrum(f=1)(LINE).item() == pytest.approx(7 / 4)
    assert MultiKrum(f=1, m=1)(LINE).item() == Krum(f=1)(LINE).item()
    assert MultiKrum(f=1, m=2)(LINE).item() == pytest.approx(0.5)
    for n in range(5, 12):
        MultiKrum(f=(n - 3) // 2)(torch.randn(n, 2))
    for m in (0, 5):
        with pytest.raises(InvalidInput):
            MultiKrum(f=1, m=m)(LINE)


def test_krum_needs_two_f_plus_three_rows():
    assert torch.isfinite(Krum(f=2)(torch.randn(7, 3))).all()
    for rule in (Krum(f=2), MultiKrum(f=2)):
        with pytest.raises(InvalidInput, match="n >= 2 f \\+ 3"):
            rule(torch.randn(6, 3))


def test_golden_geometric_median_of_a_triangle_is_its_fermat_point():
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    assert np.allclose(GeometricMedian()(rows), [0.5, np.sqrt(3) / 6], atol=1e-9)


def test_geometric_median_is_a_row_when_an_angle_is_wide():
    rows = np.array([[0.0, 0.0], [1.0, 0.1], [-1.0, 0.1]])
    assert np.array_equal(GeometricMedian()(rows), rows[0])


def test_geometric_median_with_duplicates_is_exactly_the_majority():
    rows = torch.randn(9, 5000)
    rows[[1, 3, 4, 6, 8]] = rows[0].clone()
    assert torch.equal(GeometricMedian()(rows), rows[0])
    assert torch.equal(RFA()(rows), rows[0])


def test_geometric_median_on_a_line_is_the_median():
    assert GeometricMedian()(LINE).item() == 2.0
    assert GeometricMedian()(LINE[:4]).item() == pytest.approx(1.5)
    direction = np.random.default_rng(0).normal(size=7)
    assert np.allclose(GeometricMedian()(LINE.numpy() * direction), 2.0 * direction, rtol=1e-9)


def test_geometric_median_near_but_not_at_a_row():
    # Pull at the first row just above one: the optimum is a hair away from it.
    for tilt in (1e-3, 1e-5, 1e-7):
        angle = np.pi / 3 - tilt
        rows = np.array([[0.0, 0.0], [np.cos(angle), np.sin(angle)], [np.cos(angle), -np.sin(angle)]])
        found = GeometricMedian()(rows)
        assert twin.objective(rows, found) <= min(twin.objective(rows, r) for r in rows)
        units = (rows - found) / np.linalg.norm(rows - found, axis=1, keepdims=True)
        assert np.linalg.norm(units.sum(axis=0)) < 1e-5


def test_golden_rfa_by_hand_for_one_step():
    # From the mean 21.4 of LINE: weights 1/21.4, 1/20.4, 1/19.4, 1/17.4, 1/78.6.
    beta = 1 / np.array([21.4, 20.4, 19.4, 17.4, 78.6])
    expected = beta @ LINE.numpy() / beta.sum()
    assert RFA(iterations=1, start="mean")(LINE).item() == pytest.approx(expected.item())


def test_released_rfa_and_krum_on_fixed_rows():
    rows = fixed_rows()
    for scale in (1e-3, 1.0, 100.0):
        expected = twin.rfa(scale * rows, iterations=8, nu=0.1)
        found = RFA(iterations=8, nu_absolute=0.1, start="zero")(torch.from_numpy(scale * rows).float())
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-5 * scale)
        powered = Krum(f=3, extra=1, power=4)(scale * rows)
        assert np.array_equal(powered, twin.krum(scale * rows, 3, extra=1, power=4))


def test_absolute_smoothing_is_the_mean_when_rows_are_short_and_the_default_is_not():
    rows = 1e-3 * fixed_rows()
    rows[:3] += 0.02
    absolute = RFA(nu_absolute=0.5, start="zero")(rows)
    assert np.allclose(absolute, rows.mean(axis=0), atol=1e-12)
    honest = rows[3:].mean(axis=0)
    assert np.linalg.norm(RFA()(rows) - honest) < 0.5 * np.linalg.norm(absolute - honest)


def test_golden_nnm():
    assert NNM(f=2)(LINE.numpy()).ravel() == pytest.approx([1.0, 1.0, 1.0, 7 / 3, 106 / 3])
    assert np.allclose(NNM(f=3)(fixed_rows()), twin.nnm(fixed_rows(), 3))


def test_nnm_breaks_ties_by_the_lower_index_and_keeps_the_row_itself():
    rows = np.array([[0.0], [1.0], [-1.0], [0.0], [0.0]])
    assert NNM(f=2)(rows).ravel() == pytest.approx([0, 1 / 3, -1 / 3, 0, 0])


def test_trimmed_mean_after_nnm_without_liars_is_the_mean():
    rows = torch.randn(10, 30, dtype=torch.float64)
    assert torch.allclose((NNM(f=0) >> TrimmedMean(f=0))(rows), rows.mean(dim=0), rtol=1e-13)


def test_bucketing_averages_every_row_once_in_ceil_n_over_s_buckets():
    rows = torch.arange(7.0, dtype=torch.float64).unsqueeze(1)
    mixed = Bucketing(s=3)(rows).ravel()
    assert mixed.shape == (3,)
    sizes = torch.tensor([3.0, 3.0, 1.0], dtype=torch.float64)
    assert (mixed * sizes).sum().item() == pytest.approx(21)
    assert sorted(Bucketing(s=1)(rows).ravel().tolist()) == rows.ravel().tolist()


def test_bucketing_draws_anew_each_round_and_repeats_itself():
    rows = torch.randn(12, 4)
    first, second = Bucketing().at(1)(rows), Bucketing().at(2)(rows)
    assert not torch.equal(first, second)
    assert torch.equal(Bucketing().at(1)(rows), first)
    chain = Bucketing() >> Median()
    assert chain.at(2) == Bucketing(t=2) >> Median()


@pytest.mark.parametrize("value", [1e8, 1e30])
def test_trimmed_mean_keeps_its_accuracy_under_huge_rows(value):
    rows = torch.ones(11, 3000)
    rows[:3] = value
    assert torch.equal(TrimmedMean(f=3)(rows), torch.ones(3000))


def test_a_nan_row_is_never_selected():
    rows = torch.randn(11, 50)
    rows[:3] = float("nan")
    for rule in (Krum(f=3), NNM(f=3) >> Krum(f=3)):
        out = rule(rows)
        assert torch.isfinite(out).all()


def test_all_five_non_finite_rows_of_eleven_leave_six_honest_ones():
    rows = torch.randn(11, 4)
    rows[:5] = float("nan")
    assert torch.allclose(TrimmedMean(f=5)(rows), rows[5:].mean(dim=0))


def test_ranking_survives_an_offset_that_swallows_the_uncentred_gram():
    rng = np.random.default_rng(0)
    rows = (1e3 + 0.1 * rng.normal(size=(20, 20_000))).astype(np.float32)
    assert np.array_equal(Krum(f=3)(rows), rows[int(np.argmin(twin.krum_scores(rows.astype(float), 3)))])


def test_outliers_at_many_sizes_do_not_hide_the_bulk_from_float32():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(15, 8000)).astype(np.float32)
    for i, size in enumerate((1e2, 1e4, 1e7, 1e12, 1e25, 1e37)):
        rows[i] *= size
    assert np.array_equal(Krum(f=6)(rows), twin.krum(rows.astype(float), 6))


def test_attackers_may_stand_anywhere_and_f_matters():
    rows = torch.randn(11, 5)
    rows[[0, 4, 10]] = 50.0
    assert TrimmedMean(f=3)(rows).norm() < 5 < TrimmedMean(f=2)(rows).norm()


def test_golden_means_around_a_centre():
    # Median 2, nearest four: 0, 1, 2, 4. Trimmed mean 7/3: the same four.
    assert MeaMed(f=1)(LINE).item() == pytest.approx(7 / 4)
    assert Phocas(f=1)(LINE).item() == pytest.approx(7 / 4)
    skewed = torch.tensor([[0.0], [0.0], [1.0], [5.0], [6.0]], dtype=torch.float64)
    # Median 1, nearest three: 0, 0, 1. Trimmed mean (f = 2) the same.
    assert MeaMed(f=2)(skewed).item() == pytest.approx(1 / 3)
    # Trimmed mean (f = 1) is 2; nearest four: 1, 0, 0, 5.
    assert Phocas(f=1)(skewed).item() == pytest.approx(6 / 4)


def test_means_around_a_centre_equal_their_twin():
    rng = np.random.default_rng(2)
    for f in range(5):
        rows = rng.normal(size=(10, 2000))
        for rule, centre in ((MeaMed(f=f), twin.median(rows)), (Phocas(f=f), twin.trimmed_mean(rows, f))):
            order = np.argsort(np.abs(rows - centre), axis=0, kind="stable")[: 10 - f]
            assert np.allclose(rule(rows), np.take_along_axis(rows, order, axis=0).mean(axis=0))


def test_golden_medoid():
    assert Medoid()(LINE).item() == 2.0
    assert torch.equal(Medoid()(torch.tensor([[0.0, 3], [0, 0], [4, 0]])), torch.tensor([0.0, 0.0]))


def test_golden_mda():
    assert MDA(f=1)(LINE).item() == pytest.approx(7 / 4)
    assert MDA(f=2)(LINE).item() == pytest.approx(1.0)


def test_mda_has_the_smallest_diameter_of_all_subsets():
    rng = np.random.default_rng(3)
    for trial in range(60):
        n = int(rng.integers(3, 11))
        f = int(rng.integers(0, (n - 1) // 2 + 1))
        rows = rng.normal(size=(n, 2)) if trial % 2 else rng.integers(0, 4, size=(n, 2)).astype(float)
        sq = ((rows[:, None] - rows[None]) ** 2).sum(-1)
        best = min(sq[np.ix_(s, s)].max() for s in combinations(range(n), n - f))
        chosen = smallest_diameter(sq, f)
        assert len(chosen) == n - f
        assert sq[np.ix_(chosen, chosen)].max() == best


def test_mda_of_thirty_rows_with_ten_liars_ends():
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(30, 50))
    rows[:10] += 5
    assert np.allclose(MDA(f=10)(rows), rows[10:].mean(axis=0))
    assert np.isfinite(MDA(f=10)(rng.normal(size=(30, 50)))).all()


def test_golden_cge_keeps_the_shortest():
    assert CGE(f=2)(LINE).item() == pytest.approx(1.0)
    assert CGE(f=1)(-LINE).item() == pytest.approx(-7 / 4)


def test_golden_clipping_and_arc():
    assert Clipping(tau=1.5)(LINE.numpy()).ravel() == pytest.approx([0, 1, 1.5, 1.5, 1.5])
    # k = floor(2 (1/5) 4) = 1 row is cut to the length of the next, 4.
    assert ARC(f=1)(LINE.numpy()).ravel() == pytest.approx([0, 1, 2, 4, 4])
    assert ARC(f=0)(LINE.numpy()).ravel() == pytest.approx(LINE.ravel().tolist())


def test_clipped_rows_keep_the_right_geometry_for_the_rule_behind():
    rows = fixed_rows() + 3.0
    for stage in (Clipping(tau=4.0), ARC(f=3)):
        clipped = stage(rows)
        assert np.allclose((stage >> Krum(f=3))(rows), twin.krum(clipped, 3))
        assert np.allclose((stage >> TrimmedMean(f=3))(rows), twin.trimmed_mean(clipped, 3))


def test_golden_bulyan_takes_winners_out_one_by_one():
    rows = torch.tensor([[0.0], [1.0], [2.5], [4.0], [6.0], [7.5], [100.0]], dtype=torch.float64)
    left, chosen = rows.ravel().tolist(), []
    for _ in range(5):
        squares = [sorted((a - b) ** 2 for b in left)[1:] for a in left]
        scores = [(sum(s[: max(1, len(left) - 3)]), sum(s)) for s in squares]
        chosen.append(left.pop(scores.index(min(scores))))
    assert 100.0 not in chosen
    middle = float(np.median(chosen))
    nearest = sorted(chosen, key=lambda value: (abs(value - middle), value))[:3]
    assert Bulyan(f=1)(rows).item() == pytest.approx(np.mean(nearest))


def test_golden_faba_drops_the_farthest_from_the_mean():
    # Mean 21.4 drops 100, then mean 1.75 drops 4.
    assert FABA(f=1)(LINE).item() == pytest.approx(7 / 4)
    assert FABA(f=2)(LINE).item() == pytest.approx(1.0)


def test_golden_aksel_averages_the_half_nearest_to_the_median():
    # Distances to 2: 2, 1, 0, 2, 98; the third smallest is 2, shared by 0 and 4.
    assert Aksel()(LINE).item() == pytest.approx(7 / 4)


def test_parameters_out_of_range_are_named_errors():
    for call in (
        lambda: RFA(nu=0.0),
        lambda: RFA(nu_absolute=-1.0),
        lambda: RFA(iterations=0),
        lambda: Bucketing(s=0),
        lambda: GeometricMedian(tol=0.0),
    ):
        with pytest.raises(InvalidInput):
            call()


@pytest.mark.parametrize(
    "behind",
    [NNM(f=3), Median(f=3), Median, torch.mean, "krum"],
    ids=["stage", "rule", "class", "function", "text"],
)
def test_what_cannot_stand_in_a_chain_is_refused_in_words(behind):
    with pytest.raises(InvalidInput, match=r"The rule GeometricMedian.* cannot stand first"):
        GeometricMedian() >> behind
    with pytest.raises(InvalidInput, match="cannot stand first"):
        NNM(f=3) >> Median(f=3) >> behind
    if not isinstance(behind, (NNM, Median)):
        with pytest.raises(InvalidInput, match="Behind `>>` should stand a rule or a pre-aggregator"):
            NNM(f=3) >> behind


def test_a_value_of_another_type_is_quoted():
    with pytest.raises(InvalidInput, match=r"`f` of NNM should be a whole number\. Found '3'"):
        NNM(f="3")
