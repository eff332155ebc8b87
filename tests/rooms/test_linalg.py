"""Linear algebra shared by all rooms, against plain float64 formulas."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from byzopt import kernels, linalg
from byzopt.aggregators.numerics.measuring import geometry_of


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_gram_and_mix_equal_the_plain_products_over_several_blocks(dtype):
    rows, weights = normal(7, 40_000, dtype=dtype), normal(3, 7, seed=1)
    wide = rows.double()
    centred = wide - wide[2]
    assert torch.allclose(linalg.gram(rows, rows[2]), centred @ centred.T, rtol=1e-4)
    mixed = linalg.mix(weights, rows)
    assert mixed.dtype == dtype
    assert torch.allclose(mixed.double(), weights @ wide, rtol=0, atol=20 * torch.finfo(dtype).eps)


def test_column_blocks_cover_every_column_once():
    rows = normal(5, 70_001, dtype=torch.float32)
    assert torch.equal(torch.cat([block for _, block in linalg.column_blocks(rows)], dim=1), rows)
    assert all(block.shape[1] <= 64 for _, block in linalg.column_blocks(rows, size=1))


@pytest.mark.parametrize("chosen", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("other", [0.0, 3e38, float("inf"), float("nan")])
def test_a_weighted_sum_without_kernels_leaves_rows_of_weight_zero_out(chosen, other):
    rows, weights = normal(7, 5_000, dtype=torch.float32), torch.zeros(7, dtype=torch.float64)
    weights[:chosen] = torch.rand(chosen, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows[chosen:, 40:50] = other
    exact = weights[:chosen] @ rows[:chosen].double()
    with kernels.disabled():
        found = linalg.blend(weights, rows)
    assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_squared_distances_are_symmetric_and_zero_on_the_diagonal():
    rows = normal(6, 30)
    dists = linalg.sq_dists_of(rows @ rows.T)
    assert torch.allclose(dists, torch.cdist(rows, rows).square(), atol=1e-10)
    assert torch.equal(dists, dists.T)
    assert torch.equal(dists.diagonal(), torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize("affine", [True, False])
def test_the_geometry_of_mixed_rows_is_the_geometry_of_the_product(affine):
    rows, mixing = normal(6, 50) + 3, normal(4, 6, seed=1)
    mixing = mixing / mixing.sum(dim=1, keepdim=True) if affine else mixing
    mixed, direct = geometry_of(rows).mixed(mixing, affine), geometry_of(mixing @ rows)
    for what in ("sq_dists", "inner", "sq_norms"):
        assert torch.allclose(getattr(mixed, what), getattr(direct, what), rtol=1e-9, atol=1e-9), what
    middle = torch.full((4,), 0.25, dtype=torch.float64)
    point = (mixing @ rows).mean(dim=0)
    assert torch.allclose(mixed.sq_dists_to(middle), (mixing @ rows - point).square().sum(dim=1), rtol=1e-8)


def test_norms_are_exact_for_a_zero_row_far_from_the_bulk():
    rows = normal(9, 20_000, dtype=torch.float32) + 1e3
    rows[4] = 0
    assert geometry_of(rows).sq_norms[4] == 0


def test_projection_on_a_ball_stops_at_its_surface_and_leaves_the_inside_alone():
    centre = normal(5, seed=2)
    near, far = centre + 0.01, centre + 10
    assert torch.equal(linalg.project_ball(near, centre, 1.0), near)
    assert linalg.norm(linalg.project_ball(far, centre, 1.0) - centre).item() == pytest.approx(1)


def test_polar_factor_has_unit_singular_values_and_newton_schulz_comes_near():
    matrix = normal(4, 9)
    factor = linalg.polar(matrix)
    assert torch.allclose(factor @ factor.T, torch.eye(4, dtype=torch.float64), atol=1e-12)
    values = torch.linalg.svdvals(linalg.newton_schulz(matrix))
    assert 0.6 < values.min() <= values.max() < 1.3
    assert torch.equal(linalg.newton_schulz(torch.zeros(3, 5)), torch.zeros(3, 5))


COARSE = [
    "torch.set_float32_matmul_precision('high')",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = 'tf32'",
]


@pytest.mark.parametrize(
    "coarse", [COARSE[0], *(pytest.param(one, marks=pytest.mark.slow) for one in COARSE[1:])]
)
def test_float32_products_on_an_accelerator_are_no_tf32_however_a_script_asks_for_it(coarse):
    if "fp32_precision" in coarse and not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("torch before 2.9 has the older way alone")
    newer = "torch.backends.cuda.matmul.fp32_precision == '{}'"
    within = newer.format("ieee") if hasattr(torch.backends, "fp32_precision") else "True"
    after = newer.format("tf32") if hasattr(torch.backends, "fp32_precision") else "True"
    code = (
        f"import torch; from byzopt import accelerator; {coarse}\n"
        f"with accelerator.full_float32(): print({within})\n"
        f"print({after})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["True", "True"]
