"""One pass over rows and sums, and sketches of rows: kernels against float64 and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from byzopt import kernels
from byzopt.kernels import history

pytestmark = pytest.mark.skipif(not kernels.kernels_available(), reason="needs llvmlite")


def drawn(n, d, dtype=torch.float32, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d"), [(3, 17), (5, 64), (10, 5003)])
@pytest.mark.parametrize("past", [False, True])
def test_one_pass_of_history_is_its_float64_twin(n, d, past, dtype, monkeypatch):
    """Rows about a centre into older sums, with a walk and a mean; one row is not read. Sums are torch's."""
    monkeypatch.setattr(history, "_PAST", 1 if past else d * n + 1)
    rows, old = drawn(n, d, dtype) + 3, drawn(n, d, dtype, seed=1)
    centre, x, home = drawn(3, d, dtype, seed=2)
    factors, weights = np.linspace(0.5, 1, n), np.linspace(0, 1, n)
    rows[0], factors[0] = float("nan"), 0
    out, mean = torch.full_like(old, 7), torch.full_like(x, 7)
    found = kernels.fused_history(
        rows, factors, centre, kernels.Walk(x, home), weights, mean, [kernels.Sums(old, out)], 1, moved=True
    )
    given = torch.where(torch.from_numpy(factors > 0)[:, None], rows, 0)
    scaled = given * torch.from_numpy(factors).to(dtype)[:, None]
    moves, walk = scaled - centre, x.double() - home.double()
    assert torch.equal(out, old + moves)
    about = out.double() - out[1].double()
    # Of 4096 columns a lane sums 4096 / 4 products at most, then lanes and blocks are added in float64. Each
    # factor of a product is a difference, rounded once.
    eps = (4096 / 4 + 3) * torch.finfo(dtype).eps
    for products, part in ((found.rows, moves), (found.sums[0], about)):
        wide = part.double()
        assert (torch.from_numpy(products) - wide @ wide.T).abs().le(eps * wide.abs() @ wide.abs().T).all()
    for squares, part in ((found.lengths, scaled), (found.sizes[0], out)):
        want = part.double().square().sum(dim=1)
        assert (torch.from_numpy(squares) - want).abs().le(eps * want).all()
    torch.testing.assert_close(torch.from_numpy(found.along), moves.double() @ walk, rtol=0, atol=1e-12 * d)
    assert found.path == pytest.approx(float(walk.square().sum()), rel=1e-12)
    want = torch.from_numpy(weights) @ given.double()
    assert (mean.double() - want).abs().max() <= 4 * n * n * torch.finfo(dtype).eps


@pytest.mark.parametrize(("old", "centred"), [(False, False), (True, False), (False, True), (True, True)])
def test_history_of_rows_that_are_not_moved(old, centred):
    rows, before = drawn(6, 2003) + 3, drawn(6, 2003, seed=1) if old else None
    rows[4] = rows[2]
    out, factors = torch.empty_like(rows), np.array([1.0, 1, 1, 0, 1, 1])
    table = kernels.Sums(before, out)
    found = kernels.fused_history(rows, factors, rows[1] if centred else None, sums=[table], pivot=5)
    read = torch.where(torch.from_numpy(factors > 0)[:, None], rows, 0)
    assert torch.equal(out, read if before is None else before + read)
    if before is None:  # equal rows have equal products
        assert (found.sums[0][4] == found.sums[0][2]).all()
    if centred:
        assert (found.rows[4] == found.rows[2]).all()
        assert found.rows[1, 1] == 0
    assert found.sums[0][5, 5] == 0


@pytest.mark.parametrize("past", [False, True])
def test_two_tables_of_sums_grow_as_each_does_alone(past, monkeypatch):
    rows, old = drawn(5, 3001) + 3, drawn(5, 3001, seed=1)
    monkeypatch.setattr(history, "_PAST", 1 if past else rows.numel() + 1)
    factors, tables = np.array([1.0, 0.5, 0, 2, 1]), [torch.empty_like(rows) for _ in range(4)]
    both = [kernels.Sums(old, tables[0]), kernels.Sums(None, tables[1])]
    found = kernels.fused_history(rows, factors, rows[1], sums=both, pivot=3)
    for i, before in enumerate((old, None)):
        sums = [kernels.Sums(before, tables[2 + i])]
        alone = kernels.fused_history(rows, factors, rows[1], sums=sums, pivot=3)
        assert torch.equal(tables[i], tables[2 + i])
        assert (found.sums[i] == alone.sums[0]).all()
        assert (found.sizes[i] == alone.sizes[0]).all()
        assert (found.rows == alone.rows).all()
    with pytest.raises(ValueError, match="should enter one table"):
        kernels.fused_history(rows, factors, rows[1], sums=both, moved=True)


def test_history_shows_what_is_not_finite_and_refuses_what_does_not_fit():
    rows, ones = drawn(4, 100), np.ones(4)
    rows[2, 50], out = float("inf"), torch.empty(4, 100)
    found = kernels.fused_history(
        rows, ones, weights=ones, mixed=torch.empty(100), sums=[kernels.Sums(None, out)]
    )
    assert np.isfinite(found.lengths).tolist() == [True, True, False, True]
    assert np.isfinite(found.sizes[0]).tolist() == [True, True, False, True]
    for wrong in (torch.empty(4, 99), torch.empty(4, 100, dtype=torch.float64), torch.empty(100, 4).T):
        with pytest.raises(ValueError, match="should be"):
            kernels.fused_history(rows, ones, sums=[kernels.Sums(None, wrong)])
    with pytest.raises(ValueError, match="should be"):
        kernels.fused_history(rows, ones, centre=torch.empty(99))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("centred", [False, True])
def test_scattered_rows_are_those_of_float64(centred, dtype):
    rows, centre = drawn(5, 3003, dtype), drawn(1, 3003, dtype, seed=1)[0] if centred else None
    places = torch.arange(3003, dtype=torch.int32) * 7 % 50
    signs = torch.where(torch.arange(3003) % 3 > 0, 1, -1).to(dtype)
    rows[3], factors = float("nan"), np.array([1.0, 0.5, 1, 0, 1])
    found = kernels.fused_scatter(rows, factors, places, signs, 50, centre)
    read = (
        torch.where(torch.from_numpy(factors > 0)[:, None], rows, 0)
        * torch.from_numpy(factors).to(dtype)[:, None]
    )
    moves = (read if centre is None else read - centre) * signs
    want = torch.zeros(5, 50, dtype=torch.float64).index_add_(1, places, moves.double())
    torch.testing.assert_close(found, want, rtol=0, atol=1e-13)  # 61 numbers below 5, in one order or another
    with pytest.raises(ValueError, match="Places"):
        kernels.fused_scatter(rows, factors, places[1:], signs, 50)
    with pytest.raises(ValueError, match="centre"):
        kernels.fused_scatter(rows, factors, places, signs, 50, signs[1:])
