"""Certificates of single answers: what they say, of whom, at which numbers, and along runs."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import pytest
import torch

from byzopt.aggregators import (
    MVA,
    NNM,
    RFA,
    SMEA,
    CenteredClipping,
    FailClosed,
    GeometricMedian,
    GeometricRule,
    Krum,
    Mean,
    Median,
    NormClipping,
    TrimmedMean,
    Weighted,
    rule_from,
)
from byzopt.aggregators.core.filters import RoundContext
from byzopt.certificates.certified import summarise_certificates
from byzopt.errors import TooManyFaults
from byzopt.experiments import run
from byzopt.experiments.specs.spec import Spec
from byzopt.methods import ByzNSGDM
from byzopt.reports.tables import outcome_notes
from tests.running import play

NAN = float("nan")


def gaussian(n=20, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unrest_by_hand(rows, x):
    """ε from its definition."""
    away = rows - x
    lengths = away.norm(dim=1)
    pull = (away[lengths > 0] / lengths[lengths > 0].unsqueeze(1)).sum(dim=0).norm()
    return max(0.0, float(pull) - int((lengths == 0).sum()))


@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_the_certificate_of_rfa_is_that_of_its_unrest(iterations):
    rows = gaussian()
    rows[:3] += 5
    rule = RFA(f=3, iterations=iterations)
    eps = unrest_by_hand(rows, rule(rows))
    found = rule.certify(rows)
    assert found.squared == pytest.approx((20 + eps) / (14 - eps), rel=1e-9)
    assert found.linear == pytest.approx(17 / (14 - eps), rel=1e-9)
    assert (found.n, found.f, found.reason) == (20, 3, "")
    assert str(found).startswith("certified for f = 3 of 20: kappa ")


def test_an_exact_geometric_median_is_certified_at_its_constant():
    for rows in (gaussian(), torch.eye(7, dtype=torch.float64)[[0, 0, 0, 0, 1, 2, 3]], gaussian(9, 1)):
        n = len(rows)
        for f in (0, 1, 2):
            # ε is the root of a sum that cancels: it is known to about n times the root of a rounding.
            found = GeometricMedian(f=f).certify(rows)
            assert found.squared == pytest.approx(n / (n - 2 * f), rel=1e-5)
            assert found.linear == pytest.approx((n - f) / (n - 2 * f), rel=1e-5)


def test_behind_nnm_the_certificate_is_composed():
    rows = gaussian()
    rule = NNM(f=3) >> RFA(f=3, iterations=1)
    mixed = NNM(f=3)(rows)
    inner = RFA(f=3, iterations=1).certify(mixed)
    assert rule.certify(rows).squared == pytest.approx(12 / 17 * (inner.squared + 1), rel=1e-9)
    assert FailClosed(rule).certify(rows) == rule.certify(rows)


def test_steps_that_end_beside_a_row_are_certified_by_way_of_that_row():
    rows = torch.tensor([[0, 0], [4, 0.5], [-4, 0.6], [3, -0.4], [-3, -0.2]], dtype=torch.float64)
    x = RFA(f=1)(rows)
    assert 0 < float(x.norm()) < 1e-3
    eps = unrest_by_hand(rows, x)  # the direction to the row beside it says little, but is taken at its word
    assert eps > 0.2
    found = RFA(f=1).certify(rows)
    assert 5 / 3 < found.squared < 5 / 3 * 1.001 < (5 + eps) / (3 - eps)


def test_seventeen_of_twenty_mixed_rows_may_coincide():
    rows = torch.cat([gaussian(17, 3), 50 + gaussian(3, 3, 1)])
    rule = NNM(f=3) >> RFA(f=3)
    assert rule.certify(rows).squared == pytest.approx(12 / 17 * (20 / 14 + 1), rel=1e-6)
    equal = torch.ones(9, 2, dtype=torch.float64)
    assert RFA(f=2).certify(equal).squared == pytest.approx(9 / 5)


def test_what_is_too_far_from_the_median_is_not_certified_and_says_so():
    @dataclass(frozen=True)
    class First(GeometricRule):
        f: int

        def weights(self, geometry):
            return torch.eye(geometry.m, dtype=torch.float64)[0]

    rows = gaussian()
    rows[0] += 100
    found = First(f=9).certify(rows)
    assert (found.linear, found.squared, found.holds) == (None, None, False)
    assert "too far from the geometric median" in str(found)
    assert found.figures() == {"certified_linear": inf, "certified_squared": inf}
    for rule in (Mean(), NormClipping(f=3), NNM(f=2) >> Mean(), Weighted(Median(f=3), (1.0,) * 20)):
        found = rule.certify(gaussian(), f=3)
        assert not found.holds
        assert found.reason == rule.unproved(20, 3) != ""


def test_constants_and_certificates_are_those_of_the_numbers_that_apply():
    rows = gaussian()
    rows[4], rows[7] = NAN, inf
    assert TrimmedMean(f=3).certify(rows).squared == pytest.approx(1 / 16)  # one faulty row among 18
    found = RFA(f=3).certify(rows)
    assert (found.n, found.f) == (18, 1)
    assert found.squared == pytest.approx(18 / 16, rel=1e-3)
    assert not RFA(f=3).certify(rows, f=1).holds
    assert "2 rows are not finite" in RFA(f=3).certify(rows, f=1).reason
    # The rule's own f is not the number of liars.
    assert TrimmedMean(f=5).certify(gaussian(), f=2).squared == TrimmedMean(f=5).kappa_squared(20, 2)
    assert not TrimmedMean(f=2).certify(gaussian(), f=3).holds
    assert RFA(f=5).certify(gaussian(), f=2).squared == pytest.approx(20 / 16, rel=1e-3)
    with pytest.raises(TooManyFaults):
        RFA(f=1).certify(rows)


def test_a_better_answer_than_promised_is_certified_for_less():
    rows = gaussian()
    rows[0] = rows[1:].mean(dim=0)
    assert Krum(f=3)(rows).tolist() == rows[0].tolist()
    found = Krum(f=3).certify(rows)
    assert found.squared < 3 < Krum(f=3).kappa_squared(20)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_certificates_know_no_units_and_no_common_part(dtype, scale):
    rows = gaussian()
    plain = (NNM(f=3) >> RFA(f=3)).certify(rows)
    moved = (NNM(f=3) >> RFA(f=3)).certify((rows * scale).to(dtype))
    # ε is a root: a rounding u of the rows moves it by about n √u.
    assert moved.squared == pytest.approx(plain.squared, rel=2e-2 if dtype.itemsize == 2 else 1e-3)


@pytest.mark.parametrize("extreme", [1e-300, 1e300])
def test_extreme_rows_are_certified_too(extreme):
    rows = gaussian()
    rows[:3] = 1e30
    assert RFA(f=3).certify(rows * (extreme / 1e30 if extreme > 1 else extreme)).holds


def test_certificates_of_many_sets_are_those_of_each():
    rows = torch.stack([gaussian(seed=s) for s in range(5)])
    rows[1, :3] = 30.0
    rows[2] = rows[2, 0]
    for rule in (RFA(f=3), NNM(f=3) >> RFA(f=3), Krum(f=3), Median(f=3), CenteredClipping(f=3, start="zero")):
        each = [rule.certify(one, f=3) for one in rows]
        out, told = rule.certified(rows, 3)
        assert torch.equal(out, rule.batch(rows))
        for one, other in zip(told, each, strict=True):
            assert (one.n, one.f, one.reason) == (other.n, other.f, other.reason)
            assert one.figures() == pytest.approx(other.figures(), rel=1e-6)
    rows[3, 0] = NAN
    assert [one.n for one in RFA(f=3).certified(rows, 3)[1]] == [20, 20, 20, 19, 20]


def test_searches_that_ended_are_certified_at_their_constant():
    rows = gaussian(12, 3)
    for rule in (MVA(f=3, budget=300), SMEA(f=3, budget=300)):
        assert rule.kappa_squared(12) == pytest.approx((1 + 2**0.5) ** 2 / 2)
        assert rule.certify(rows).squared == pytest.approx(min(4 * 3 / 6, rule.kappa_squared(12)))


def test_reports_show_the_certificate_of_their_answer():
    rows = gaussian()
    report = (NNM(f=3) >> RFA(f=3)).explain(rows)
    assert report.kappa_squared is None
    assert report.certificate == (NNM(f=3) >> RFA(f=3)).certify(rows)
    assert f"this answer: {report.certificate}" in str(report)
    assert "not certified: Mean() tolerates 0" not in str(Mean().explain(rows))
    assert Mean().explain(rows).certificate.squared == 0  # nobody is faulty, by its own account


def test_clipping_from_the_last_answer_is_certified_about_its_rows():
    rule = CenteredClipping(f=3, iterations=30)
    filtered = rule.as_filter()
    rows = gaussian()
    state = filtered.init(torch.zeros(6, dtype=torch.float64), 20)
    at = RoundContext(1, torch.zeros(6))
    _, state = filtered.step(state, rows, at)
    answer, after, (found,) = filtered.certified_step(state, rows + 0.1, at, 3)
    assert torch.equal(answer, filtered.step(state, rows + 0.1, at)[0])
    assert torch.equal(answer, after.centre)
    eps = unrest_by_hand(rows + 0.1, answer)
    assert found.squared <= (20 + eps) / (14 - eps) * (1 + 1e-6)


# Along runs.


def spec(**changes):
    base = {"task": "quadratic", "method": "byz_nsgdm", "attack": "ipm", "rule": "nnm >> rfa"}
    return Spec.of(base | {"n": 9, "f": 2, "lr": 0.1, "rounds": 12, "eval_every": 4} | changes)


def test_a_run_records_its_certificates_where_it_measures(tmp_path):
    one = spec()
    records = run(one, out=tmp_path / "run").main.records
    assert [found["t"] for found in records if "certified_squared" in found] == [4, 8, 12]
    found = summarise_certificates(records)
    assert (found.rounds, found.lacking) == (3, 0)
    assert found.worst.squared == max(record.get("certified_squared", 0) for record in records)
    assert found.median.linear <= found.worst.linear
    assert str(found).startswith(
        "over 3 recorded rounds the aggregate's distance from the honest mean was certified"
    )
    assert f"at most {found.worst.linear:.4g} times" in str(found)
    assert f"its square at most {found.worst.squared:.4g} times" in str(found)
    assert "docs/constants.md" in str(found)
    for specs in ({}, {"main": one}):
        assert list(outcome_notes(run(one).outcomes, specs)) == [f"main: {found}"]
    assert run(one, out=tmp_path / "run").main.records == records  # as stored
    every = run(spec(eval_every=1)).main.records
    assert [record["t"] for record in every if "certified_squared" in record] == list(range(1, 13))


@pytest.mark.parametrize("rule", ["nnm >> rfa", "fail_closed(rule='nnm >> rfa')", "centered_clipping"])
def test_what_is_certified_along_a_run_is_what_the_rows_say(rule):
    rule = rule_from(rule, f=3)
    alone = list(play(ByzNSGDM(), rule, "ipm", last=3))
    seen = []

    @dataclass(frozen=True)
    class Watched(type(rule.as_filter())):
        def certified_step(self, state, rows, at, f):
            seen.append((self.now(state, at), rows))
            return super().certified_step(state, rows, at, f)

    told = list(play(ByzNSGDM(), rule, "ipm", last=3, against=lambda t: 3, wrapped=Watched))
    for plain, one, (now, rows) in zip(alone, told, seen, strict=True):
        assert torch.equal(plain.x, one.x)  # to certify changes nothing
        assert plain.certificate is None
        assert one.certificate == now.certify(rows, f=3)


@pytest.mark.parametrize("rule", ["trimmed_mean", "mean", "norm_clipping", "nnm >> krum"])
def test_a_run_records_none_where_the_coefficient_is_known_or_cannot_be(rule):
    one = spec(rule=rule)
    records = run(one).main.records
    assert summarise_certificates(records) is None
    assert (one.rule.unproved(9, 2) == "") == (one.rule.kappa_squared(9, 2) is not None)


def test_certificates_are_against_the_attackers_that_there_are():
    assert summarise_certificates(run(spec(attackers=1, rule="rfa")).main.records).worst.squared < 9 / 5
    assert (
        summarise_certificates(run(spec(attackers=3, rule="rfa(f=2)")).main.records) is None
    )  # set to fewer
    assert "tolerates 2 faulty rows of 9, not 3" in RFA(f=2).unproved(9, 3)


def test_rounds_that_lack_a_certificate_are_counted():
    records = [{"t": 0}, *({"certified_linear": k, "certified_squared": k**2} for k in (1.0, 2.0, inf))]
    found = summarise_certificates(records)
    assert (found.rounds, found.lacking, found.worst.squared, found.median.squared) == (3, 1, inf, 4)
    assert "in the median round it is at most 2 times" in str(found)
    assert "its square at most 4 times" in str(found)
    assert "1 of 3 recorded rounds are not certified" in str(found)
    assert summarise_certificates([{"t": 0, "loss": 1.0}]) is None


@pytest.mark.parametrize("stages", [0, 1, 2])
@pytest.mark.parametrize("n, f", [(3, 1), (4, 1), (7, 2), (9, 4)])
def test_rounding_certifies_nothing_where_n_less_2f_is_the_unrest(n, f, stages):
    """All honest rows at one point and the answer beside it: no coefficient whatever can be true."""
    rule = RFA(f=f, iterations=1, nu_absolute=0.5)
    for _ in range(stages):
        rule = NNM(f=f) >> rule
    for seed in range(20):
        for dtype in (torch.float32, torch.float64):
            rows = gaussian(1, 4, seed).repeat(n, 1)
            rows[n - f :] += gaussian(1, 4, seed + 100)
            rows = rows.to(dtype)
            if float((rule(rows) - rows[0]).norm()) > 1e-3:
                assert not rule.certify(rows).holds


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"rule": "krum"}, "proved of this rule in advance, for 3 faulty rows of 20"),
        ({"rule": "mean"}, "tolerates 0 faulty rows of 20, not 3"),
        ({"rule": "signguard"}, "no round is certified: "),
        ({"rule": "mean", "method": {"name": "safeguard", "differing": True}}, ""),
    ],
)
def test_a_run_without_certificates_says_what_bounds_its_error_instead(keys, said):
    one = Spec.of({"task": "quartic", "rounds": 3, "lr": 0.01, "attack": "none", "attackers": 3} | keys)
    result = run(one)
    assert not any("certified_squared" in record for record in result.main.records)
    notes = [note for note in outcome_notes(result.outcomes, {"main": one}) if "certified" in note]
    assert [said in note for note in notes] == ([True] if said else [])
