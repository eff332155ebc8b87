"""Subset, filter, pivot, group and clipping rules: golden values, slow twins, memory, random projection."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from byzopt.aggregators import (
    CAF,
    MDA,
    MVA,
    NNM,
    SMEA,
    CenteredClipping,
    Clipping,
    Krum,
    Mean,
    Median,
    MedianOfMeans,
    MoNNA,
    RandomProjection,
    TrimmedMean,
    Zeno,
    caf,
    rule_from,
)
from byzopt.aggregators.centered_clipping import Following, Last
from byzopt.aggregators.core.filters import RoundContext, StatelessFilter
from byzopt.aggregators.mva import SubsetVariance
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.subsets import best_subset
from byzopt.aggregators.smea import TopEigenvalue
from byzopt.errors import InvalidInput, TooManyFaults
from byzopt.methods import ByzNSGDM, RobustGD, RobustSGDM
from byzopt.rng import stream
from tests.reference import rules_more as twin

LINE = torch.tensor([[0.0], [1.0], [2.0], [4.0], [100.0]], dtype=torch.float64)
HEIGHT = 3**0.5 / 2


def line(*values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def at(t, x=None):
    return RoundContext(t, torch.zeros(1, dtype=torch.float64) if x is None else x)


def sq_dists(rows):
    return ((rows[:, None] - rows[None]) ** 2).sum(-1)


def hostile(rng, n, f, d=4):
    """Random rows, the first f of them far away: together, apart, or at many sizes."""
    rows = rng.normal(size=(n, d))
    kind = rng.integers(4)
    if kind == 1:
        rows[:f] += rng.choice([3.0, 1e3, 1e8])
    if kind == 2:
        rows[:f] *= 10.0 ** rng.integers(1, 9, size=(f, 1))
    if kind == 3:
        rows = rows + 1e3
        rows[:f] *= -1
    return rows


@pytest.mark.parametrize("name", sorted(twin.TWINS))
def test_rules_equal_their_slow_twins_on_random_and_hostile_rows(name):
    rng = np.random.default_rng(0)
    for _ in range(40):
        n = int(rng.integers(3, 12))
        f = int(rng.integers(0, (n - 1) // 2 + 1))
        rule = rule_from(name, f=f)
        try:
            rule.check(n)
        except InvalidInput:
            continue
        rows = hostile(rng, n, f)
        # A trusted row must be honest for the rule to mean anything; row n - 1 is.
        options = {"trusted": n - 1} if name == "monna" else {}
        expected = twin.TWINS[name](rows, f, **options)
        found = rule_from({"name": name, **({"f": f} | options)})(rows)
        assert np.allclose(found, expected, rtol=1e-7, atol=1e-7 * np.abs(expected).max())


def test_golden_monna_averages_the_rows_nearest_to_the_pivot():
    assert MoNNA(f=1)(LINE).item() == pytest.approx(7 / 4)
    assert MoNNA(f=2, trusted=3)(LINE).item() == pytest.approx(7 / 3)  # 4, 2, 1
    assert MoNNA(f=3, trusted=4)(LINE).item() == pytest.approx(52)  # 100, 4
    assert MoNNA(f=4, trusted=2)(LINE).item() == 2.0


def test_monna_breaks_ties_by_the_lower_index_and_keeps_the_pivot():
    rows = line(1, 0, 2, 1, 1)
    assert MoNNA(f=4, trusted=3).weigh(Mixed(rows)).tolist() == [0, 0, 0, 1, 0]
    assert MoNNA(f=1, trusted=0)(rows).item() == pytest.approx(3 / 4)  # 1, 1, 1, then 0 before 2


def test_monna_is_zeno_with_half_the_square():
    rng = np.random.default_rng(1)
    for _ in range(20):
        rows = rng.normal(size=(9, 5))
        assert np.allclose(MoNNA(f=3, trusted=4)(rows), Zeno(f=3, trusted=4, rho=0.5)(rows))


def test_monna_follows_its_pivot_when_rows_before_it_are_dropped():
    rows = torch.cat([line(float("nan"), float("inf")), LINE])
    assert MoNNA(f=4, trusted=5)(rows).item() == MoNNA(f=2, trusted=3)(LINE).item()
    with pytest.raises(TooManyFaults) as caught:
        MoNNA(f=4, trusted=1)(rows)
    assert caught.value.rows == (1,)
    with pytest.raises(InvalidInput, match=r"0\.\.4"):
        MoNNA(f=1, trusted=5)(LINE)


def test_golden_mva_and_smea_on_a_line_drop_the_far_end():
    for rule in (MVA, SMEA):
        assert rule(f=0)(LINE).item() == pytest.approx(21.4)
        assert rule(f=1)(LINE).item() == pytest.approx(7 / 4)
        assert rule(f=2)(LINE).item() == pytest.approx(1.0)


def test_golden_smea_takes_the_round_subset_and_mva_the_short_one():
    # Triangle about 0: variance 3, eigenvalues 3/2, diameter √3. Line 1, 2, 3: variance and eigenvalue 2.
    rows = torch.tensor([[1, 0], [-0.5, HEIGHT], [-0.5, -HEIGHT], [2, 0], [3, 0]], dtype=torch.float64)
    assert torch.allclose(SMEA(f=2)(rows), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(MDA(f=2)(rows), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(MVA(f=2)(rows), torch.tensor([2.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize(
    "cost, slow", [(SubsetVariance, twin.variance), (TopEigenvalue, twin.top_eigenvalue)]
)
def test_no_subset_is_better_than_the_one_found(cost, slow):
    rng = np.random.default_rng(2)
    for trial in range(24):
        n = int(rng.integers(3, 11)) if trial else 12
        f = int(rng.integers(0, (n - 1) // 2 + 1)) if trial else 5
        d = int(rng.choice([1, 2, 3, 30]))
        rows = rng.normal(size=(n, d)) if trial % 3 else rng.integers(0, 4, size=(n, d)).astype(float)
        found = best_subset(cost(sq_dists(rows), n - f), 10_000)
        assert found.proved
        assert len(found.rows) == n - f
        assert slow(rows[found.rows]) == pytest.approx(twin.best_subset(rows, f, slow)[1], abs=1e-9)


@pytest.mark.parametrize(
    "cost, slow", [(SubsetVariance, twin.variance), (TopEigenvalue, twin.top_eigenvalue)]
)
def test_no_subset_between_the_rows_kept_and_those_left_is_below_the_bound(cost, slow):
    rng = np.random.default_rng(13)
    tight = 0
    for _ in range(60):
        n, size = 9, int(rng.integers(5, 8))
        rows = hostile(rng, n, 2, d=int(rng.choice([1, 2, 6])))
        order = rng.permutation(n)
        fixed = int(rng.integers(0, size - 1))
        kept, free = order[:fixed], order[fixed : int(rng.integers(size + 1, n + 1))]
        judge = cost(sq_dists(rows), size)
        fills = [np.append(kept, some) for some in combinations(free, size - fixed)]
        least = min(judge.value(fill.astype(int)) for fill in fills)
        bound, worst, _ = judge.least(kept, free)
        assert bound <= least * (1 + 1e-9) + 1e-14 * n * size * judge.sq_dists.max()
        assert worst in free
        tight += bound > 0.9 * least
        near = np.sort(sq_dists(rows), axis=1)[:, :size].sum(axis=1)
        holding = [
            min(judge.value(np.array(s)) for s in combinations(range(n), size) if i in s) for i in range(n)
        ]
        assert (judge.least_with(near) <= np.array(holding) * (1 + 1e-9)).all()
        whole = judge.value(fills[0].astype(int)) / slow(rows[fills[0]])
        assert whole == pytest.approx(size, rel=1e-6)  # the library's costs are `size` times the paper's
    assert tight > 10


def test_the_search_is_exact_for_thirty_rows_of_which_ten_lie():
    rng = np.random.default_rng(3)
    for d in (1, 5, 50):
        rows = rng.normal(size=(30, d))
        assert best_subset(SubsetVariance(sq_dists(rows), 20), MVA(f=10).budget).proved
        rows[:10] += 20 / d**0.5
        for cost, rule in ((SubsetVariance, MVA(f=10)), (TopEigenvalue, SMEA(f=10))):
            found = best_subset(cost(sq_dists(rows), 20), rule.budget)
            assert found.proved
            assert list(found.rows) == list(range(10, 30))
            assert np.allclose(rule(rows), rows[10:].mean(axis=0))


def test_a_search_cut_short_repeats_itself_and_stays_within_twice_the_least_variance():
    rng = np.random.default_rng(4)
    unproved = 0
    for _ in range(40):
        n, f = 10, int(rng.integers(2, 5))
        rows = hostile(rng, n, f)
        found = best_subset(SubsetVariance(sq_dists(rows), n - f), 1)
        unproved += not found.proved
        assert twin.variance(rows[found.rows]) <= 2 * twin.best_subset(rows, f, twin.variance)[1] * (1 + 1e-9)
        assert np.array_equal(SMEA(f=f, budget=1)(rows), SMEA(f=f, budget=1)(rows))
    assert unproved > 0


def test_smea_of_rows_too_many_to_prove_ends_and_is_no_worse_than_the_honest_rows():
    rows = np.random.default_rng(5).normal(size=(40, 300))
    cost = TopEigenvalue(sq_dists(rows), 25)
    found = best_subset(cost, 200)
    assert not found.proved
    assert cost.value(found.rows) <= min(cost.value(np.arange(25)), cost.value(np.arange(15, 40)))
    assert np.isfinite(SMEA(f=15, budget=200)(rows)).all()


def test_what_is_known_of_many_rows_changes_no_bound_and_no_choice():
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(60, 20))
    rows[:9] += 2
    cost, order = TopEigenvalue(sq_dists(rows), 48), rng.permutation(60)
    _, worst, known = cost.least(order[:3], order[3:])
    kept, free = np.append(order[:3], worst), order[3:][order[3:] != worst]
    for one, other in zip(cost.least(kept, free)[:2], cost.least(kept, free, known)[:2], strict=True):
        assert one == pytest.approx(other, rel=1e-12)
    for _ in range(20):  # the best neighbourhood by factors is that by all eigenvalues
        subsets = [rng.permutation(60)[:48] for _ in range(8)]
        values = [cost.value(each) for each in subsets]
        limit = np.median(values)
        found = [cost.below(each, limit) for each in subsets]
        assert [value if value < limit else None for value in values] == [
            value if value < limit else None for value in found
        ]


@pytest.mark.parametrize("size", [1e15, 1e30])
def test_subset_rules_are_exact_beside_rows_of_every_size(size):
    rng = np.random.default_rng(6)
    for _ in range(12):
        rows = rng.normal(size=(11, 5))
        rows[0], rows[1] = size, -(size**0.5)
        for name in ("mva", "smea"):
            assert np.allclose(rule_from(name, f=4)(rows), twin.TWINS[name](rows[2:], 2), rtol=1e-9)
        chosen = MDA(f=4).weights(Mixed(torch.from_numpy(rows)).geometry).nonzero().flatten().numpy()
        assert twin.diameter(rows[chosen]) == pytest.approx(twin.best_subset(rows[2:], 2, twin.diameter)[1])


def test_golden_caf():
    # Mean 2, squares 4, 4, 4, 4, 64: the last row goes, and what is left has no spread.
    assert CAF(f=1)(line(0, 0, 0, 0, 10)).item() == pytest.approx(0.0)
    # Mean 2, squares 9, 1, 9, 1, 64: weights 55, 63, 55, 63, 0; the next round leaves less than 3.
    assert CAF(f=1)(line(-1, 1, -1, 1, 10)).item() == pytest.approx(16 / 236)
    assert CAF(f=0)(LINE).item() == pytest.approx(21.4)


def test_caf_does_not_take_the_few_rows_that_end_its_loop():
    rows = line(-3, -2, -1, 0, 1, 2, 3, 2.5, 2.5)
    assert CAF(f=2)(rows).item() < 1.0


def test_caf_asks_for_at_most_n_eigenvectors(monkeypatch):
    calls = []
    solve = caf._top
    monkeypatch.setattr(caf, "_top", lambda gram, c: calls.append(1) or solve(gram, c))
    rng = np.random.default_rng(7)
    for size in (1e3, 1e6, 1e12, 1e30, 1e100):
        for signs in ((1, 1, 1), (1, -1, 1)):
            rows = 1 + 0.3 * rng.normal(size=(11, 50))
            rows[8:] = size * np.array(signs)[:, None]
            calls.clear()
            out = CAF(f=3)(rows)
            assert 1 <= len(calls) <= 11
            assert np.linalg.norm(out - rows[:8].mean(axis=0)) < 0.3 * np.linalg.norm(rows[:8].mean(axis=0))


def test_golden_median_of_means():
    assert MedianOfMeans(f=0)(LINE).item() == pytest.approx(21.4)
    assert MedianOfMeans(f=1)(LINE[:4]).item() == pytest.approx(1.5)  # four groups of one
    assert MedianOfMeans(f=2, groups=5)(LINE).item() == 2.0


def test_median_of_means_equals_its_twin_and_draws_anew_each_round():
    rows = np.random.default_rng(8).normal(size=(11, 6))
    for t in range(5):
        order = torch.randperm(11, generator=stream(3, "median_of_means", t)).tolist()
        for f, groups in ((1, 4), (2, 7), (3, 10), (5, 11)):
            found = MedianOfMeans(f=f, seed=3).at(t)(rows)
            assert np.allclose(found, twin.median_of_means(rows, order, groups))
    rule = MedianOfMeans(f=2)
    assert not np.array_equal(rule.at(1)(rows), rule.at(2)(rows))


def test_median_of_means_needs_more_than_twice_as_many_groups_as_faults():
    for groups in (4, 0, 12):
        with pytest.raises(InvalidInput, match="2 f < groups <= n"):
            MedianOfMeans(f=2, groups=groups)(torch.randn(11, 3))
    rows = torch.ones(11, 3)
    rows[[2, 7]] = 1e30
    assert torch.equal(MedianOfMeans(f=2, groups=5)(rows), torch.ones(3))


def test_golden_centered_clipping():
    assert CenteredClipping(start="zero", tau=1.0)(LINE).item() == pytest.approx(4 / 5)
    assert CenteredClipping(start="zero", tau=2.0)(LINE).item() == pytest.approx(7 / 5)
    # From 7/5: pulls -7/5, -2/5, 3/5, 2, 2.
    assert CenteredClipping(start="zero", tau=2.0, iterations=2)(LINE).item() == pytest.approx(
        7 / 5 + 14 / 25
    )
    # Bulk 0, 1, 2; median distance from 1 is 1; pulls -1, 0, 1, 1, 1.
    assert CenteredClipping()(LINE).item() == pytest.approx(7 / 5)


def test_centered_clipping_equals_its_twin():
    rng = np.random.default_rng(9)
    for _ in range(30):
        n, f = 9, 3
        rows, tau = hostile(rng, n, f), rng.choice([None, 0.1, 2.0, 1e3])
        for start, z in (("zero", np.zeros(4)), ("bulk", twin.bulk(rows))):
            expected = twin.centered_clipping(rows, z, tau, iterations=3)
            found = CenteredClipping(f=f, start=start, tau=tau, iterations=3)(rows)
            assert np.allclose(found, expected, rtol=1e-6, atol=1e-6 * (1 + np.abs(expected).max()))


def test_centered_clipping_remembers_its_last_aggregate_in_a_run():
    follow = CenteredClipping(tau=1.0).as_filter()
    state = follow.init(torch.zeros(1, dtype=torch.float64), 5)
    first, state = follow.step(state, LINE, at(1))
    assert first.item() == pytest.approx(7 / 5)
    # From 7/5: pulls -1, -2/5, 3/5, 1, 1.
    assert follow.preview(state, LINE, at(2)).item() == pytest.approx(7 / 5 + 6 / 25)
    second, after = follow.step(state, LINE, at(2))
    assert second.item() == pytest.approx(7 / 5 + 6 / 25)
    assert (state.rounds, after.rounds) == (1, 2)
    assert isinstance(after, Last)


def test_centered_clipping_from_zero_remembers_too():
    follow = CenteredClipping(tau=2.0, start="zero").as_filter()
    state = follow.init(torch.zeros(1, dtype=torch.float64), 5)
    for expected in (7 / 5, 7 / 5 + 14 / 25):
        out, state = follow.step(state, LINE, at(1))
        assert out.item() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_one_round_of_centered_clipping_can_move_is_bounded_by_tau(dtype):
    follow = CenteredClipping(f=2, tau=0.5, iterations=3).as_filter()
    rows = 1 + 0.1 * torch.randn(9, 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    last, state = follow.step(follow.init(rows[0], 9), rows, at(1))
    for value in (1e6, -1e30, torch.finfo(dtype).max):
        bad = rows.clone()
        bad[:2] = value
        out, state = follow.step(state, bad, at(2))
        assert (out - last).norm() <= 3 * 0.5 * (1 + 1e-5)
        assert out.dtype == dtype
        last = out
    assert (last - 1).norm() < 1


def test_a_bad_round_leaves_the_centre_of_centered_clipping_alone():
    follow = CenteredClipping(f=2).as_filter()
    state = follow.init(torch.zeros(1, dtype=torch.float64), 5)
    _, state = follow.step(state, LINE, at(1))
    some = LINE.clone()
    some[:2] = float("nan")
    assert follow.preview(state, some, at(2)).isfinite().all()
    with pytest.raises(TooManyFaults):
        follow.step(state, torch.full((5, 1), float("nan"), dtype=torch.float64), at(2))
    assert state.centre.item() == pytest.approx(7 / 5)


def test_a_chain_that_ends_in_centered_clipping_remembers_behind_its_stages():
    rng = np.random.default_rng(10)
    chain = NNM(f=2) >> CenteredClipping(f=2, tau=0.3)
    follow = chain.as_filter()
    assert isinstance(follow, Following)
    state = follow.init(torch.zeros(4, dtype=torch.float64), 9)
    z = None
    for t in range(1, 4):
        rows = torch.from_numpy(rng.normal(size=(9, 4)))
        mixed = NNM(f=2)(rows).numpy()
        z = twin.centered_clipping(mixed, twin.bulk(mixed) if z is None else z, 0.3)
        out, state = follow.step(state, rows, at(t))
        assert np.allclose(out, z)


def test_rules_without_memory_become_pure_filters_and_methods_ask_the_rule():
    for rule in (Mean(), NNM(f=1) >> Median(), CenteredClipping(stateful=False)):
        assert rule.as_filter() == StatelessFilter(rule)
    for method in (ByzNSGDM(), RobustSGDM(), RobustGD()):
        assert method.build(CenteredClipping(), 0.1, 10).filter == Following(CenteredClipping())
        assert method.build(Mean(), 0.1, 10).filter == StatelessFilter(Mean())


def test_random_projection_decides_on_short_rows_and_aggregates_the_long_ones():
    rng = np.random.default_rng(11)
    rows = torch.from_numpy(rng.normal(size=(12, 20_000))).float()
    rows[:3] += 0.2
    stage = RandomProjection(k=1024)
    assert torch.equal(stage(rows), rows)
    short = stage.projected(rows)
    assert short.shape == (12, 1024)
    assert torch.equal(
        (stage >> Krum(f=3))(rows), rows[int(Krum(f=3).weights(Mixed(short).geometry).argmax())]
    )
    mixing = NNM(f=3).mixing(Mixed(short).geometry).float()
    assert torch.allclose((stage >> NNM(f=3) >> Median(f=3))(rows), Median()(mixing @ rows), atol=1e-5)
    assert torch.equal((stage >> TrimmedMean(f=3))(rows), TrimmedMean(f=3)(rows))


def test_random_projection_keeps_squared_distances_as_well_as_it_says():
    rng = np.random.default_rng(12)
    for rows in (
        rng.normal(size=(20, 30_000)),
        rng.normal(size=(20, 30_000)) * (np.arange(30_000) % 512 < 8),
    ):
        rows = torch.from_numpy(rows + 1e4)
        short = RandomProjection(k=512, seed=5).projected(rows)
        ratio = (torch.pdist(short) / torch.pdist(rows)).square()
        assert abs(float(ratio.mean()) - 1) < 0.05
        assert float(ratio.std()) < 1.5 * (2 / 512) ** 0.5


def test_random_projection_has_no_favourite_direction():
    # Without signs a common shift of all coordinates would grow by d/k.
    rows = torch.linspace(0, 1, 9, dtype=torch.float64).unsqueeze(1).expand(9, 30_000)
    short = RandomProjection(k=512).projected(rows)
    assert abs(float((short[8] - short[0]).square().sum()) / 30_000 - 1) < 0.25


def test_random_projection_draws_anew_each_round_and_does_nothing_to_few_columns():
    rows = torch.randn(6, 300, generator=torch.Generator().manual_seed(0))
    stage = RandomProjection(k=16)
    assert not torch.equal(stage.at(1).projected(rows), stage.at(2).projected(rows))
    assert torch.equal(stage.at(1).projected(rows), stage.at(1).projected(rows))
    assert not torch.equal(stage.projected(rows), RandomProjection(k=16, seed=1).projected(rows))
    few = Mixed(rows[:, :16])
    assert stage.apply(few) is few
    with pytest.raises(InvalidInput, match="k"):
        RandomProjection(k=0)


def test_random_projection_may_stand_behind_a_stage_that_shortens_rows():
    rows = torch.randn(9, 4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows[0] *= 50
    stage = RandomProjection(k=256)
    clipped = Clipping(tau=30.0)(rows)
    geometry = stage.apply(
        Mixed(rows).then(Clipping(tau=30.0).mixing(Mixed(rows).geometry), affine=False)
    ).geometry
    assert torch.allclose(geometry.sq_dists, Mixed(stage.projected(clipped)).geometry.sq_dists, rtol=1e-9)
    assert torch.isfinite((Clipping(tau=30.0) >> stage >> Krum(f=3))(rows)).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: CenteredClipping(tau=0.0),
        lambda: CenteredClipping(iterations=0),
        lambda: MVA(f=1, budget=0),
        lambda: SMEA(f=1, budget=0),
        lambda: MoNNA(f=1, trusted=-1),
        lambda: rule_from("centered_clipping(start='mean')"),
    ],
)
def test_parameters_out_of_range_are_named_errors(call):
    with pytest.raises(InvalidInput):
        call()
