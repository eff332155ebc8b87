"""Statistics of rows that several attacks share."""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor

from byzopt.errors import require


def row_deviation(rows: Tensor, ddof: int = 1) -> Tensor:
    """Coordinate-wise standard deviation of `[..., h, d]`, divisor max(h - ddof, 1): one row gives zeros."""
    offsets = rows - rows.mean(dim=-2, keepdim=True)
    squares: Tensor = offsets.mul_(offsets).sum(dim=-2)
    return squares.div_(max(rows.shape[-2] - ddof, 1)).sqrt_()


def direction(row: Tensor) -> Tensor:
    """`row` `[..., d]` over its length; zeros stay zeros."""
    length = torch.linalg.vector_norm(row, dim=-1, keepdim=True)
    return row / torch.where(length > 0, length, 1)


def quantile_z(n: int, b: int) -> float:
    """z = Φ⁻¹((n - b - q)/(n - b)) with q = ⌊n/2 + 1⌋ - b: how far b of n workers may go and still find q
    honest ones beyond them, so that together they are a majority (ALIE, NeurIPS 2019).

    Negative when that needs more than half of the honest workers. n = 20: b = 3 -> 0.074, 5 -> 0.253,
    8 -> 0.674, 9 -> 0.908. Errors: q < 1, when b alone are a majority, or q = n - b.
    """
    q = n // 2 + 1 - b
    require(
        0 < q < n - b,
        "The quantile rule for z",
        "have 0 < n // 2 + 1 - b < n - b",
        f"n = {n} with b = {b} attackers",
        "Give z as a number.",
    )
    return NormalDist().inv_cdf((n - b - q) / (n - b))
