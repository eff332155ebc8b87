"""Properties of rules on drawn rows: proved coefficients, twins, hostile input."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from byzopt.aggregators import NNM, PRE_AGGREGATORS, RFA, GeometricMedian, Median, rule_from
from byzopt.aggregators.numerics import weiszfeld
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.selection import order_statistics
from byzopt.aggregators.numerics.weiszfeld import certified_median
from byzopt.errors import ByzoptError
from byzopt.kernels import network
from byzopt.theory import robustness
from tests.reference import rules as twin
from tests.spellings import chains, marked


@st.composite
def hostile_rows(draw, max_n=9, max_d=3, scales=(1e-3, 1.0, 10.0, 1e6)):
    """Rows with clusters, exact ties, collinear groups and outliers."""
    n, d = draw(st.integers(1, max_n)), draw(st.integers(1, max_d))
    kind = draw(st.sampled_from(["normal", "lattice", "line", "clusters", "spread"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.normal(size=(n, d))
    if kind == "lattice":
        rows = rng.integers(-2, 3, size=(n, d)).astype(float)
    if kind == "line":
        rows = np.outer(rng.integers(-3, 4, size=n), rng.normal(size=d))
    if kind == "clusters":
        rows = rng.normal(size=(2, d))[rng.integers(0, 2, size=n)] + 1e-3 * rows
    if kind == "spread":
        rows *= 10.0 ** rng.integers(-3, 4, size=(n, 1))
    outliers = draw(st.integers(0, (n - 1) // 2))
    if outliers:
        signs = rng.choice([-1, 1], size=(outliers, d))
        rows[rng.permutation(n)[:outliers]] = draw(st.sampled_from(scales)) * signs
    return rows


def legal_f(rule_name, n):
    found = []
    for f in range((n + 1) // 2):
        rule = rule_from(rule_name, f=f)
        try:
            rule.check(n)
        except ByzoptError:
            continue
        if rule.tolerance(n) == f:
            found.append(f)
    return found


def proved(name):
    """Whether the rule has coefficients with one faulty row of nine."""
    rule = rule_from(name, f=1)
    return rule.tolerance(9) >= 1 and rule.coefficients(9, 1).squared is not None


def within(found, rows, answer, f, always=None):
    """`found` bounds the answer's error over every n - f rows; sets without the row `always` do not count."""
    seen = twin.worst_ratios(rows, answer, f, always)
    assert seen[0] <= found.linear * (1 + 1e-6) + 1e-9
    assert seen[1] <= found.squared * (1 + 1e-6) + 1e-9


EVERY = chains("", "nnm >> ")
PROVED = [*filter(proved, EVERY), "krum(extra=1)", "krum(power=1)", "krum(power=4)", "multi_krum(m=2)"]
CERTIFIED = ["rfa", "rfa(iterations=1)", "nnm >> rfa(iterations=2)", "geometric_median", "centered_clipping"]


@pytest.mark.parametrize("name", PROVED)
@given(rows=hostile_rows(), pick=st.integers(0, 100))
def test_no_rule_exceeds_its_proved_kappa_over_any_honest_subset(name, rows, pick):
    n = len(rows)
    legal = legal_f(name, n)
    assume(legal)
    rule = rule_from(name, f=legal[pick % len(legal)])
    answer, trusted = rule(rows), rule.trusts[0] if rule.trusts else None
    for f in {rule.tolerance(n), pick % (rule.tolerance(n) + 1)}:
        found = rule.coefficients(n, f)
        assert (found.squared is None) == (trusted is not None and f < rule.tolerance(n))
        if found.squared is not None:
            within(found, rows, answer, f, trusted)


