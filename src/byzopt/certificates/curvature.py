"""Hessians that are known through gradients alone: products by central differences, and their extremes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.rng import stream

DENSE = 64  # up to this many coordinates the whole Hessian is formed
STEPS = 24  # of Lanczos beyond that
Field = Callable[[Tensor], Tensor]  # x [d] -> a gradient [..., d]


class ExtremeEigenvalues(NamedTuple):
    """The smallest and the largest eigenvalue. `sure`: from the whole Hessian; else from Lanczos, whose
    extremes lie inside the true ones, the large end close to it."""

    low: float
    high: float
    sure: bool

    @property
    def norm(self) -> float:
        """The spectral norm."""
        return max(abs(self.low), abs(self.high))


def hessian_product(field: Field, x: Tensor, way: Tensor) -> Tensor:
    """The derivative of `field` at x along `way` `[d]`: the Hessian times it, where `field` is a gradient."""
    length = float(way.norm())
    if length == 0:
        return torch.zeros_like(field(x))
    width: float = float(torch.finfo(x.dtype).eps) ** (1 / 3) * (1 + float(x.norm())) / length
    above, below = field(x + width * way), field(x - width * way)
    return (above - below) / (2 * width)


def hessian(field: Field, x: Tensor) -> Tensor:
    """The Hessian `[..., d, d]` of a gradient `[..., d]`, column by column, made symmetric: 2 d calls."""
    columns = [hessian_product(field, x, way) for way in torch.eye(len(x), dtype=x.dtype, device=x.device)]
    whole = torch.stack(columns, dim=-1)
    return (whole + whole.mT) / 2


def extreme_eigenvalues(field: Field, x: Tensor, seed: int = 0) -> ExtremeEigenvalues:
    """Extreme eigenvalues of the Hessian at x: whole up to `DENSE` coordinates, by Lanczos beyond."""
    if len(x) <= DENSE:
        eigenvalues = torch.linalg.eigvalsh(hessian(field, x).double())
        return ExtremeEigenvalues(float(eigenvalues[0]), float(eigenvalues[-1]), True)
    return _lanczos(field, x, seed)


def _lanczos(field: Field, x: Tensor, seed: int) -> ExtremeEigenvalues:
    way = torch.randn(len(x), dtype=torch.float64, generator=stream(seed, "lanczos"), device="cpu").to(x)
    basis = [way / way.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(STEPS):
        image = hessian_product(field, x, basis[-1])
        diagonal.append(float(basis[-1] @ image))
        known = torch.stack(basis)
        for _ in range(2):  # twice is enough for orthogonality to rounding
            image = image - known.T @ (known @ image)
        beside.append(float(image.norm()))
        if beside[-1] <= 1e-8 * max(map(abs, diagonal)):
            break
        basis.append(image / beside[-1])
    off = torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64, device="cpu")
    small = (
        torch.diag(torch.tensor(diagonal, dtype=torch.float64, device="cpu"))
        + torch.diag(off, 1)
        + torch.diag(off, -1)
    )
    eigenvalues = torch.linalg.eigvalsh(small)
    return ExtremeEigenvalues(float(eigenvalues[0]), float(eigenvalues[-1]), False)
