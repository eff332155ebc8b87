"""Detection-style rules: golden values by hand, their papers' twins, hostile rows, and the trusted row."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
import torch

from byzopt.aggregators import (
    ARC,
    FLAME,
    GAS,
    NNM,
    RULES,
    Bucketing,
    Clipping,
    DnC,
    FLTrust,
    FoolsGold,
    MoNNA,
    NormClipping,
    SignGuard,
    SignMajority,
    Zeno,
    rule_from,
)
from byzopt.aggregators.numerics.clusters import largest_mode, linked_majority
from byzopt.errors import InvalidInput, TooManyFaults
from tests.reference.detection import TWINS

NAMES = list(TWINS)
TRUSTING = ["fltrust", "zeno"]
CLAIM = [
    "dnc",
    "signguard",
    "flame",
    "fltrust",
    "zeno",
    "sign_majority",
]  # near the honest mean, not only bounded
N, F, D = 11, 3, 50


def build(name, f=F, trusted=0):
    return RULES.build(name, f=f, trusted=trusted)


def honest_rows(n=N - F, d=D, seed=0):
    return 1 + 0.3 * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def under(bad, honest, dtype=torch.float32):
    """Rows with `bad` `[k, d]` at the end, and the honest mean."""
    return torch.cat([honest, bad]).to(dtype), honest.mean(dim=0)


def error(out, mean):
    return float((out.double() - mean).norm() / mean.norm())


def near(rule, rows, expected):
    assert rule(torch.tensor(rows, dtype=torch.float64)).tolist() == pytest.approx(
        expected, rel=1e-12, abs=1e-15
    )


def test_dnc_by_hand():
    near(DnC(f=1), [[0], [1], [2], [30]], [1])
    near(DnC(f=1, filtering=2), [[0], [1], [2], [30]], [1.5])
    near(DnC(f=1), [[-1], [0], [1]], [-0.5])  # a tie: the higher index goes
    near(DnC(f=0), [[0], [1], [5]], [2])


def test_signguard_by_hand():
    rows = [[1, 1], [1, 1], [1, 1], [0.5, 0.5], [2, 2], [-1, -1], [9, 9]]
    near(SignGuard(), rows, [0.9, 0.9])  # 9 is too long, -1 of another sign, 2 cut to 1
    near(SignGuard(high=10), rows, [5.5 / 6, 5.5 / 6])


def test_foolsgold_by_hand():
    near(FoolsGold(), [[1, 0], [0, 1], [0, 1]], [1, 0])
    third = [0, 0.9375, sqrt(1 - 0.9375**2)]
    a = log(0.25 / 0.27) + 0.5  # likeness 0.6, 0.75; pardoned 0.48, 0.75; apart 0.52, 0.25
    expected = [(1 + 0.6 * a), a * (0.8 + 0.9375), a * third[2]]
    near(FoolsGold(), [[1, 0, 0], [0.6, 0.8, 0], third], [x / (1 + 2 * a) for x in expected])


def test_fltrust_by_hand():
    rows = [[2, 0], [3, 4], [0, -5], [-1, 0], [10, 0]]
    near(FLTrust(), rows, [1.7, 0.6])
    near(FLTrust(), [[2, 0], [-1, 0], [0, 3]], [2, 0])  # nobody agrees: the trusted row
    near(FLTrust(), [[0, 0], [-1, 0], [0, 3]], [0, 0])


def test_flame_by_hand():
    near(FLAME(), [[2, 0], [4, 0], [3, 0], [0, 1], [-5, 0]], [8 / 3, 0])


def test_zeno_by_hand():
    rows = [[1, 0], [2, 0], [-1, 0], [1, 1], [0, 0]]
    near(Zeno(f=2), rows, [4 / 3, 1 / 3])  # scores 0.5, 0, -1.5, 0, 0
    near(Zeno(f=2, rho=0.1), rows, [4 / 3, 1 / 3])  # 0.9, 1.6, -1.1, 0.8, 0
    near(Zeno(f=3, rho=0.1), rows, [1.5, 0])
    near(Zeno(f=4, trusted=2), rows, [-1, 0])


def test_norm_clipping_by_hand():
    rows = [[3, 4], [0, 1], [1, 0]]
    near(NormClipping(), rows, [1.6 / 3, 1.8 / 3])
    near(NormClipping(bound=2.5), rows, [2.5 / 3, 1])


def test_sign_majority_by_hand():
    near(SignMajority(), [[1, -2, 0, 3], [5, -1, 1, -1], [-1, -1, -1, 0]], [1, -1, 0, 0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(8))
def test_equal_to_the_papers_twin(name, seed):
    honest = honest_rows(8, 9, seed)
    noise = torch.randn(3, 9, generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)
    for bad in (noise, -10 * honest[:3], 1 + noise):
        rows = torch.cat([honest, bad])
        twin = TWINS[name]
        expected = twin(list(rows.numpy()), **({"f": F} if name in ("dnc", "zeno") else {}))
        assert np.allclose(build(name)(rows).numpy(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", CLAIM)
@pytest.mark.parametrize("seed", range(5))
def test_flips_noise_and_nan_leave_the_answer_near_the_honest_mean(name, seed):
    honest = honest_rows(seed=seed)
    noise = 1e6 * torch.randn(F, D, generator=torch.Generator().manual_seed(seed + 50), dtype=torch.float64)
    for bad in (
        -10 * honest.mean(dim=0).expand(F, D),
        -10 * honest[:F],
        noise,
        torch.full((F, D), float("nan")),
    ):
        rows, mean = under(bad, honest)
        assert error(build(name)(rows), mean) < 0.3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", 1e3, 1e6, 1e8, 1e15, 1e30, 3e38])
def test_hostile_value_in_every_coordinate_of_three_rows(name, value):
    rows, mean = under(torch.full((F, D), float(value)), honest_rows())
    for placed in (rows, rows[[0, 8, 1, 9, 2, 10, *range(3, 8)]]):
        assert error(build(name)(placed), mean) < 0.3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [-1e30, -1e6, -10.0, 10.0, 1e6, 1e30])
def test_one_liar_moves_the_answer_by_a_bounded_amount(name, value):
    rows, mean = under(torch.full((1, D), value), honest_rows(N - 1))
    bound = {"foolsgold": 4.5, "norm_clipping": 0.3}.get(name, 0.3)  # FoolsGold: 3 median norms the other way
    assert error(build(name)(rows), mean) < bound


@pytest.mark.parametrize("name", CLAIM)
def test_liars_of_different_sizes_do_not_hide_one_another(name):
    bad = torch.zeros(F, D)
    for i, value in enumerate((1e30, -1e15, 1e6)):
        bad[i, i] = value
    rows, mean = under(bad, honest_rows())
    assert error(build(name)(rows), mean) < 0.3


def test_norm_clipping_keeps_f_liars_within_their_share():
    honest = honest_rows()
    rows, mean = under(-1e30 * torch.ones(F, D), honest)
    assert error(NormClipping()(rows), mean) < 2 * F / N + 0.1


@pytest.mark.parametrize("name", NAMES)
def test_a_minority_of_zero_rows_does_not_stop_the_rest(name):
    honest = honest_rows(8)
    out = build(name)(torch.cat([honest, torch.zeros(3, D)]))
    assert float(out @ honest.mean(dim=0)) > 0.5 * float(honest.mean(dim=0) @ honest.mean(dim=0))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sign_majority"])
def test_a_majority_of_zero_rows_gives_zero(name):
    out = build(name)(torch.cat([torch.zeros(8, D), honest_rows(3).float()]))
    assert torch.equal(out, torch.zeros(D))


@pytest.mark.parametrize("name", TRUSTING)
def test_trusted_index_follows_its_row_when_others_are_dropped(name):
    rows = honest_rows(N)
    bad = rows.clone()
    bad[0], bad[3, 7] = float("nan"), float("inf")
    keep = [i for i in range(N) if i not in (0, 3)]
    assert torch.equal(build(name, trusted=5)(bad), build(name, f=F - 2, trusted=3)(rows[keep]))
    chain = ARC(f=F) >> build(name, trusted=5)
    assert torch.equal(chain(bad), (ARC(f=F - 2) >> build(name, f=F - 2, trusted=3))(rows[keep]))


@pytest.mark.parametrize("name", TRUSTING)
def test_non_finite_trusted_row_is_a_named_error(name):
    rows = honest_rows(N)
    rows[4, 0] = float("inf")
    with pytest.raises(TooManyFaults, match="worker 4") as caught:
        build(name, trusted=4)(rows)
    assert caught.value.rows == (4,)
    assert torch.isfinite(build(name, trusted=3)(rows)).all()


@pytest.mark.parametrize("name", TRUSTING)
def test_trusted_must_be_the_index_of_a_row(name):
    for bad in (-1, 1.5, True):
        with pytest.raises(InvalidInput, match="trusted"):
            RULES[name](f=1, trusted=bad)
    with pytest.raises(InvalidInput, match="trusted"):
        build(name, trusted=N)(honest_rows(N))
    with pytest.raises(InvalidInput, match="f < n"):
        build(name, f=N)(honest_rows(N))


@pytest.mark.parametrize("name", TRUSTING)
@pytest.mark.parametrize("spelled", ["{}", "fail_closed(rule='{}')", "rlr(rule='{}', threshold=3)"])
def test_a_trusted_row_is_not_mixed_with_others_before_it_is_looked_at(name, spelled):
    for stages in ("nnm", "bucketing", "clipping >> nnm", "nnm >> arc"):
        with pytest.raises(InvalidInput, match="Found a stage that mixes rows"):
            rule_from(f"{stages} >> {spelled.format(name)}", f=1)
    for stages in ("clipping", "arc", "random_projection", "arc >> clipping"):
        assert torch.isfinite(rule_from(f"{stages} >> {spelled.format(name)}", f=1)(honest_rows(N))).all()


def test_a_stage_of_another_package_mixes_unless_it_says_that_it_does_not():
    class Own(Clipping):
        def mixing(self, geometry):
            return torch.eye(geometry.m, dtype=torch.float64).flip(0)

    class Apart(Own):
        mixes = False

    assert not Clipping.mixes
    assert Own.mixes
    with pytest.raises(InvalidInput, match="mixes rows"):
        Own() >> FLTrust()
    with pytest.raises(InvalidInput, match="in its place"):  # it said so, and it is not true
        (Apart() >> FLTrust())(honest_rows(N))


@pytest.mark.parametrize("name", TRUSTING)
def test_gas_averages_no_trusted_row(name):
    for rule in (name, f"arc >> {name}", f"fail_closed(rule='{name}')"):
        with pytest.raises(InvalidInput, match="trust no row"):
            GAS(rule_from(rule, f=2))


def test_a_pivot_may_be_mixed_as_other_honest_rows_are():
    honest = honest_rows(8)
    for bad in (honest.mean(dim=0) + 3.0, honest.mean(dim=0) - 100.0):
        rows = torch.cat([honest, bad.expand(3, -1)])
        out, mean = (NNM(f=3) >> MoNNA(f=3))(rows), honest.mean(dim=0)
        bound = (NNM(f=3) >> MoNNA(f=3)).kappa_squared(11)
        spread = (honest - mean).square().sum(dim=1).mean()
        assert (out - mean).square().sum() <= bound * spread
    assert GAS(MoNNA(f=3), groups=4)(rows).isfinite().all()
    with pytest.raises(InvalidInput, match="in its place"):
        (Bucketing() >> MoNNA(f=1))(honest_rows(N))


@pytest.mark.parametrize("name", TRUSTING)
def test_a_trusted_row_withstands_a_faulty_majority(name):
    honest = honest_rows(3)
    for bad in (-honest[:1].expand(8, D), torch.full((8, D), -1e30)):
        rows, mean = under(bad, honest)
        assert error(build(name, f=8)(rows), mean) < 0.3


def test_fltrust_is_never_longer_than_the_trusted_row():
    for trusted, others in ((1e12, 1e-30), (1e-30, 1e12), (1e-38, 1e38)):
        rows = honest_rows(N).float() * others
        rows[0] = trusted
        out = FLTrust()(rows).double()
        assert 0.9 < float(out.norm() / (trusted * sqrt(D))) < 1 + 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_answers_longer_than_any_number_are_cut_to_the_largest(dtype):
    largest = torch.finfo(dtype).max
    rows = torch.zeros(2, 9, dtype=dtype)
    rows[0], rows[1, 0] = 0.9 * largest, 0.5 * largest  # row 1, at row 0's length, is 2.7 times the largest
    out = FLTrust()(rows)
    assert float(out[0]) == pytest.approx(largest, rel=1e-3)
    assert torch.equal(out[1:], rows[1, 1:])
    assert torch.isfinite(FLAME(noise=5.0)(rows[:1])).all()


def test_dnc_survives_more_huge_rows_than_it_drops():
    huge = [[1e200, 0], [-1.7e308, -1.7e308], [1.7e308, 1], [1e6, 0]]
    rows = torch.cat([1e-12 * honest_rows(6, 2), torch.tensor(huge, dtype=torch.float64)])
    for order in (range(10), reversed(range(10))):
        assert torch.isfinite(DnC(f=1)(rows[list(order)])).all()


def test_dnc_draws_depend_on_the_round_and_the_seed_alone():
    rows = torch.cat([honest_rows(10, 40), honest_rows(1, 40) - 0.5])
    drawn = DnC(f=3, coordinates=3, seed=1)
    answers = [drawn.at(t)(rows) for t in range(6)]
    assert torch.equal(drawn.at(2)(rows), answers[2])
    assert any(not torch.equal(answers[0], other) for other in answers[1:])
    assert torch.equal(DnC(f=3, coordinates=40, iterations=4)(rows), DnC(f=3)(rows))


def test_dnc_without_a_row_that_survives_every_draw_keeps_those_that_survive_most():
    rows = honest_rows(5, 30)
    out = DnC(f=2, coordinates=1, iterations=40)(rows)
    mixes = torch.linalg.lstsq(rows.T, out.unsqueeze(1)).solution.squeeze()
    assert torch.allclose(mixes.sum(), torch.ones((), dtype=torch.float64))
    assert (mixes > -1e-9).all()


def test_dnc_must_leave_a_row():
    with pytest.raises(InvalidInput, match="filtering"):
        DnC(f=4, filtering=3)(honest_rows(N))


def test_flame_noise_has_the_stated_size_and_is_drawn_by_name():
    rows = honest_rows(N, 4000)
    quiet, loud = FLAME()(rows), FLAME(noise=0.01)
    size = rows.norm(dim=1).median()
    assert float((loud(rows) - quiet).std() / size) == pytest.approx(0.01, rel=0.05)
    assert torch.equal(loud(rows), loud(rows))
    assert not torch.equal(loud.at(1)(rows), loud(rows))


def test_sign_majority_has_no_unit_at_any_scale():
    signs = torch.tensor([[1.0, -1.0, 0.0]] * 3, dtype=torch.float64)
    for scale in (5e-324, 1e-310, 1e-200, 1.0, 1e200, 1.7e308):
        assert torch.equal(SignMajority()(signs * scale), signs[0])


def test_absolute_bound_is_in_the_rows_own_units():
    for scale in (1e-300, 1e-150, 1.0, 1e150, 1e300):
        out = NormClipping(bound=scale)(torch.tensor([[3.0], [-2.0], [0.5]], dtype=torch.float64) * scale)
        assert float(out) == pytest.approx(0.5 / 3 * scale, rel=1e-12)


def test_linked_majority_takes_ties_together():
    line = torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0, 20.0])
    dists = (line.unsqueeze(1) - line).abs()
    assert linked_majority(dists).tolist() == [True] * 4 + [False] * 2
    assert linked_majority(torch.zeros(1, 1)).tolist() == [True]


def test_largest_mode_survives_equal_points():
    points = torch.tensor([[0.1, 0.2, 0.7]] * 7 + [[0.3, 0.3, 0.4]], dtype=torch.float64)
    assert largest_mode(points).tolist() == [True] * 7 + [False]
    assert largest_mode(points[:1]).tolist() == [True]


@pytest.mark.parametrize("name", NAMES)
def test_no_kappa_is_claimed(name):
    rule = build(name)
    assert rule.kappa_linear(N) is None
    assert rule.kappa_squared(N) is None


def test_every_detection_rule_is_reached_by_name():
    assert {type(rule_from(name, f=F)).__name__ for name in NAMES} == {
        "DnC", "SignGuard", "FoolsGold", "FLTrust", "FLAME", "Zeno", "NormClipping", "SignMajority",
    }  # fmt: skip
