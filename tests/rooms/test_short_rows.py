"""More workers than coordinates: rules then look at the rows as points, or at few columns one by one."""

from __future__ import annotations

from contextlib import nullcontext
from math import fsum

import numpy as np
import pytest
import torch

from byzopt import aggregators as ag
from byzopt import kernels, linalg
from byzopt.aggregators.numerics import measuring, weiszfeld
from byzopt.aggregators.numerics.measuring import geometry_of
from byzopt.aggregators.numerics.point_median import median_of_points
from byzopt.aggregators.numerics.points import Points
from tests.reference import rules as twins

pytestmark = pytest.mark.filterwarnings("error")


def drawn(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kinds_of_rows():
    """Names and rows `[n, d]` whose geometric medians are found in different ways."""
    for n, d in ((300, 1), (301, 1), (300, 2), (301, 7), (500, 100)):
        yield f"{n} x {d}", drawn(n, d)
    huge = drawn(600, 5)
    huge[:250] *= 1e30
    yield "huge", huge
    yield "offset", drawn(600, 5) + 1e6
    yield "line", drawn(400, 1) @ torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
    yield "odd line", drawn(401, 1) @ torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64) + 3
    most = drawn(600, 4)
    most[:350] = most[0]
    yield "most equal", most
    heavy = drawn(600, 4)
    heavy[:200] = 0
    yield "a row is the median", heavy
    around = drawn(601, 2)
    around[0], around[1:301] = 0, -around[301:]
    yield "symmetric", around
    twice = drawn(600, 3)
    twice[300:] = twice[:300]
    yield "twice", twice
    yield "all equal", torch.full((400, 3), 5.0, dtype=torch.float64)
    apart = drawn(400, 3) * 1e-6
    apart[:199] += 1
    yield "two clusters", apart
    yield "close", torch.cat([drawn(200, 2) * 1e-9, drawn(300, 2) + 3])


KINDS = dict(kinds_of_rows())


def lengths(rows, place):
    return np.sqrt(((rows - place) ** 2).sum(axis=1))


