"""What every registered rule and every chain promises. A new rule is tested by being registered."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from byzopt.aggregators import (
    NNM,
    PRE_AGGREGATORS,
    RULES,
    Bucketing,
    Chain,
    CoordinateRule,
    rule_data,
    rule_from,
)
from byzopt.errors import InvalidInput, TooManyFaults
from tests.spellings import DTYPES, D, F, N, build, every, some_rows, ties, where


@every
def test_dtype_shape_and_inputs_are_kept(spelling):
    for dtype in DTYPES:
        rows = some_rows(dtype=dtype)
        before = rows.clone()
        out = build(spelling)(rows)
        assert out.dtype == dtype
        assert out.shape == (D,)
        assert torch.isfinite(out).all()
        assert torch.equal(rows, before)


@every
def test_answer_is_no_view_of_the_rows(spelling):
    rows = some_rows()
    out = build(spelling)(rows)
    before = out.clone()
    rows.zero_()
    assert torch.equal(out, before)


@every
def test_one_column_is_kept_too(spelling):
    rows = some_rows()[:, :1].contiguous()
    before = rows.clone()
    build(spelling)(rows)
    assert torch.equal(rows, before)


@every
def test_rows_are_freed_with_the_call_and_not_at_the_next_collection(spelling):
    array = some_rows().numpy().copy()
    held = weakref.ref(array)  # a tensor's memory keeps the array that it was made of
    gc.disable()
    try:
        build(spelling)(torch.from_numpy(array))
        del array
        assert held() is None
    finally:
        gc.enable()


@every
def test_arrays_lists_and_strided_rows_give_the_same_answer(spelling):
    rule, rows = build(spelling), some_rows()
    expected = rule(rows)
    array = rule(rows.numpy())
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array, expected.numpy())
    assert torch.equal(rule(list(rows)), expected)
    frozen = rows.numpy().copy()
    frozen.flags.writeable = False
    assert np.array_equal(rule(frozen), expected.numpy())


@where(lambda rule: not ties(rule))
def test_strides_do_not_matter(spelling):
    rule, rows = build(spelling), some_rows()
    expected = rule(rows)
    wide = torch.zeros(N, 2 * D, dtype=torch.float64)
    wide[:, ::2] = rows
    assert torch.allclose(rule(wide[:, ::2]), expected, rtol=1e-12, atol=1e-13)
    assert torch.allclose(rule(rows.T.contiguous().T), expected, rtol=1e-12, atol=1e-13)
    assert np.allclose(rule(rows.numpy()[:, ::-1]), expected.numpy()[::-1], rtol=1e-9, atol=1e-12)


@every
def test_bad_rows_are_named_errors(spelling):
    rule = build(spelling)
    for bad in (
        torch.zeros(3),
        torch.zeros(2, 3, 4),
        torch.zeros(0, 3),
        torch.zeros(3, 0),
        torch.zeros(N, D, dtype=torch.int64),
        torch.zeros(N, D, dtype=torch.complex64),
        [],
        [torch.zeros(3), torch.zeros(4)],
        [[1.0], [1.0, 2.0]],
        [torch.zeros(3), torch.zeros(3, dtype=torch.float64)],
        None,
        3.0,
        np.array([["a"]]),
    ):
        with pytest.raises(InvalidInput):
            rule(bad)


# The trusted need f < n only.
@where(lambda rule: rule.tolerating(1).tolerance(5) == 1 and not rule.trusts)
def test_too_few_rows_are_a_named_error(spelling):
    with pytest.raises(InvalidInput):
        build(spelling, f=1)(some_rows(n=2))
    with pytest.raises(InvalidInput):
        build(spelling, f=5)(some_rows(n=10))


RECIPES = {name: room[name] for room in (RULES, PRE_AGGREGATORS) for name in room}


@pytest.mark.parametrize("name", [name for name, cls in RECIPES.items() if "f" in cls.__dataclass_fields__])
def test_f_must_be_a_whole_number(name):
    cls = RECIPES[name]
    for bad in (-1, 1.5, True):
        with pytest.raises(InvalidInput):
            cls(f=bad)
    assert cls(f=np.int64(1)).tolerance(N) == 1


@every
def test_non_finite_rows_are_dropped_and_counted(spelling):
    rule, rows = build(spelling), some_rows()
    lost = [i for i in (1, 4, 7, 10) if i not in rule.trusts][: min(2, rule.tolerance(N))]
    k, bad = len(lost), rows.clone()
    for i, row in enumerate(lost):
        bad[row, i] = (float("nan"), float("inf"))[i]
    keep = [i for i in range(N) if i not in lost]
    assert torch.equal(rule(bad), rule.lowered(k)(rows[keep]))


@every
def test_too_many_non_finite_rows_are_named(spelling):
    rule, rows = build(spelling), some_rows()
    count = rule.tolerance(N) + 1
    rows[1 : 1 + count, 2] = float("nan")
    with pytest.raises(TooManyFaults) as caught:
        rule(rows)
    assert caught.value.rows == tuple(range(1, 1 + count))
    assert str(list(range(1, 1 + count))) in str(caught.value)


@every
def test_all_rows_non_finite_is_a_named_error(spelling):
    with pytest.raises(TooManyFaults):
        build(spelling)(torch.full((N, D), float("nan")))


@every
def test_huge_finite_rows_give_a_finite_answer_near_the_honest_ones(spelling):
    rule = build(spelling)
    for dtype, values in ((torch.float32, (1e6, 1e15, 1e30, 3e38)), (torch.float64, (1e30, 1e200, 1.7e308))):
        for value in values:
            for at, signs in ((slice(0, F), (1, -1)), (slice(7, 7 + F), (1, 1))):
                rows = 1 + 0.3 * some_rows(dtype=dtype)
                honest_rows = rows[[i for i in range(N) if i not in range(N)[at]]]
                honest = honest_rows.mean(dim=0)
                rows[at] = value * torch.tensor(signs, dtype=dtype).unsqueeze(1)
                out = rule(rows)
                assert torch.isfinite(out).all(), (dtype, value)
                if min(rule.tolerance(N), rule.breakdown(N)) >= F and not rule.trusts:
                    near = 0.6 * honest.norm() + thinning(rule, honest_rows)
                    assert (out - honest).norm() < near, (dtype, value)


def thinning(rule, rows):
    """How far the answer to honest `rows` is from their mean, for rules that answer with some columns 0."""
    if rule.scale_equivariant or not rule.columnwise or isinstance(rule.last, CoordinateRule):
        return 0.0
    return (rule.lowered(F)(rows) - rows.mean(dim=0)).norm()


@where(lambda rule: rule.scale_equivariant and not ties(rule))
def test_all_rows_huge_or_tiny_keep_their_size(spelling):
    extremes = {torch.float32: (1e-30, 1e-38, 1e30, 1e38), torch.float64: (1e-300, 1e-200, 1e200, 1e307)}
    for dtype, sizes in extremes.items():
        expected = build(spelling)(1 + 0.1 * some_rows())
        for size in sizes:
            rows = ((1 + 0.1 * some_rows()) * size).to(dtype)
            out = build(spelling)(rows).double() / size
            assert torch.allclose(out, expected, rtol=1e-4), (dtype, size)


@where(lambda rule: rule.scale_equivariant)
def test_equal_rows_give_that_row(spelling):
    row = some_rows(n=1)
    for dtype in DTYPES:
        rows = row.expand(N, D).to(dtype)
        out = build(spelling)(rows)
        assert torch.allclose(out.double(), rows[0].double(), rtol=4 * torch.finfo(dtype).eps)
    assert torch.equal(build(spelling)(torch.zeros(N, D)), torch.zeros(D))


@every
def test_denormal_rows_are_finite(spelling):
    out = build(spelling)(torch.full((N, D), 1e-45))
    assert torch.isfinite(out).all()


@every
def test_one_coordinate_works_at_every_legal_size(spelling):
    for f in (0, 1, 2):
        rule = build(spelling, f=f)
        for n in range(1, 17):
            try:
                rule.check(n)
            except InvalidInput:
                continue
            assert torch.isfinite(rule(some_rows(n=n, d=1))).all()


@every
def test_runs_repeat_to_the_last_bit(spelling):
    rows = some_rows(3)
    torch.manual_seed(0)
    first = build(spelling)(rows)
    torch.manual_seed(1)
    assert torch.equal(build(spelling)(rows), first)


def moves_nothing(spelling, rows, f, seed):
    """Asserts that `rows` in another order give the same answer, if the rule takes so few.

    Rounding alone differs: sums over workers are taken in another order. The geometric median stops at a gap,
    where its gradient times its distance from the optimum is below 1e-6 of the sum of distances.
    """
    rule = build(spelling, f)
    try:
        rule.check(len(rows))
    except InvalidInput:
        return
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    tolerance = 1e-6 if spelling.endswith("geometric_median") else 1e-9
    assert torch.allclose(rule(rows[order]), rule(rows), rtol=tolerance, atol=tolerance / 100), seed


@where(lambda rule: not rule.positional)
def test_order_of_workers_does_not_matter(spelling):
    for n, f, d in ((3, 1, 2), (4, 1, 3), (5, 2, 2), (7, 1, 1), (7, 2, 1), (9, 2, 3), (11, 3, 2), (N, F, D)):
        for seed in range(2):
            moves_nothing(spelling, some_rows(1000 * n + seed, n, d), f, seed)


@where(lambda rule: rule.ties != "first" and not rule.positional)
def test_order_of_workers_does_not_matter_where_rows_tie(spelling):
    """Most distances between points of a small lattice are equal, here but for rounding."""
    for n, f, d in ((4, 1, 1), (6, 1, 2), (9, 2, 2), (12, 2, 3)):
        for seed in range(3):
            drawn = torch.Generator().manual_seed(100 * n + seed)
            rows = torch.randint(-1, 2, (n, d), generator=drawn).double() + torch.tensor([0.1, 1e-3, 7.0])[:d]
            moves_nothing(spelling, rows, f, seed)


@where(lambda rule: rule.scale_equivariant and not ties(rule))
def test_scale_equivariant(spelling):
    rows, rule = some_rows(6), build(spelling)
    expected = rule(rows)
    for scale in (1e-12, 1e-6, 1e-3, 1e3, 1e6, 1e12):
        assert torch.allclose(rule(rows * scale) / scale, expected, rtol=1e-8, atol=1e-9), scale
        single = (rows * scale).float()
        assert torch.allclose(rule(single).double() / scale, expected, rtol=1e-4, atol=1e-4), scale


@where(lambda rule: rule.translation_equivariant and not ties(rule))
def test_translation_equivariant_at_ten_thousand_spreads(spelling):
    rows, rule = some_rows(7), build(spelling)
    offset = 1e4 * some_rows(8, n=1)
    assert torch.allclose(rule(rows + offset) - offset, rule(rows), rtol=0, atol=1e-7)
    single = (rows + offset).float()
    exact = rule(single.double())
    assert torch.allclose(rule(single).double(), exact, rtol=0, atol=1e-2)


@every
def test_a_rule_can_be_written_down_and_read_back(spelling):
    rule = build(spelling)
    assert rule_from(rule_data(rule)) == rule


@pytest.mark.parametrize("name", list(PRE_AGGREGATORS))
def test_a_lone_pre_aggregator_keeps_dtype_and_inputs_and_drops_bad_rows(name):
    stage = PRE_AGGREGATORS.build(name, f=F)
    for dtype in DTYPES:
        rows = some_rows(dtype=dtype)
        before = rows.clone()
        out = stage(rows)
        assert out.dtype == dtype
        assert out.shape == (stage.out(N), D)
        assert torch.equal(rows, before)
    rows[4] = float("nan")
    assert torch.isfinite(stage(rows)).all()
    assert stage(rows).shape == (stage.out(N - 1), D)


def test_the_rule_behind_bucketing_is_checked_with_the_number_of_buckets():
    with pytest.raises(InvalidInput, match="n = 6"):
        rule_from("bucketing >> krum", f=2)(some_rows(n=11))
    with pytest.raises(InvalidInput, match="n = 4"):
        (Bucketing(s=3) >> rule_from("median", f=2))(some_rows(n=12))


def test_chains_associate():
    rule = rule_from("krum", f=F)
    left, right = (NNM(f=F) >> Bucketing()) >> rule, NNM(f=F) >> (Bucketing() >> rule)
    assert left == right
    assert isinstance(left, Chain)