@pytest.mark.parametrize("name", CERTIFIED)
@given(rows=hostile_rows(), pick=st.integers(0, 100))
def test_no_answer_exceeds_its_certificate_over_any_honest_subset(name, rows, pick):
    n = len(rows)
    rule = rule_from(name, f=pick % ((n - 1) // 2 + 1))
    found = rule.certify(rows)
    if found.holds:
        within(found, rows, rule(rows), found.f)
    else:
        assert found.reason


@given(rows=hostile_rows(), pick=st.integers(0, 100))
def test_nnm_leaves_no_more_dispersion_than_its_lemma_says(rows, pick):
    n = len(rows)
    f = pick % ((n - 1) // 2 + 1)
    mixed = NNM(f=f)(rows)
    honest = rows[f:]
    centre = honest.mean(axis=0)
    lengths = np.linalg.norm(honest - centre, axis=1)
    assume(lengths.mean() >= 1e-9)
    after = np.linalg.norm(mixed[f:] - centre, axis=1).mean()
    leverage = max(1.0, lengths.max() / lengths.mean())
    assert after <= robustness.nnm_dispersion(n, f, leverage) * lengths.mean() * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("n, f", [(3, 1), (5, 2), (7, 2), (9, 4)])
def test_the_line_of_ones_and_zeros_gives_the_lower_bound(n, f):
    rows = np.array([[1.0]] * f + [[0.0]] * (n - f))
    for name in ("median", "geometric_median"):
        linear, _ = twin.worst_ratios(rows, rule_from(name, f=f)(rows), f)
        assert linear == pytest.approx(robustness.least_linear(n, f))


TWINS = {
    "mean": twin.mean,
    "median": twin.median,
    "trimmed_mean": twin.trimmed_mean,
    "krum": twin.krum,
    "multi_krum": twin.multi_krum,
}


# Rows with the same neighbours become equal behind NNM; which of them Multi-Krum takes is left to rounding.
COMPARED = [p + r for p in ("", "nnm >> ") for r in TWINS if p + r != "nnm >> multi_krum"]


@pytest.mark.parametrize("spelling", COMPARED)
@given(seed=st.integers(0, 2**31), outlier=st.sampled_from([0.0, 1.0, 1e3, 1e8]))
@settings(max_examples=25)
def test_rules_equal_their_slow_twins(spelling, seed, outlier):
    *before, name = spelling.split(" >> ")
    rng = np.random.default_rng(seed)
    n, f = 11, 0 if name == "mean" else int(rng.integers(0, 5))
    rows = rng.normal(size=(n, 4))
    rows[:f] += outlier
    expected = TWINS[name](twin.nnm(rows, f) if before else rows, f)
    if before and name == "krum":  # the same for its winner: only clear winners are compared
        scores = np.sort(twin.krum_scores(twin.nnm(rows, f), f))
        assume(scores[0] <= scores[1] * (1 - 1e-9))
    # The mean keeps the outlier's size, and with it the rounding of that size.
    found = rule_from(spelling, f=f)(rows)
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-9 * max(1, outlier * (name == "mean")))


@given(rows=hostile_rows(max_n=8))
@settings(max_examples=40)
def test_geometric_median_is_no_worse_than_its_slow_twin(rows):
    found = GeometricMedian()(rows)
    slow = twin.objective(rows, twin.geometric_median(rows, steps=300))
    assert twin.objective(rows, found) <= slow * (1 + 1e-9) + 1e-12


@given(rows=hostile_rows(max_n=14, max_d=5, scales=(1e-9, 1.0, 1e6, 1e12, 1e30)), many=st.booleans())
@settings(max_examples=300)
def test_geometric_median_reaches_its_gap(rows, many):
    """Also as many rows do, by products with n x n numbers that are not factorised."""
    gram = Mixed(torch.from_numpy(rows)).geometry.centred
    with mock.patch.object(weiszfeld, "_DIRECT", 0 if many else 128):
        solution = certified_median(gram.numpy(), 1e-10)
    assert solution.gap <= 1e-10
    assert solution.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize(("n", "d"), [(300, 400), (300, 3), (200, 1)])
def test_the_geometric_median_of_many_rows_is_that_by_factorising(n, d):
    """On a line there is none to be found but rows: the Hessian is singular there."""
    rows = np.random.default_rng(0).standard_normal((n, d))
    rows[: n // 5] += 1e3
    gram = (rows - rows[-1]) @ (rows - rows[-1]).T
    found = certified_median(gram, 1e-12)
    with mock.patch.object(weiszfeld, "_DIRECT", n):
        wanted = certified_median(gram, 1e-12)
    assert max(found.gap, wanted.gap) <= 1e-12
    # A gap of 1e-12 leaves a distance of 1e-6 or so of the rows' spread to the minimum, by its curvature.
    assert np.abs((found.weights - wanted.weights) @ rows).max() <= 1e-5
    assert np.abs(found.weights @ rows - np.median(rows, axis=0)).max() <= (1e-9 if d == 1 else 1)


def test_the_geometric_median_of_many_rows_factorises_nothing(monkeypatch):
    monkeypatch.setattr(np.linalg, "solve", lambda *args: pytest.fail("n^3 operations"))
    rows = np.random.default_rng(1).standard_normal((200, 300))
    assert certified_median(rows @ rows.T, 1e-10).gap <= 1e-10


@given(rows=hostile_rows(max_n=9))
def test_rfa_equals_its_slow_twin(rows):
    z = np.zeros(rows.shape[1])
    found = RFA(nu_absolute=0.1, start="zero")(rows)
    assert np.allclose(found, twin.rfa(rows, start=z), rtol=1e-6, atol=1e-7 * (1 + np.abs(rows).max() ** 0.5))


@given(st.integers(1, 40), st.data())
def test_the_selection_network_equals_sorting(n, data):
    first = data.draw(st.integers(0, n - 1))
    last = data.draw(st.integers(first + 1, n))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    values = [-0.0, 0.0, 1.0, -1.0, 1e-45, 3e38, -3e38, 2.0]
    block = rng.choice(values, size=(n, 1024)).astype(np.float32)
    before = block.copy()
    found = np.stack(order_statistics(block, first, last))
    assert np.array_equal(found, np.sort(block, axis=0)[first:last])
    assert np.array_equal(block, before)


@given(st.integers(1, 64))
@settings(max_examples=20)
def test_a_median_needs_fewer_comparators_than_a_sort(n):
    assert len(network(n, (n - 1) // 2, n // 2 + 1)) <= len(network(n, 0, n))


BEFORE = ["", *(f"{name} >> " for name in PRE_AGGREGATORS)]


@pytest.mark.parametrize("spelling", marked(chains(*BEFORE)))
@given(
    n=st.integers(1, 12),
    d=st.integers(1, 4),
    f=st.integers(0, 5),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
@settings(max_examples=20)  # of each of nearly two hundred spellings
def test_hostile_rows_give_a_finite_answer_or_a_named_error(spelling, n, d, f, seed, dtype):
    rng = np.random.default_rng(seed)
    info = torch.finfo(dtype)
    values = [0.0, -0.0, 1.0, -1.0, 1.0, info.max, -info.max, info.tiny, info.eps]
    values += [np.nan, np.inf, -np.inf, 1e4]
    odds = np.array([4.0] * 5 + [1.0] * 4 + [0.3] * 3 + [1.0])
    rows = torch.from_numpy(rng.choice(values, size=(n, d), p=odds / odds.sum())).to(dtype)
    rule = rule_from(spelling, f=f)
    try:
        out = rule(rows)
    except ByzoptError:
        return
    assert torch.isfinite(out).all()
    finite = rows[torch.isfinite(rows).all(dim=1)].double()
    shortened = dtype == torch.float64 and float(finite.abs().max()) > 1e100
    if rule.convex and not shortened:
        slack = 4 * info.eps * finite.abs().amax(dim=0) + 2 * info.smallest_normal
        assert (out.double() <= finite.amax(dim=0) + slack).all()
        assert (out.double() >= finite.amin(dim=0) - slack).all()


@given(seed=st.integers(0, 2**31), outlier=st.sampled_from([None, 1e6, 1e15, 1e30]))
@settings(max_examples=20)
def test_far_offset_float32_rows_are_selected_as_in_float64(seed, outlier):
    rng = np.random.default_rng(seed)
    rows = (1e3 + 0.1 * rng.normal(size=(20, 5000))).astype(np.float32)
    if outlier is not None:
        rows[0] = outlier
    single, double = torch.from_numpy(rows), torch.from_numpy(rows).double()
    for rule in (rule_from("krum", f=3), rule_from("multi_krum", f=3)):
        assert torch.equal(rule.weights(Mixed(single).geometry), rule.weights(Mixed(double).geometry))
    stage = NNM(f=3)
    assert torch.equal(stage.mixing(Mixed(single).geometry), stage.mixing(Mixed(double).geometry))


def test_median_of_one_row_is_that_row():
    assert Median()(np.array([[1.0, 2.0]])).tolist() == [1.0, 2.0]
