"""What `explain` promises for every registered rule and every chain."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from byzopt.aggregators import FailClosed, rule_from
from byzopt.errors import InvalidInput, TooManyFaults
from tests.spellings import DTYPES, F, N, build, every, some_rows


@every
def test_the_aggregate_is_the_call_to_the_last_bit_and_inputs_are_kept(spelling):
    rule = build(spelling)
    for dtype in DTYPES:
        rows = some_rows(dtype=dtype)
        before = rows.clone()
        report = rule.explain(rows)
        assert torch.equal(report.aggregate, rule(rows))
        assert report.aggregate.dtype == dtype
        assert torch.equal(rows, before)
    array = rule.explain(some_rows().numpy()).aggregate
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array, rule(some_rows().numpy()))


@every
def test_weights_give_the_aggregate_back(spelling):
    rows = some_rows(1)
    rule = build(spelling)
    report = rule.explain(rows)
    assert report.weights.shape == report.scores.shape == (N,)
    assert report.weights.dtype == report.scores.dtype == torch.float64
    assert (report.weights > -1e-9).all()
    if not rule.columnwise:
        assert torch.allclose(report.weights @ rows, report.aggregate, rtol=1e-9, atol=1e-11)
    if rule.convex:
        assert float(report.weights.sum()) == pytest.approx(1, abs=1e-9)


@every
def test_every_row_is_selected_or_rejected_and_every_rejection_has_a_reason(spelling):
    report = build(spelling).explain(some_rows(2))
    assert sorted(report.selected + report.rejected) == list(range(N))
    assert set(report.reasons) == set(report.rejected) | set(report.suspected)
    assert all(report.reasons.values())
    assert all(float(report.weights[i]) > 0.1 / N for i in report.selected)
    assert all(float(report.weights[i]) <= 0.1 / N for i in report.rejected)
    assert report.suspected == ()
    assert [line[0] for line in report.table()] == [str(i) for i in range(N)]
    assert str(report).count("\n") == N + 4


@every
def test_theory_is_that_of_the_rule_on_all_rows(spelling):
    rule = build(spelling)
    report = rule.explain(some_rows())
    assert (report.f, report.breakdown) == (rule.tolerance(N), rule.breakdown(N))
    assert (report.kappa_linear, report.kappa_squared) == (rule.kappa_linear(N), rule.kappa_squared(N))
    assert 0 <= report.breakdown < N


@every
def test_rows_that_are_not_finite_are_rejected_under_their_own_index(spelling):
    rule, rows = build(spelling), some_rows(3)
    k = min(2, rule.tolerance(N))
    lost = (4, 11)[:k]
    for i, bad in zip(lost, (float("nan"), -float("inf")), strict=False):
        rows[i, 3] = bad
    report = rule.explain(rows)
    assert torch.equal(report.aggregate, rule(rows))
    assert set(lost) <= set(report.rejected)
    assert report.suspected == lost
    for i in lost:
        assert report.reasons[i] == "not finite"
        assert report.weights[i] == 0
        assert report.scores[i] == torch.inf
    assert int(torch.isfinite(report.scores).sum()) == N - k
    if not rule.columnwise:
        clean = rows.where(torch.isfinite(rows), 0)
        assert torch.allclose(report.weights @ clean, report.aggregate, rtol=1e-9, atol=1e-11)


@every
def test_reports_repeat_to_the_last_bit(spelling):
    rows = some_rows(4)
    first, second = (build(spelling).explain(rows) for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    assert torch.equal(first.scores, second.scores)
    assert first.reasons == second.reasons


@every
def test_huge_rows_are_suspected_and_have_finite_scores(spelling):
    for dtype, size in ((torch.float32, 1e30), (torch.float64, 1e300)):
        rows = some_rows(5, dtype=dtype)
        rows[6], rows[9] = size, -size
        report = build(spelling).explain(rows)
        assert report.suspected == (6, 9)
        assert not torch.isnan(report.scores).any()
        assert torch.isfinite(report.scores).all()
        assert torch.isfinite(report.weights).all()


@every
def test_fail_closed_names_the_rows_when_more_look_faulty_than_are_tolerated(spelling):
    rule, rows = build(spelling), some_rows(6)
    count = rule.tolerance(N) + 1
    assert torch.equal(rule(rows, fail_closed=True), rule(rows))
    if count > N - (N // 2 + 1):
        return  # no majority is left to tell who is faulty
    rows[2 : 2 + count] += 100
    rows[2 : 2 + count // 2] *= 7
    for closed in (rule.explain, FailClosed(rule), FailClosed(rule).explain):
        with pytest.raises(TooManyFaults) as caught:
            closed(rows, fail_closed=True)
        assert caught.value.rows == tuple(range(2, 2 + count))
    rule(rows)
    rows[2] = some_rows(7)[0]
    if count > 1:
        assert torch.equal(FailClosed(rule)(rows), rule(rows))


@every
def test_f_at_the_call_is_the_f_of_the_recipe(spelling):
    rows, given = some_rows(8), build(spelling, f=1)
    assert given.tolerating(F) == build(spelling)
    if build(spelling).tolerance(N) >= F:
        assert torch.equal(given(rows, f=F), build(spelling)(rows))
        assert torch.equal(given(rows, f=1.5 / N), build(spelling)(rows))
        assert given.explain(rows, f=F).f == build(spelling).tolerance(N)  # F, but for what has no f
    for bad in (-1, 1.5, N, True, "2", float("nan")):
        with pytest.raises(InvalidInput):
            given(rows, f=bad)


@pytest.mark.parametrize("spelling", ["krum", "nnm >> bucketing >> median"])
def test_a_guarded_rule_can_be_written_down_and_read_back(spelling):
    rule = rule_from(f"fail_closed(rule={spelling!r})", f=F)
    assert rule == FailClosed(build(spelling))
