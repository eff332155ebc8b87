"""Rows of any shape and layout: few columns of many rows, other strides, half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from byzopt import aggregators as ag
from byzopt import kernels, linalg
from byzopt.aggregators.core.inputs import laid_out
from byzopt.errors import TooManyFaults
from byzopt.kernels.sums import mean_rows

needs_kernels = pytest.mark.skipif(not kernels.kernels_available(), reason="needs llvmlite")


def drawn(n, d, dtype=torch.float32, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "meamed", "phocas"])
@pytest.mark.parametrize("n,d", [(65, 1), (65, 40), (301, 7), (1024, 3), (1025, 2)])
def test_few_columns_of_many_rows_have_the_same_bits_with_and_without_kernels(name, n, d):
    rule, rows = ag.rule_from(name, f=n // 5), drawn(n, d)
    rows[::3] = rows[0]  # ties
    found = rule(rows)
    with kernels.disabled():
        assert torch.equal(rule(rows), found)
    if name == "trimmed_mean":
        f = n // 5
        exact = rows.double().sort(dim=0).values[f : n - f].mean(dim=0)
        # A sum of at most 1025 numbers below 5, each time rounded to 6e-8 of it.
        assert torch.allclose(found.double(), exact, rtol=0, atol=1025 * 5 * 6e-8)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n,d", [(1, 3), (3, 1), (65, 7), (20, 128), (300, 1003), (2_100, 1_001)])
def test_a_mean_of_rows_is_their_plain_sum(n, d, dtype):
    whole = drawn(n, d + 5, dtype)
    rows = whole[:, 3 : 3 + d]  # part of larger rows
    out = torch.empty(d, dtype=dtype)
    assert mean_rows(rows, out)
    plain = rows[0].clone()
    for row in rows[1:]:
        plain += row
    assert torch.equal(out, plain / n)
    assert torch.equal(ag.Mean()(rows), out)
    for bad in (float("inf"), float("nan")):
        whole[n // 2, 3 + d // 2] = bad
        assert not mean_rows(rows, out)


LAYOUTS = {
    "columns side by side": lambda n, d: drawn(d, n).T,
    "every other column": lambda n, d: drawn(n, 2 * d)[:, ::2],
    "bfloat16": lambda n, d: drawn(n, d, torch.bfloat16),
    "float16": lambda n, d: drawn(n, d, torch.float16),
    "float64, columns side by side": lambda n, d: drawn(d, n, torch.float64).T,
}


@needs_kernels
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["mean", "median", "krum", "multi_krum", "nnm >> rfa", "geometric_median"])
@pytest.mark.parametrize("n,d", [(9, 40), (20, 5_000), (300, 30)])
def test_answers_do_not_depend_on_how_rows_lie(layout, name, n, d):
    rows, rule = LAYOUTS[layout](n, d), ag.rule_from(name, **({} if name == "mean" else {"f": (n - 3) // 4}))
    plain = rows.to(linalg.compute_dtype(rows.dtype)).contiguous()
    found, exact = rule(rows), rule(plain)
    assert found.dtype == rows.dtype
    close = n * 6 * 6e-8 if name == "mean" else 0  # it may be summed in another order, of numbers below 6
    assert torch.allclose(found, exact.to(rows.dtype), rtol=0, atol=close)
    again, share = rule.explain(rows).aggregate.double(), 1e-2 if rows.dtype.itemsize == 2 else 1e-5
    summed = name in ("mean", "geometric_median")  # with weights of all rows, perhaps in another order
    assert torch.allclose(again, found.double(), rtol=share, atol=n * 6 * 6e-8 if summed else 1e-8)


@needs_kernels
def test_rows_are_laid_out_only_where_the_copy_is_no_larger_than_a_block():
    assert laid_out(rows := drawn(5, 7)) is rows
    small = drawn(7, 5).T
    assert torch.equal(laid_out(small), small)
    assert laid_out(small).is_contiguous()
    large = torch.empty(1, dtype=torch.bfloat16).expand(2, linalg.PIECE_BYTES)
    assert laid_out(large) is large
    with kernels.disabled():
        assert laid_out(small) is small


@needs_kernels
def test_bad_rows_of_any_layout_are_missing_rows():
    rows = drawn(50, 9).T.clone(memory_format=torch.preserve_format)
    rows[2] = float("nan")
    kept = rows[[i for i in range(9) if i != 2]]
    assert not rows.is_contiguous()
    assert torch.equal(ag.Krum(f=2)(rows), ag.Krum(f=1)(kept.contiguous()))
    rows[3] = rows[2]
    with pytest.raises(TooManyFaults):
        ag.Krum(f=1)(rows)
    assert np.isnan(rows[2].numpy()).all()  # the caller's rows stay as they were
