"""Robustness coefficients against closed forms, a quadratic program, papers, and rows that attain them."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch

from byzopt.aggregators import (
    MDA,
    MVA,
    NNM,
    RFA,
    RULES,
    SMEA,
    Bucketing,
    CappedNNM,
    CoordinateRule,
    FailClosed,
    GeometricMedian,
    Krum,
    MeaMed,
    Mean,
    Median,
    Medoid,
    MoNNA,
    MultiKrum,
    NormClipping,
    Phocas,
    TrimmedMean,
    rule_from,
)
from byzopt.aggregators.core.kinds import RankRule
from byzopt.errors import InvalidInput
from byzopt.kernels import RankWindow
from byzopt.theory import order_statistics, published, selecting
from byzopt.theory import robustness as rb
from byzopt.theory.robustness import NOTHING, Coefficients
from tests.reference import rules as twin
from tests.spellings import chains

SIZES = [(n, f) for n in range(3, 24) for f in range((n - 1) // 2 + 1)]


# What papers state.


def test_the_papers_setting_of_20_workers_and_3_liars():
    gm = published.geometric_median_linear(20, 3)
    assert gm == pytest.approx(2.428571, abs=1e-6)
    printed = [published.median_linear(20, 3, d=d) for d in (10, 109_386, 1_199_882)]
    assert printed == pytest.approx([7.680, 803.2, 2660.2], rel=1e-4)
    assert published.nnm_linear(gm, 20, 3, leverage=1) == pytest.approx(4.134454, abs=1e-6)
    squared = published.nnm_squared(published.geometric_median_squared(20, 3), 20, 3)
    assert rb.linear_from_squared(squared, 20, 3, leverage=1) == pytest.approx(3.120624, abs=1e-6)


@pytest.mark.parametrize("n, f, gm, nnm_gm, nnm_tm", [(20, 8, 36, 197.33, 197.33), (20, 3, 5.90, 9.74, 3.62)])
def test_squared_coefficients_of_the_compressed_family_as_published(n, f, gm, nnm_gm, nnm_tm):
    assert published.geometric_median_squared(n, f) == pytest.approx(gm, abs=5e-3)
    assert published.nnm_squared(published.geometric_median_squared(n, f), n, f) == pytest.approx(
        nnm_gm, abs=5e-3
    )
    assert published.nnm_squared(published.trimmed_mean_squared(n, f), n, f) == pytest.approx(
        nnm_tm, abs=5e-3
    )


@pytest.mark.parametrize("n, f", SIZES)
def test_what_is_proved_here_is_never_more_than_what_is_published(n, f):
    pairs = [
        (TrimmedMean(f=f), published.trimmed_mean_squared(n, f), None),
        (Median(f=f), published.median_squared(n, f), published.median_linear(n, f)),
        (
            GeometricMedian(f=f),
            published.geometric_median_squared(n, f),
            published.geometric_median_linear(n, f),
        ),
        (Krum(f=f, extra=1), published.krum_squared(n, f), None),
        (
            NNM(f=f) >> TrimmedMean(f=f),
            published.nnm_squared(published.trimmed_mean_squared(n, f), n, f),
            None,
        ),
    ]
    for rule, squared, linear in pairs:
        assert rule.kappa_squared(n) <= squared + 1e-12
        assert linear is None or rule.kappa_linear(n) <= linear + 1e-12


# Closed forms.


@pytest.mark.parametrize("n, f", SIZES)
def test_no_rule_has_smaller_coefficients_than_the_trimmed_mean(n, f):
    rule = TrimmedMean(f=f)
    assert rule.kappa_squared(n) == pytest.approx(f / (n - 2 * f), abs=1e-12)
    assert rule.kappa_squared(n) == pytest.approx(rb.least_squared(n, f), abs=1e-12)
    assert rule.kappa_linear(n) == pytest.approx(rb.least_linear(n, f), abs=1e-12)
    assert rule.kappa_linear(n) == pytest.approx((n - f) / (2 * (n - 2 * f)) if f else 0, abs=1e-12)
    for name in RULES:
        other = rule_from(name, f=f) if name != "bulyan" else rule
        try:
            found = other.coefficients(n, f)
        except InvalidInput:
            continue
        assert found.squared is None or found.squared >= rb.least_squared(n, f) - 1e-12
        assert found.linear is None or found.linear >= rb.least_linear(n, f) - 1e-12


@pytest.mark.parametrize(
    "n, f, squared, linear",
    [(20, 3, 1.125, 1.0625), (50, 10, 1.5, 1.25), (11, 5, 5, 3), (7, 2, 1.5, 1.25), (9, 1, 1, 1)],
)
def test_the_median_by_hand(n, f, squared, linear):
    assert Median(f=f).kappa_squared(n) == pytest.approx(squared)
    assert Median(f=f).kappa_linear(n) == pytest.approx(linear)


def test_rules_that_select_by_hand():
    r = 3 / 14
    for rule in (Phocas(f=3), MVA(f=3), SMEA(f=3), NNM(f=3) >> TrimmedMean(f=3)):
        assert rule.kappa_squared(20) == pytest.approx(4 * r)
    assert SMEA(f=3).kappa_spectral(20) == pytest.approx(4 * r)
    assert MeaMed(f=3).kappa_squared(20) == pytest.approx(1.5)
    assert MeaMed(f=5).kappa_squared(11) == pytest.approx(20)
    assert MDA(f=3).coefficients(20)[:2] == pytest.approx((sqrt(72 / 17 * 17 / 2), 72 / 17))
    assert Krum(f=3).kappa_squared(20) == pytest.approx(4.50, abs=5e-3)
    assert MultiKrum(f=3).kappa_squared(20) == pytest.approx(1.045, abs=5e-4)
    assert MultiKrum(f=3, m=1).coefficients(20) == Krum(f=3).coefficients(20)
    assert MoNNA(f=3).kappa_squared(20) == pytest.approx(12)
    assert Medoid(f=3).kappa_squared(20) == pytest.approx(2 * 17 * 16 / 14**2)
    assert Medoid(f=3).kappa_linear(20) == pytest.approx(32 / 14)
    assert GeometricMedian(f=3).coefficients(20) == pytest.approx((17 / 14, 20 / 14, 34 / 14))
    assert (NNM(f=3) >> GeometricMedian(f=3)).kappa_squared(20) == pytest.approx(8 * r)
    assert (NNM(f=3) >> Median(f=3)).kappa_squared(20) == pytest.approx(1.5)
    assert (NNM(f=3) >> TrimmedMean(f=3)).kappa_linear(20) == pytest.approx(2.70, abs=5e-3)
    assert (NNM(f=3) >> Krum(f=3)).kappa_linear(20) < 14.15


def test_a_search_that_may_end_early_promises_less():
    assert 2 * comb(20, 3) - 1 == 2279
    r = 3 / 14
    for rule in (MVA, SMEA):
        assert rule(f=3, budget=2279).kappa_squared(20) == pytest.approx(4 * r)
        assert rule(f=3, budget=2278).kappa_squared(20) == pytest.approx((1 + sqrt(2)) ** 2 * r)
    assert SMEA(f=3, budget=2278).kappa_spectral(20) is None
    rows = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert MVA(f=3, budget=2278).certify(rows).squared == pytest.approx(4 * r)  # this search ended
    assert MVA(f=3, budget=1).certify(rows).squared == pytest.approx(20 / 14, rel=0.2)


# Order statistics.


@pytest.mark.parametrize("seed", range(8))
def test_isotonic_regression_is_the_nearest_sorted_vector(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=int(rng.integers(1, 9)))
    found = np.array(order_statistics.isotonic(list(values)))
    assert (np.diff(found) >= -1e-12).all()
    # Optimality in the quadratic program: nothing to gain along any step of the cone, or along itself.
    rest = values - found
    assert abs(rest.sum()) < 1e-12
    assert all(rest[k:].sum() <= 1e-12 for k in range(len(values)))
    assert abs(rest @ found) < 1e-12


@pytest.mark.parametrize("seed", range(12))
def test_weighed_order_statistics_are_attained_and_never_exceeded(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 11))
    f = int(rng.integers(1, (n - 1) // 2 + 1))
    weights = np.zeros(n)
    weights[f : n - f] = rng.random(n - 2 * f)
    weights /= weights.sum()
    found = order_statistics.weighed(list(weights), f)
    seen = np.zeros(3)
    for c, sign in ((weights[: n - f], 1.0), (weights[f:][::-1], -1.0)):
        for honest in _extremes(c, rng):
            rows = np.concatenate([sign * honest, np.full(f, sign * 1e3)])
            answer, centre = weights @ np.sort(rows), sign * honest.mean()
            away = np.abs(sign * honest - centre)
            error = abs(answer - centre)
            here = (error / away.mean(), error**2 / (away**2).mean(), abs(answer) / np.abs(honest).mean())
            seen = np.maximum(seen, here)
    assert seen == pytest.approx(found, rel=1e-6)


def _extremes(c, rng):
    """Sorted honest values at which the three forms are attained, and random ones, which exceed none."""
    size = len(c)
    yield np.array(order_statistics.isotonic(list(c)))
    for j in range(1, size):
        block = np.zeros(size)
        block[size - j :] = 1.0
        yield block
        for k in range(1, size - j + 1):
            two = block / j
            two[:k] = -1 / k
            yield two
    for _ in range(50):
        yield np.sort(rng.normal(size=size) * 10.0 ** rng.integers(-2, 3, size=size))


def test_a_plugin_that_declares_its_weights_has_exact_coefficients():
    @dataclass(frozen=True)
    class Quartiles(CoordinateRule):
        f: int

        def columns(self, block):
            ordered = block.sort(dim=0).values
            return (ordered[2] + ordered[-3]) / 2

        def order_weights(self, m):
            return [0.5 if k in (2, m - 3) else 0.0 for k in range(m)]

    rule = Quartiles(f=2)
    assert rule.coefficients(9) == rb.closed(order_statistics.weighed(rule.order_weights(9), 2), 9, 2)
    honest = np.array(order_statistics.isotonic(rule.order_weights(9)[:7]))
    rows = np.concatenate([honest, [9.0, 9.0]])[:, None]
    error = (float(rule(rows)[0]) - honest.mean()) ** 2 / honest.var()
    assert error == pytest.approx(rule.kappa_squared(9), rel=1e-6)
    assert Quartiles(f=3).kappa_squared(9) is None  # a faulty extreme has weight

    @dataclass(frozen=True)
    class Around(RankRule):
        f: int

        def plan(self, m):
            return RankWindow(self.f, m - self.f, m - self.f)

    assert Around(f=3).coefficients(20) == Phocas(f=3).coefficients(20)


def test_weights_that_are_none_are_refused():
    for weights in ([0.5, -0.1, 0.6], [0.2, 0.2, 0.2]):
        with pytest.raises(InvalidInput):
            order_statistics.weighed(weights, 0)


# Routes between the forms.


def test_conversions():
    assert rb.squared_from_linear(3.0) == 9.0
    assert rb.linear_from_squared(4.0, 10, 1) == pytest.approx(sqrt(4 * 9 / 2))
    assert rb.linear_from_squared(4.0, 10, 1, leverage=2) == pytest.approx(sqrt(8))
    assert rb.linear_from_squared(4.0, 10, 1, leverage=100) == pytest.approx(sqrt(18))
    assert rb.squared_from_pairs(c=3, delta=0.1, honest=10) == pytest.approx(2 * 3 * 0.1 * 10 / 9)


@pytest.mark.parametrize("name", [each for each in chains("", "nnm >> ") if "bulyan" not in each])
def test_the_least_over_all_routes_is_given(name):
    for n, f in ((20, 3), (21, 1), (11, 4)):
        found = rule_from(name, f=f).coefficients(n, f)
        assert (found.linear is None) == (found.squared is None)
        if found.linear is None:
            continue
        assert found.squared <= rb.squared_from_linear(found.linear) + 1e-12
        assert found.linear <= rb.linear_from_squared(found.squared, n, f) + 1e-12
        assert found.anywhere <= 2 * found.linear + 1 + 1e-12
        assert rb.closed(found, n, f) == found


def test_nnm_leaves_at_most_what_its_lemmas_say():
    assert rb.nnm_variance(20, 3) == pytest.approx(12 / 17)
    assert rb.nnm_dispersion(20, 3, 1) == pytest.approx(4 * 3 / 17)
    assert rb.nnm_dispersion(20, 3) == pytest.approx(2 + 2 * 3 / 17)
    assert rb.nnm_dispersion(21, 1) == pytest.approx(1 + 2 / 20)
    assert rb.nnm_dispersion(20, 2) == pytest.approx(2)


@pytest.mark.parametrize("cap", [0.1, 0.5, 1.0, 100.0])
@pytest.mark.parametrize("n, f", [(5, 1), (7, 2), (9, 4)])
@pytest.mark.parametrize("name", ["trimmed_mean", "median", "geometric_median"])
def test_the_coefficient_behind_capped_nnm_is_kept_over_all_honest_subsets(name, n, f, cap):
    rule = rule_from(f"capped_nnm(cap={cap}) >> {name}", f=f)
    promised, behind = rule.coefficients(n, f), rule_from(name, f=f).coefficients(n, f)
    assert promised.squared == pytest.approx((1 + 4 * f / (n - f)) * (behind.squared + 1))
    draws = np.random.default_rng(n + f)
    for place in (0.0, 1.0, -1.0, 3.0):
        rows = np.concatenate([np.full((f, 2), place), draws.integers(-1, 2, (n - f, 2))])
        rows = rows + 1e-3 * draws.standard_normal(rows.shape)
        linear, squared = twin.worst_ratios(rows, rule(rows), f)
        assert squared <= promised.squared * (1 + 1e-9)
        assert linear <= promised.linear * (1 + 1e-9)


def test_capped_nnm_before_a_rule_with_another_f_has_no_coefficient():
    assert (CappedNNM(f=2) >> Median(f=3)).kappa_squared(20, 3) is None


@pytest.mark.parametrize("n, f", [(20, 3), (7, 2), (11, 5), (13, 4), (9, 1)])
@pytest.mark.parametrize("name", ["nnm >> trimmed_mean", "phocas", "mva", "smea"])
def test_four_r_is_attained(name, n, f):
    # The liars mirror the f honest rows that differ, and lie a little nearer: they are taken in their place.
    rule = rule_from(name, f=f)
    assert rule.kappa_squared(n) == pytest.approx(4 * f / (n - 2 * f))
    rows = np.concatenate([np.zeros(n - 2 * f), np.ones(f), np.full(f, 1e-8 - 1)])[:, None]
    honest = rows[: n - f]
    error = (float(rule(rows)[0]) - honest.mean()) ** 2 / honest.var()
    assert error == pytest.approx(rule.kappa_squared(n), rel=1e-6)


def test_meamed_is_exact_where_two_f_and_one_are_all():
    rows = np.concatenate([np.zeros(1), np.ones(5), np.full(5, -1.0)])[:, None]
    far = [float(MeaMed(f=5)(rows * side)[0]) - side * 5 / 6 for side in (1, -1)]
    assert max(value**2 for value in far) / rows[:6].var() == pytest.approx(MeaMed(f=5).kappa_squared(11))


@pytest.mark.parametrize("n, f", [(20, 3), (10, 4), (50, 10)])
def test_the_constants_of_the_geometric_median_are_approached(n, f):
    # Half of n - 2 f honest rows at one point, which the liars, just off it, make the median.
    near, h = (n - 2 * f) // 2, 1e-2
    away = [[1.0, h * (-1) ** i] for i in range(n - f - near)]
    rows = np.array([[0.0, 0.0]] * near + away + [[-1e-3, 0.0]] * f)
    answer, honest = GeometricMedian(f=f)(rows), rows[: n - f]
    lengths = np.linalg.norm(honest - honest.mean(axis=0), axis=1)
    error = np.linalg.norm(answer - honest.mean(axis=0))
    # The far rows stand h apart, which costs about h² of each.
    assert GeometricMedian(f=f).kappa_squared(n) == pytest.approx(
        error**2 / (lengths**2).mean(), rel=10 * h**2
    )
    assert GeometricMedian(f=f).kappa_linear(n) == pytest.approx(error / lengths.mean(), rel=10 * h**2)


def test_without_liars_nothing_is_lost():
    for rule in (TrimmedMean(f=0), Mean(), Phocas(f=0), MVA(f=0), NNM(f=0) >> Median(f=0)):
        assert rule.coefficients(9)[:2] == pytest.approx((0, 0), abs=1e-12)
    assert rb.least_linear(9, 0) == rb.nnm_dispersion(9, 0) == 0


def test_impossible_counts_are_named_errors():
    for call in (
        lambda: rb.ratio(4, 2),
        lambda: rb.ratio(4, -1),
        lambda: rb.nnm(Coefficients(1.0, 1.0), 4, 2),
        lambda: rb.linear_from_squared(1, 10, 1, leverage=0.5),
        lambda: selecting.krum(8, 3, 2),
        lambda: rb.squared_from_pairs(1, 0.1, 1),
        lambda: Krum(f=3).kappa_squared(8),
    ):
        with pytest.raises(InvalidInput):
            call()


# What is claimed, and for how many.


def test_a_chain_claims_a_coefficient_only_where_a_lemma_covers_it():
    nothing = [
        NNM(f=3) >> Mean(),
        NNM(f=3) >> TrimmedMean(f=2),
        NNM(f=3) >> NNM(f=2) >> TrimmedMean(f=3),
        Bucketing() >> Median(f=3),
        RFA(f=3),
        NormClipping(f=3),
    ]
    for rule in nothing:
        assert rule.coefficients(20) == NOTHING
        assert rule.unproved(20)
    assert (NNM(f=3) >> TrimmedMean(f=4)).kappa_squared(20) is not None
    assert (NNM(f=3) >> NNM(f=3) >> Median()).unproved(20) == ""


def test_the_mean_has_no_coefficient_once_anybody_is_faulty():
    assert Mean().coefficients(20, 0)[:2] == (0, 0)
    assert Mean().coefficients(20, 3) == NOTHING
    assert Mean().unproved(20, 3) == "Mean() tolerates 0 faulty rows of 20, not 3"
    assert TrimmedMean(f=1).coefficients(20, 3) == NOTHING
    assert FailClosed(Mean()).kappa_linear(20, 1) is None
    assert Median().coefficients(20, 10) == NOTHING


def test_fewer_faulty_rows_than_tolerated_cost_no_more():
    for rule in (TrimmedMean(f=4), Krum(f=4), MDA(f=4), MVA(f=4), MeaMed(f=4), NNM(f=4) >> TrimmedMean(f=4)):
        most = rule.coefficients(20)
        for f in range(4):
            found = rule.coefficients(20, f)
            assert found.squared <= most.squared + 1e-12
            assert found.linear <= most.linear * (20 - f) / 16 + 1e-12
    # Two of six rows cut off, one of them faulty: exactly what the order statistics say.
    assert TrimmedMean(f=2).kappa_squared(6, 1) == order_statistics.weighed([0, 0, 0.5, 0.5, 0, 0], 1).squared
    # Averages over sets that hold the trusted row are no averages over all sets.
    assert MoNNA(f=4).kappa_squared(20, 3) is None
    assert (NNM(f=4) >> MoNNA(f=4)).kappa_squared(20, 3) is None
    assert (NNM(f=4) >> FailClosed(MoNNA(f=4, trusted=2))).trusts == (2,)


def test_the_table_in_the_docs_is_what_the_rules_say():
    page = (Path(__file__).parents[2] / "docs" / "constants.md").read_text(encoding="utf-8")
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line[:3] == "| `"
    ]
    assert len(lines) == 17
    stated = {
        "trimmed_mean": published.trimmed_mean_squared(20, 3),
        "median": published.median_squared(20, 3),
        "geometric_median": published.geometric_median_squared(20, 3),
        "krum(extra=1)": published.krum_squared(20, 3),
        "nnm >> trimmed_mean": published.nnm_squared(published.trimmed_mean_squared(20, 3), 20, 3),
        "nnm >> median": published.nnm_squared(published.median_squared(20, 3), 20, 3),
        "nnm >> geometric_median": published.nnm_squared(published.median_squared(20, 3), 20, 3),
    }
    for name, _, _, *figures, paper in lines:
        small, middle, large = (
            rule_from(name.strip("`"), f=f).coefficients(n, f) for n, f in ((20, 3), (50, 10), (11, 4))
        )
        found = (small.squared, small.linear, middle.squared, large.squared)
        assert figures == [f"{value:.4g}" for value in found], name
        assert paper == (f"{stated[name.strip('`')]:.4g}" if name.strip("`") in stated else "-")