def beyond(rows, place, other):
    """How much larger the sum of distances to `place` is, as a share of that of the nearest half."""
    one, two = lengths(rows, place), lengths(rows, other)
    both = np.where(one + two > 0, one + two, 1)
    # |x - a|^2 - |x - b|^2 = <b - a, 2 x - a - b>: huge rows cost no digits.
    change = ((2 * rows - place - other) @ (other - place)) / both
    return fsum(change) / max(fsum(np.sort(one)[: len(one) // 2 + 1]), 1e-300)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_geometric_median_in_coordinates_is_that_of_products(kind, compiled):
    rows = KINDS[kind]
    with nullcontext() if compiled else kernels.disabled():
        points = Points(rows)
        found = median_of_points(points, 1e-10, np.ones(len(rows)), points.centre)
    assert found.gap <= 1e-10
    assert abs(found.weights.sum() - 1) <= 1e-12
    assert (found.weights >= 0).all()
    about = rows.numpy() - np.median(rows.numpy(), axis=0)  # of the bulk
    other = weiszfeld.certified_median(about @ about.T, 1e-10)
    ours, theirs = found.weights @ about, other.weights @ about
    # Both are within the gap of the least sum; the gradient of products is known to about 1e-8 of the bulk's
    # lengths, so that of the bulk both are settled to 1e-6.
    assert abs(beyond(about, ours, theirs)) <= 2e-6
    width = np.median(lengths(about, theirs))
    if kind in ("a row is the median", "most equal", "symmetric", "all equal", "odd line", "301 x 1"):
        assert (found.weights > 0).sum() == 1  # the row itself, not a place next to it
        assert np.array_equal(ours, theirs)
    else:  # F is as flat as its curvature is about 1/width a row: a gap of 1e-10 leaves 1e-5
        assert np.linalg.norm(ours - theirs) <= 2e-5 * width + 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["300 x 2", "301 x 7", "offset"])
def test_the_geometric_median_of_short_rows_is_that_of_a_slow_twin(kind, dtype):
    rows = KINDS[kind][:300].to(dtype)
    exact = rows.double().numpy()
    twin = twins.geometric_median(exact, steps=40)
    found = ag.GeometricMedian()(rows).double().numpy()
    # The rule's proof, or as near as Weiszfeld's steps came; both may end on the other side of the minimum.
    size = lengths(exact, twin).sum()
    grain = torch.finfo(dtype).eps * np.abs(exact).max()  # the answer is rounded to the rows' dtype
    assert lengths(exact, found).sum() <= size * (1 + 1e-9) + len(exact) * grain * exact.shape[1] ** 0.5


def test_no_products_of_short_rows_are_taken_for_their_geometric_median(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a product was taken")

    monkeypatch.setattr(linalg, "gram", refuse)
    rows = drawn(300, 7)
    rule = ag.GeometricMedian(f=40)
    found = rule(rows)
    assert torch.equal(rule(rows.flip(0)[torch.arange(299, -1, -1)]), found)
    rows[:40] = float("nan")  # dropped by the policy for bad rows, as they are where n x n numbers decide
    assert torch.equal(rule(rows), ag.GeometricMedian(f=0)(rows[40:]))
    rows[3] = 1e300  # too large to be squared: rows are measured in another unit
    rows[4] = float("inf")
    assert (rule(rows) - ag.GeometricMedian(f=1)(torch.cat([rows[3:4], rows[40:]]))).abs().max() <= 1e-12


def test_rows_that_count_twice_are_two_rows():
    rows = drawn(300, 3)
    weights = [1 + i % 2 for i in range(300)]
    twice = torch.cat([rows, rows[1::2]])
    found = ag.Weighted(ag.GeometricMedian(), weights, cap=1.0)(rows)
    assert (found - ag.GeometricMedian()(twice)).abs().max() <= 1e-5  # both within the gap: see above


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n,d", [(257, 1), (300, 3), (513, 7), (1030, 40), (300, 200)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_iterations_from_the_bulk_are_those_of_slow_twins(n, d, offset, dtype):
    rows = (drawn(n, d) + offset).to(dtype)
    rows[: n // 4] += 50
    exact = rows.double().numpy() - offset
    dists = np.sqrt(np.stack([((exact - row) ** 2).sum(axis=1) for row in exact]))
    radii = np.sort(dists, axis=1)[:, n // 2]
    near = dists[radii.argmin()] <= radii.min() * (1 + 1e-9)
    start = exact[near].mean(axis=0)
    twin = twins.rfa(exact, iterations=8, nu=1e-6 * np.median(lengths(exact, start)), start=start)
    away = lengths(exact, start)
    pull = np.minimum(1, np.median(away) / away)
    clipped = start + (pull[:, None] * (exact - start)).mean(axis=0)
    # Steps contract what rounding leaves; the answer is rounded, and summed, in the rows' dtype.
    within = 16 * torch.finfo(dtype).eps * (offset + 50)
    assert np.abs(ag.RFA()(rows).double().numpy() - offset - twin).max() <= within
    assert (
        np.abs(ag.CenteredClipping(stateful=False)(rows).double().numpy() - offset - clipped).max() <= within
    )


@pytest.mark.parametrize(
    "rule", [ag.RFA(start="mean"), ag.RFA(start="zero"), ag.RFA(iterations=1), ag.RFA(iterations=2)]
)
def test_other_starts_are_the_same_as_by_products(rule):
    rows = drawn(300, 20) + 1
    apart = geometry_of(rows).sq_dists  # products by themselves
    assert apart.shape == (300, 300)
    wide = torch.cat([rows, torch.zeros(300, 300, dtype=torch.float64)], dim=1)  # longer than there are rows
    assert (rule(rows) - rule(wide)[:20]).abs().max() <= 1e-12


@pytest.mark.parametrize("n,d", [(257, 2), (300, 40), (301, 500)])
def test_the_medoid_of_many_rows_is_the_first_with_the_least_sum(n, d):
    rows = drawn(n, d)
    rows[: n // 4] *= 1e12
    exact = rows.numpy()
    sums = [fsum(lengths(exact, row) - lengths(exact, exact[-1])) for row in exact]
    best = int(np.argmin(sums))
    rows[[n // 2, best]] = rows[[best, n // 2]]
    rows[n // 2 + 5] = rows[n // 2]  # a twin makes both better, and the first of them is it
    weights = ag.Medoid().explain(rows).weights
    assert int(weights.argmax()) == n // 2


RULES = [ag.GeometricMedian(), ag.RFA(), ag.Medoid(), ag.CenteredClipping(stateful=False), ag.Krum(f=60)]


@pytest.mark.parametrize(
    "stages", [(ag.NNM(f=60),), (ag.NNM(f=60), ag.NNM(f=20)), (ag.Clipping(1.0),)], ids=repr
)
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_behind_stages_short_rows_have_the_answers_of_products(rule, stages, monkeypatch):
    rows = drawn(301, 9)
    rows[240:] = 40 * rows[3]  # liars agree
    chain = rule
    for stage in reversed(stages):
        chain = stage >> chain
    found = chain(rows)
    monkeypatch.setattr(measuring, "are_points", lambda rows: False)
    # A gap of 1e-10 leaves 1e-5, see above. Rows that were mixed twice are equal, or nearly: by products they
    # are apart by half of the digits, and the bulk holds others.
    atol = 1e-5 if isinstance(rule, ag.GeometricMedian) else 1e-7 if len(stages) > 1 else 1e-11
    assert (found - chain(rows)).abs().max() <= atol


def test_behind_stages_bad_rows_are_dropped_too():
    rows, chain = drawn(320, 5), ag.NNM(f=60) >> ag.GeometricMedian(f=60)
    bucketed = ag.Bucketing(1) >> ag.Medoid(f=60)
    for value in (float("nan"), float("inf")):
        rows[7] = value
        rest = torch.cat([rows[:7], rows[8:]])
        assert torch.equal(chain(rows), (ag.NNM(f=59) >> ag.GeometricMedian(f=59))(rest))
        assert torch.equal(bucketed(rows), (ag.Bucketing(1) >> ag.Medoid(f=59))(rest))


@pytest.mark.parametrize("stage", [ag.NNM(f=60), ag.Bucketing(2), ag.Clipping(1.0)], ids=repr)
@pytest.mark.parametrize("rule", [ag.GeometricMedian(f=60), ag.RFA(f=60), ag.Medoid(f=60)], ids=repr)
def test_chains_of_short_rows_do_not_depend_on_their_order(rule, stage):
    rows = drawn(301, 9).float()
    rows[250:] = rows[3]
    order = torch.from_numpy(np.random.default_rng(3).permutation(301))
    chain = stage >> rule
    if not isinstance(stage, ag.Bucketing):  # which deals rows out by their places
        assert torch.equal(chain(rows), chain(rows[order]))
    assert (chain(rows).double() - chain(rows.double())).abs().max() <= 1e-4


@pytest.mark.parametrize("place", ["alone", "behind a stage"])
@pytest.mark.parametrize(("n", "d"), [(300, 1), (301, 7), (500, 100)])
def test_dnc_drops_the_rows_that_lie_farthest_along_the_top_direction(n, d, place):
    rows, f = drawn(n, d) * torch.linspace(1, 3, d, dtype=torch.float64) + 5, n // 6
    rows[:f] += 4 * torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False).Vh[0]
    sent = rows
    if place == "behind a stage":
        sent, rows = rows, ag.NNM(f=f)(rows)
    ways = rows - rows.mean(dim=0)
    along = (ways @ torch.linalg.svd(ways, full_matrices=False).Vh[0]).square()
    kept = along.argsort()[: n - f]
    rule = ag.DnC(f=f) if place == "alone" else ag.NNM(f=f) >> ag.DnC(f=f)
    assert torch.allclose(rule(sent), rows[kept].mean(dim=0), rtol=1e-9, atol=1e-9)
    sent[3, 0] = torch.nan
    assert rule(sent).isfinite().all()
