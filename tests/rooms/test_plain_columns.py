"""Order statistics of columns without kernels: by pieces and threads, as the twin in float64 has them."""

import numpy as np
import pytest
import torch

from byzopt import NNM, Median, kernels
from byzopt.aggregators.numerics import selection
from byzopt.kernels import RankWindow, jit
from tests.reference import rules as twin

SIZES = [1, 2, 5, 20, 63, 64, 101]


@pytest.fixture
def cut(monkeypatch):
    """Columns are cut into many pieces, by three threads."""
    monkeypatch.setattr(selection, "NARROW", 8)
    monkeypatch.setattr(selection, "_CALL", 256)
    monkeypatch.setattr(selection, "_APART", 64)
    monkeypatch.setattr(selection, "_PIECE", 4096)
    monkeypatch.setattr(jit, "PARALLEL", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)


def plans(n):
    f = (n - 1) // 3
    middle, trimmed = ((n - 1) // 2, n // 2 + 1), (f, n - f)
    return [RankWindow(*ranks, around) for ranks in (middle, trimmed) for around in (None, n - f)]


def answered(rows, plan, ours):
    out = torch.full((rows.shape[1],), 7.0, dtype=rows.dtype)
    return selection.answers(rows.clone() if ours else rows, plan, out, ours), out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("n", SIZES)
def test_pieces_and_threads_give_the_answers_of_the_twin(n, ours, dtype, cut):
    rows = torch.randn(n, 509, generator=torch.Generator().manual_seed(n)).to(dtype)
    before = rows.clone()
    for plan in plans(n):
        fine, out = answered(rows, plan, ours)
        ordered = np.sort(rows.double().numpy(), axis=0)
        expected = ordered[plan.first : plan.last].mean(axis=0)
        if plan.around is not None:
            # Nearness is judged about the centre in the rows' dtype, where no two of these tie.
            near = np.argsort(np.abs(ordered - expected), axis=0, kind="stable")[: plan.around]
            expected = np.take_along_axis(ordered, near, axis=0).mean(axis=0)
        # A plain sum of at most n numbers below 8, each rounded once.
        assert fine
        assert np.abs(out.double().numpy() - expected).max() <= 8 * n * torch.finfo(dtype).eps
    assert torch.equal(rows, before)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_seen_wherever_it_stands(n, bad, cut):
    for row, column in {(0, 0), (n - 1, 508), (n // 2, 300)}:
        rows = torch.zeros(n, 509)
        rows[row, column] = bad
        for plan in plans(n):
            for ours in (True, False):
                assert not answered(rows, plan, ours)[0]


def test_an_answer_that_overflows_is_seen(cut):
    rows = torch.full((20, 509), 3e38)
    assert not answered(rows, RankWindow(4, 16), False)[0]


@pytest.mark.parametrize("n", [20, 70])
def test_mixed_columns_are_those_of_the_mixed_rows(n, cut):
    rows = torch.randn(n, 3001, generator=torch.Generator().manual_seed(n)) + 100
    rows[: n // 5] += 3
    with kernels.disabled():
        found = (NNM(f=n // 5) >> Median())(rows)
    expected = twin.median(twin.nnm(rows.double().numpy(), n // 5))
    # Means of n numbers about a row of the bulk, of which those that are left are below 10.
    assert np.abs(found.double().numpy() - expected).max() <= 1e-4
