"""Weighted rules against their twin: the plain rule on rows repeated as often as they weigh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byzopt.aggregators import (
    NNM,
    RFA,
    RULES,
    Bucketing,
    Clipping,
    FailClosed,
    GeometricMedian,
    GeometricRule,
    Krum,
    MeaMed,
    Mean,
    Median,
    Medoid,
    NormClipping,
    Phocas,
    SignMajority,
    TrimmedMean,
    Weighted,
    rule_data,
    rule_from,
)
from byzopt.aggregators.core.weighted_form import WeightedSum
from byzopt.aggregators.weighted import capped, has_weighted_form
from byzopt.errors import InvalidInput, TooManyFaults
from byzopt.kernels import RankWindow

FREE = [Median(), GeometricMedian(), RFA(iterations=200), Medoid(), NormClipping(), SignMajority()]
COUNTED = [TrimmedMean, MeaMed, Phocas]
BOUNDED = [*FREE, *(rule(f=2) for rule in COUNTED)]
IDS = [type(rule).__name__ for rule in BOUNDED]


def some_rows(n, d=6, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def repeated(rows, counts):
    return rows.repeat_interleave(torch.tensor(counts), dim=0)


def heaviest(counts, f):
    return sum(sorted(counts, reverse=True)[:f])


COUNTS = st.lists(st.integers(0, 5), min_size=3, max_size=9).filter(
    lambda counts: sum(counts) >= 3 and 2 * max(counts) < sum(counts)
)


@pytest.mark.parametrize("rule", FREE, ids=IDS[: len(FREE)])
@settings(max_examples=25)
@given(counts=COUNTS, seed=st.integers(0, 99))
def test_whole_weights_repeat_rows(rule, counts, seed):
    rows = some_rows(len(counts), seed=seed)
    expected = rule(repeated(rows, counts))
    assert torch.allclose(Weighted(rule, counts, cap=1.0)(rows), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", COUNTED)
@settings(max_examples=25)
@given(counts=COUNTS, seed=st.integers(0, 99))
def test_whole_weights_repeat_rows_and_f_becomes_the_mass_of_the_f_heaviest(rule, counts, seed):
    rows = some_rows(len(counts), seed=seed)
    expected = rule(f=heaviest(counts, 1))(repeated(rows, counts))
    assert torch.allclose(Weighted(rule(f=1), counts, cap=1.0)(rows), expected, rtol=1e-9, atol=1e-12)


def test_the_mean_is_the_weighted_mean():
    rows = torch.tensor([[1.0, 0.0], [5.0, 8.0]])
    assert Weighted(Mean(), [3, 1])(rows).tolist() == [2, 2]
    assert Weighted(Mean(), [3, 1], cap=0.5)(rows).tolist() == [3, 4]


@pytest.mark.parametrize("rule", [Mean(), *BOUNDED], ids=["Mean", *IDS])
def test_equal_weights_change_nothing(rule):
    rows = some_rows(11)
    for weight in (1.0, 0.1, 1e-320, 1e306):
        assert torch.allclose(Weighted(rule, [weight] * 11)(rows), rule(rows), rtol=1e-9, atol=1e-10)


def test_medians_of_real_weights_by_hand():
    rows = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    assert Weighted(Median(), [0.3, 0.2, 0.2, 0.3])(rows).item() == 1.5
    assert Weighted(Median(), [0.25, 0.2, 0.25, 0.3])(rows).item() == 2
    assert Weighted(Median(), [0, 0.2, 0.2, 0.2])(rows).item() == 2
    assert Weighted(TrimmedMean(f=1), [1, 2, 3, 1], cap=1.0)(rows).item() == 2  # the middle 1 of 7
    assert Weighted(TrimmedMean(f=1), [1, 2, 2, 1])(rows).item() == 1.5
    # Mass 5 of 7 nearest to 1: all of 1, all of 0 (the smaller of a tie), half of 2.
    assert Weighted(MeaMed(f=1), [2, 2, 2, 1], cap=1.0)(rows).item() == pytest.approx(0.8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", BOUNDED, ids=IDS)
def test_dtype_inputs_and_wide_rows_are_kept(rule, dtype):
    weights = [1.0, 2, 0, 1.5, 1, 1, 2, 0.5, 1]
    rows = some_rows(9, 3000, dtype=dtype)
    before = rows.clone()
    out = Weighted(rule, weights)(rows)
    assert out.dtype == dtype
    assert torch.equal(rows, before)
    exact = Weighted(rule, weights)(rows.double())
    assert torch.allclose(out.double(), exact, atol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("rule", BOUNDED, ids=IDS)
def test_huge_rows_of_the_heaviest_workers_do_no_harm(rule):
    weights = [4, 3.3, 1, 2, 1, 1.7, 2, 1, 3, 2.1, 1]
    for dtype, size in ((torch.float32, 1e30), (torch.float64, 1e300)):
        rows = 1 + 0.3 * some_rows(11, dtype=dtype)
        rows[0], rows[1] = size, -size
        out = Weighted(rule, weights)(rows)
        assert torch.isfinite(out).all()
        assert (out - 1).norm() < 1.5


@pytest.mark.parametrize("rule", BOUNDED, ids=IDS)
def test_answers_scale_and_do_not_depend_on_the_unit_of_weights(rule):
    rows, weights = some_rows(9), [1.0, 2, 0.25, 1.5, 1, 1, 2, 0.5, 1]
    expected = Weighted(rule, weights)(rows)
    for scale in (1e-12, 1e12):
        sized = Weighted(rule, weights)(rows * scale)
        if type(rule) is SignMajority:
            assert torch.equal(sized, expected)
        else:
            assert torch.allclose(sized / scale, expected, rtol=1e-8, atol=1e-9)
        scaled = [w * scale for w in weights]
        assert torch.allclose(Weighted(rule, scaled)(rows), expected, rtol=1e-8, atol=1e-9)


def test_the_weighted_geometric_median_balances_the_weighted_unit_vectors():
    rows, weights = some_rows(12, 4), torch.linspace(0.2, 2, 12, dtype=torch.float64)
    z = Weighted(GeometricMedian(), weights.tolist(), cap=1.0)(rows)
    units = torch.nn.functional.normalize(rows - z, dim=1)
    assert float((weights @ units).norm()) < 1e-6


def test_a_row_whose_mass_outweighs_the_pull_of_the_others_is_the_median_itself():
    rows = some_rows(7, 2, seed=4)
    rows[0] = rows[1:].mean(dim=0) + 0.2
    units = torch.nn.functional.normalize(rows[1:] - rows[0], dim=1)
    pull = float(units.sum(dim=0).norm())
    assert 1.1 < pull < 5
    heavy = Weighted(GeometricMedian(), [1.05 * pull] + [1] * 6, cap=1.0)
    assert heavy.explain(rows).weights.tolist() == [1, 0, 0, 0, 0, 0, 0]
    light = Weighted(GeometricMedian(), [0.95 * pull] + [1] * 6, cap=1.0)
    assert float(light.explain(rows).weights[0]) < 1


@settings(max_examples=60)
@given(
    weights=st.lists(st.floats(0, 100), min_size=1, max_size=12).filter(lambda w: sum(w) > 1e-3),
    cap=st.floats(0.01, 1),
)
def test_no_share_exceeds_the_cap_and_light_workers_keep_their_weight(weights, cap):
    given_weights = torch.tensor(weights, dtype=torch.float64)
    out = capped(given_weights, cap)
    share, workers = out / out.sum(), int((given_weights > 0).sum())
    assert float(share.max()) <= max(cap, 1 / workers) * (1 + 1e-9)
    assert ((out == given_weights) | (out == out.max())).all()
    if float(given_weights.max()) < cap * float(given_weights.sum()) * (1 - 1e-9):
        assert torch.equal(out, given_weights)
    elif cap * workers > 1 + 1e-9:
        assert float(share.max()) == pytest.approx(cap)  # no more is cut than needed


def test_by_default_f_workers_cannot_hold_half():
    greedy = [1e9] * 2 + [1.0] * 9
    rule = Weighted(TrimmedMean(f=2), greedy)
    share = rule.capped_weights() / rule.capped_weights().sum()
    assert share[:2].tolist() == pytest.approx([0.2, 0.2])
    rows = some_rows(11)
    rows[:2] = 1e6
    assert rule(rows).abs().max() < 3
    free = Weighted(Median(), greedy)
    assert float((free.capped_weights() / free.capped_weights().sum()).max()) == pytest.approx(1 / 3)
    assert (free.tolerance(11), free.breakdown(11)) == (1, 1)
    assert Weighted(Median(), [1] * 11).tolerance(11) == 5
    assert Weighted(Median(f=2), [1] * 11).breakdown(11) == 5
    assert Weighted(TrimmedMean(f=2), [1] * 11).breakdown(11) == 2


def test_too_much_weight_in_too_few_hands_is_a_named_error():
    rows = some_rows(5)
    for rule in (Median(f=1), TrimmedMean(f=1), GeometricMedian(f=1)):
        with pytest.raises(InvalidInput, match="leave the f heaviest less than half"):
            Weighted(rule, [4, 1, 1, 1, 1], cap=1.0)(rows)
        with pytest.raises(InvalidInput, match="leave the f heaviest less than half"):
            Weighted(rule, [1, 1, 0, 0, 0])(rows)
        assert torch.isfinite(Weighted(rule, [4, 1, 1, 1, 1])(rows)).all()


def test_bad_weights_and_caps_are_named_errors():
    for bad in ([1, -1, 3], [1, float("nan")], [1, float("inf")], [0, 0, 0], [], [1e308, 1e308]):
        with pytest.raises(InvalidInput, match="`weights` of Weighted"):
            Weighted(Median(), bad)
    for cap in (0, -0.1, 1.5, float("nan")):
        with pytest.raises(InvalidInput, match="`cap` of Weighted"):
            Weighted(Median(), [1, 1, 1], cap=cap)
    with pytest.raises(InvalidInput, match="one entry for each of the 4 rows"):
        Weighted(Median(), [1, 1, 1])(some_rows(4))
    with pytest.raises(InvalidInput, match="satisfy 2 f < n"):
        Weighted(Median(f=2), [1, 1, 1])(some_rows(3))


def test_rules_without_a_weighted_form_are_refused_with_the_list_of_those_that_have_one():
    for refused in (Krum(f=1), NNM(f=1) >> Median(f=1), Weighted(Median(), [1, 1, 1])):
        with pytest.raises(
            InvalidInput, match="have a `weighted_form`, as GeometricMedian, MeaMed, Mean, Median"
        ):
            Weighted(refused, [1, 1, 1])
    for rule in filter(has_weighted_form, (RULES[name] for name in RULES)):
        assert rule.__name__ in Weighted.__doc__


@dataclass(frozen=True)
class Midrange(GeometricRule):
    """A rule of another package: the weighted mean, in its weighted form."""

    f: int | None = None

    def weights(self, geometry):
        return torch.full((geometry.m,), 1 / geometry.m, dtype=torch.float64)

    def weighted_form(self, row_weights, heaviest):
        return WeightedSum(lambda mixed: row_weights / row_weights.sum())


@dataclass(frozen=True)
class Upper(Median):
    """A rule of another package that decides in another way than the one it extends."""

    def plan(self, m):
        return RankWindow(m // 2, m // 2 + 1)


@dataclass(frozen=True)
class Cautious(Median):
    """A rule of another package that decides as the one it extends."""


def test_a_rule_of_another_package_brings_its_own_weighted_form():
    rows, weights = some_rows(5), torch.tensor([2.0, 1, 1, 1, 1], dtype=torch.float64)
    expected = (weights / weights.sum()) @ rows
    assert torch.allclose(Weighted(Midrange(), weights.tolist(), cap=1.0)(rows), expected)
    assert torch.equal(Weighted(Cautious(), [1] * 5)(rows), Weighted(Median(), [1] * 5)(rows))
    for other in (Upper(), FailClosed(Median())):
        with pytest.raises(InvalidInput, match="have a `weighted_form`"):
            Weighted(other, [1] * 5)


@pytest.mark.parametrize("rule", BOUNDED, ids=IDS)
def test_rows_that_are_not_finite_take_their_weights_along(rule):
    rows, weights = some_rows(9), [1.0, 2, 0.25, 1.5, 1, 1, 2, 0.5, 1]
    rows[6, 0] = float("nan")
    kept = [i for i in range(9) if i != 6]
    alone = Weighted(rule.lowered(1), [weights[i] for i in kept])(rows[kept])
    assert torch.equal(Weighted(rule, weights)(rows), alone)
    rows[[0, 1, 3, 4, 7]] = float("inf")
    with pytest.raises(TooManyFaults):
        Weighted(rule, weights)(rows)


@pytest.mark.parametrize("rule", BOUNDED, ids=IDS)
def test_reports_show_the_weights_in_the_answer(rule):
    rows, weights = some_rows(9), [1.0, 2, 0, 1.5, 1, 1, 2, 0.5, 1]
    weighted = Weighted(rule, weights)
    report = weighted.explain(rows)
    assert torch.equal(report.aggregate, weighted(rows))
    assert report.weights[2] == 0
    assert 2 in report.rejected
    if type(rule) not in (NormClipping, SignMajority):
        assert float(report.weights.sum()) == pytest.approx(1)
    if type(rule) in (GeometricMedian, RFA, Medoid, NormClipping):
        assert torch.allclose(report.weights @ rows, report.aggregate, atol=1e-10)
    assert report.kappa_linear is report.kappa_squared is None
    assert (report.f, report.breakdown) == (weighted.tolerance(9), weighted.breakdown(9))


def test_sign_votes_count_by_weight_in_answer_and_report():
    rows = torch.tensor([[1.0], [-1.0], [-1.0], [1.0]])
    report = Weighted(SignMajority(), [3, 2, 2, 2])
    assert report(rows).item() == 1
    assert report.explain(rows).weights.tolist() == pytest.approx([0.6, 0, 0, 0.4])


def test_stages_that_keep_rows_in_place_may_stand_before_and_others_may_not():
    rows, weights = some_rows(9), [1.0, 2, 0.25, 1.5, 1, 1, 2, 0.5, 1]
    rule = Weighted(Median(f=2), weights)
    assert torch.allclose((NNM(f=2) >> rule)(rows), rule(NNM(f=2)(rows)))
    assert torch.allclose((Clipping(tau=1.0) >> rule)(rows), rule(Clipping(tau=1.0)(rows)))
    with pytest.raises(InvalidInput, match="keep rows in place"):
        (Bucketing(s=1) >> rule)(rows)
    with pytest.raises(InvalidInput, match="one entry for each of the 5 rows"):
        (Bucketing(s=2) >> rule)(rows)


def test_weights_may_come_as_any_numbers_and_be_written_down():
    for weights in (np.array([1, 2, 2]), torch.tensor([1.0, 2, 2]), (1, 2, 2), [1.0, 2.0, 2.0]):
        assert Weighted(Median(), weights) == Weighted(Median(), (1.0, 2.0, 2.0))
    rule = FailClosed(Weighted(TrimmedMean(f=1), [1, 2, 1.5, 1], cap=0.4))
    assert rule_from(rule_data(rule)) == rule
    assert rule_from("weighted(rule='trimmed_mean', weights=[1, 2, 1.5, 1], cap=0.4)", f=1) == rule.rule
    assert hash(rule) == hash(rule_from(rule_data(rule)))


def test_nothing_in_the_rows_changes_a_workers_weight():
    rows, rule = some_rows(9), Weighted(GeometricMedian(), [1.0, 2, 0.25, 1.5, 1, 1, 2, 0.5, 1])
    before = rule.capped_weights()
    rows[1] *= 1e9
    rule(rows)
    assert torch.equal(rule.capped_weights(), before)
    assert (before * 2).tolist() == list(rule.weights)
