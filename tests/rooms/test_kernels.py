"""Kernels against plain torch and float64, at the edges of blocks, for odd sizes, layouts and dtypes."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from byzopt import aggregators as ag
from byzopt import kernels, lengths
from byzopt.aggregators.numerics import measuring, selection
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.kernels import RankWindow, blend, tall, team
from tests.products import sampled
from tests.spellings import SPELLINGS, build, marked

pytestmark = pytest.mark.skipif(not kernels.kernels_available(), reason="needs llvmlite")
SIZES = [
    (1, 64),
    (2, 65),
    (3, 8),
    (5, 1000),
    (7, 4097),
    (8, 9001),
    (9, 9001),
    (20, 127),
    (33, 1639),
    (64, 100),
    (300, 130),
]
TURNED = [(2, 2), (2, 9), (5, 3), (16, 16), (20, 300), (33, 515), (300, 17), (7, 300_001)]
TALL = [(65, 64), (100, 333), (513, 130), (1500, 70)]
CHAINS = {
    "mean": lambda f: ag.Mean(),
    "median": lambda f: ag.Median(),
    "trimmed_mean": lambda f: ag.TrimmedMean(f=f),
    "meamed": lambda f: ag.MeaMed(f=f),
    "phocas": lambda f: ag.Phocas(f=f),
    "krum": lambda f: ag.Krum(f=f),
    "multi_krum": lambda f: ag.MultiKrum(f=f),
    "rfa": lambda f: ag.RFA(),
    "geometric_median": lambda f: ag.GeometricMedian(),
    "centered_clipping": lambda f: ag.CenteredClipping(iterations=3),
    "mda": lambda f: ag.MDA(f=f),
    "nnm >> median": lambda f: ag.NNM(f=f) >> ag.Median(),
    "nnm >> rfa": lambda f: ag.NNM(f=f) >> ag.RFA(),
    "bucketing >> trimmed_mean": lambda f: ag.Bucketing(s=2) >> ag.TrimmedMean(f=f // 2),
    "bulyan": lambda f: ag.Bulyan(f=f),
}


def drawn(n, d, dtype=torch.float32, seed=0, offset=0.0):
    return (torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + offset).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n,d", SIZES)
def test_gram_is_that_of_float64(n, d, dtype):
    rows = drawn(n, d, dtype, offset=3.0)
    pivot = rows[n // 2]
    centred = rows.double() - pivot.double()
    exact = centred @ centred.T
    found = kernels.fused_gram(rows, pivot)
    assert torch.equal(found, found.T)
    assert (found - exact).abs().max() <= 1e4 * torch.finfo(dtype).eps * exact.abs().max().clamp_min(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n,d", [*SIZES, (20, 120_001)])
@pytest.mark.parametrize("compiled", [True, False])
def test_lengths_are_those_of_float64(n, d, dtype, compiled):
    rows = drawn(n, d, dtype, offset=0.5)
    pivot = rows[n // 2]
    with nullcontext() if compiled else kernels.disabled():
        cross, squares = lengths.lengths(rows, pivot)
    x, p = rows.double(), pivot.double()
    eps = 1e2 * torch.finfo(dtype).eps
    assert ((squares - x.square().sum(dim=1)) / squares).abs().max() <= eps
    assert (cross - (x - p) @ p).abs().max() <= eps * squares.max()


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_norms_of_rows_whose_squares_leave_float32(scale):
    rows = scale * drawn(20, 5_000)
    rows[3] = 0
    found = measuring.geometry_of(rows).sq_norms
    assert torch.allclose(found, rows.double().square().sum(dim=1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("n,d", SIZES)
def test_gram_of_equal_rows_is_equal_to_the_last_bit(n, d):
    rows = drawn(n, d)
    rows[-1] = rows[0]
    found = kernels.fused_gram(rows, rows[n // 2])
    assert torch.equal(found[0], found[-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n,d", SIZES + TALL)
def test_columns_are_those_of_torch_to_the_last_bit(n, d, dtype):
    rows = drawn(n, d, dtype)
    if not kernels.reduces_columns(rows):
        pytest.skip("many rows, few columns")
    f = (n - 1) // 2
    plans = [
        RankWindow((n - 1) // 2, n // 2 + 1),
        RankWindow(f, n - f),
        RankWindow(0, n),
        RankWindow(f, n - f, n - f),
    ]
    for plan in plans:
        out = torch.empty(d, dtype=dtype)
        assert kernels.reduce_columns(rows, plan, None, out)
        assert torch.equal(out, selection.answer(rows, plan)), plan


@pytest.mark.parametrize(
    "n,m,d",
    [(n, max(1, n // 2), d) for n, d in SIZES if d >= 64 and n <= 64]
    + [(130, 65, 64), (66, 66, 90), (70, 133, 1000), (300, 299, 131)],
)
def test_mixing_on_the_way_is_mixing_before(n, m, d):
    rows = drawn(n, d, torch.float64)
    mixing = torch.rand(m, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plan = RankWindow((len(mixing) - 1) // 2, len(mixing) // 2 + 1)
    out = torch.empty(d, dtype=torch.float64)
    assert kernels.reduce_columns(rows, plan, mixing, out)
    assert torch.allclose(out, selection.answer(mixing @ rows, plan), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("place", [0, 15, 16, 63, 64, 99, 126])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_number_anywhere_is_seen(place, value):
    rows = drawn(9, 127)
    rows[4, place] = value
    out = torch.empty(127)
    assert not kernels.reduce_columns(rows, RankWindow(4, 5), None, out)
    assert not kernels.reduce_columns(rows, RankWindow(4, 5), torch.eye(9), out)
    assert not torch.isfinite(kernels.fused_gram(rows, rows[0])[4, 4])
    kept = ag.Median(f=1)(torch.cat([rows[:4], rows[5:]]))
    assert torch.equal(ag.Median(f=1)(rows), kept)


SHAPES = [(11, 5000, 2), (20, 1031, 4), (50, 700, 10), (23, 70001, 5), (300, 300, 60)]


@pytest.mark.parametrize("name, shape", sampled(CHAINS, SHAPES, times=2))
def test_rules_are_the_same_without_kernels(name, shape):
    n, d, f = shape
    if name == "mda" and n > 100:
        pytest.skip("its search takes a minute at this size")
    rule, rows = CHAINS[name](f), drawn(n, d, offset=100.0)
    rows[: n // 10 + 1] += 5
    with kernels.disabled():
        plain = rule(rows)
    assert torch.allclose(rule(rows), plain, rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("name", CHAINS)
def test_layout_and_half_precision_change_nothing_but_rounding(name):
    rule, rows = CHAINS[name](2), drawn(11, 3000)
    exact = rule(rows.double()).float()
    wide = torch.zeros(22, 6000)
    wide[::2, ::2] = rows
    for same in (wide[::2, ::2], rows.T.contiguous().T, rows.clone()[:, :], wide[::2, ::2].contiguous()):
        before = same.clone()
        assert torch.allclose(rule(same), exact, rtol=1e-5, atol=1e-5)
        assert torch.equal(same, before)
    half = rows.bfloat16()
    assert torch.allclose(rule(half).float(), rule(half.double()).float(), rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("name", [name for name in CHAINS if name != "bulyan"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_sets_is_one_set_after_the_other(name, dtype):
    rule = CHAINS[name](3)
    sets = drawn(6 * 12, 40, dtype).view(6, 12, 40).clone()
    sets[:, 9:] = sets[:, 9:10]  # liars agree
    sets[2, 0] *= 1e6
    alone = torch.stack([rule(rows) for rows in sets])
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert torch.allclose(rule.batch(sets), alone, rtol=tolerance, atol=tolerance)
    if name == "mean":
        return
    sets[4, 11, 3] = np.nan
    assert torch.allclose(rule.batch(sets)[:4], alone[:4], rtol=tolerance, atol=tolerance)


def test_one_kernel_serves_all_tall_columns():
    made = []
    for n in (65, 66, 100, 300):
        for plan in (RankWindow(n // 2, n // 2 + 1), RankWindow(0, n), RankWindow(1, n - 1, n - 2)):
            rows, out = drawn(n, 90), torch.empty(90)
            assert kernels.reduces_columns(rows)
            assert kernels.reduce_columns(rows, plan, None, out)
            made.append(tall._kernel(rows.dtype, tall.lanes(rows.dtype), tall._DEEP, False))
    assert len(set(map(id, made))) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 6, 33, 100, 129])
def test_a_network_puts_the_wanted_ranks_on_their_wires(n):
    # What a network of comparators does to zeros and ones it does to all values (Knuth, 5.3.4): every number
    # of ones is tried in random places, and some random values.
    generator = np.random.default_rng(n)
    columns = [np.random.default_rng(k).permutation(np.arange(n) < k) for k in range(n + 1)]
    values = np.stack([*columns, *generator.random((20, n))], axis=1).astype(float)
    for first, last in {(0, n), (n // 2, n // 2 + 1), (n // 5, n - n // 5), (n - 1, n)}:
        wires = list(values.copy())
        for i, j, low, high in kernels.network(n, first, last):
            assert i < j < n
            smaller, larger = np.minimum(wires[i], wires[j]), np.maximum(wires[i], wires[j])
            wires[i] = smaller if low else np.full_like(smaller, np.nan)  # nobody may look at it again
            wires[j] = larger if high else np.full_like(larger, np.nan)
        assert np.array_equal(wires[first:last], np.sort(values, axis=0)[first:last])


@pytest.mark.parametrize("n,d", [(65, 300), (130, 64), (400, 70), (70, 20)])
def test_many_rows_are_mixed_on_the_way(n, d):
    rows = drawn(n, d, torch.float64, offset=3.0)
    for chain in (ag.NNM(f=n // 5) >> ag.Median(), ag.NNM(f=n // 5) >> ag.MeaMed(f=n // 5)):
        mixing = chain.stages[0].mixing(measuring.geometry_of(rows))
        plan = chain.rule.plan(n)
        assert torch.allclose(chain(rows), selection.answer(mixing @ rows, plan), rtol=1e-12, atol=1e-12)
    rows[3, 7] = np.inf
    chain, kept = ag.NNM(f=5) >> ag.Median(), torch.cat([rows[:3], rows[4:]])
    assert torch.equal(chain(rows), (ag.NNM(f=4) >> ag.Median())(kept))


@pytest.mark.parametrize(("n", "d"), [(20, 300_001), (70, 60_001), (300, 9_001), (700, 1_030)])
def test_threads_do_not_change_results(n, d):
    """Columns are cut into parts that do not depend on threads, and their sums are taken in order."""
    rows, before, answers = drawn(n, d), torch.get_num_threads(), []
    names = ("mean", "median", "nnm >> median", "meamed", "krum", "geometric_median", "nnm >> rfa")
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            answers.append([CHAINS[name](4)(rows) for name in names])
    finally:
        torch.set_num_threads(before)
    for name, *found in zip(names, *answers, strict=True):
        assert all(torch.equal(found[0], other) for other in found[1:]), name


def test_an_error_in_a_team_is_raised_once_all_have_ended(monkeypatch):
    for reachable in (True, False):  # torch's team, and a pool of ours
        ended = []

        def run(i, ended=ended):
            ended.append(i)
            if i % 2:
                raise KeyError(i)

        if not reachable:
            monkeypatch.setattr(team, "_openmp", lambda: None)
        with pytest.raises(KeyError):
            team.run_all(3, run, 3)
        assert sorted(ended) == [0, 1, 2]


def test_kernels_can_be_switched_off_from_outside():
    code = "import torch; from byzopt import kernels; print(kernels.supports(torch.zeros(2, 2)))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"BYZOPT_KERNELS": "off"},
    )
    assert found.stdout.strip() == "False"


def test_a_forked_process_computes_too():
    rows = drawn(20, 200_000)
    expected = ag.Median()(rows)
    context = torch.multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(bool(torch.equal(ag.Median()(rows), expected))))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert queue.get()


@pytest.mark.parametrize("spelling", marked(s for s in SPELLINGS if build(s).splits()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_part_without_columns_has_an_answer_without_numbers(spelling, dtype):
    """A rank of many may be dealt no column, and takes part in the round like the others."""
    rule, whole = build(spelling), torch.randn(25, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
    part = Mixed(whole[:, :0], 1.0, None, measuring.geometry_of(whole))
    assert rule.reduce(part).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (5, 130), (31, 1000), (300, 65)])
def test_votes_are_the_signs_of_sums_of_signs(shape, dtype):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype).round()
    out = rows.new_empty(shape[1])
    assert kernels.vote_rows(rows, out)
    assert torch.equal(out, rows.sign().sum(dim=0).sign())
    for bad in (float("nan"), float("inf"), -float("inf")):
        rows[-1, -1] = bad
        assert not kernels.vote_rows(rows, out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d"), TURNED)
def test_rows_that_lie_column_by_column_are_copied_as_they_are(n, d, dtype):
    rows = torch.arange(n * d, dtype=dtype).view(d, n).T
    wide = torch.arange(2 * n * d, dtype=dtype).view(d, 2 * n).T[:n]  # with other numbers between columns
    for each in (rows, wide):
        assert kernels.turns(each)
        copy = kernels.turned_rows(each)
        assert copy.is_contiguous()
        assert torch.equal(copy, each)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 9, 33, 100, 256])
def test_definite_systems_are_solved_as_lapack_solves_them(n):
    numbers = np.random.default_rng(n)
    factor = numbers.standard_normal((n, n + 3))
    matrix, right = factor @ factor.T / n + np.eye(n), numbers.standard_normal(n)
    found, exact = kernels.solved(matrix, right), np.linalg.solve(matrix, right)
    # Both are off by n roundings of a system whose condition is below 10.
    assert np.abs(found - exact).max() <= 20 * n * 2.3e-16 * np.abs(exact).max()
    assert not np.isfinite(kernels.solved(np.zeros((n, n)), right)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d"), [(17, 300_005), (100, 2_048), (101, 50_003)])
def test_sums_of_rows_from_memory_have_the_bits_of_those_from_the_cache(n, d, dtype, monkeypatch):
    rows, shares = drawn(n, d, dtype), np.random.default_rng(n).standard_normal(n)
    found = []
    for least in (1, 1 << 62):
        monkeypatch.setattr(blend, "_PAST", least)
        found.append(kernels.mixed_blend(shares, None, rows, None))
    assert torch.equal(*found)
    assert torch.allclose(found[0].double(), torch.from_numpy(shares) @ rows.double(), rtol=1e-4, atol=1e-4)
