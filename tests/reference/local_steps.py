"""Slow float64 twins of local steps: one worker after the other, one step after the other, with differences.

`grad(i, s, y)` is worker i's gradient at y on the s-th sample that workers ever draw, from 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Grad = Callable[[int, int, Tensor], Tensor]
Agg = Callable[[list[Tensor]], Tensor]
Lie = Callable[[int, list[Tensor]], Tensor | None]


def nobody(i: int, rows: list[Tensor]) -> None:
    """No worker lies."""


def believed(rows: list[Tensor], lie: Lie) -> list[Tensor]:
    lies = [lie(i, rows) for i in range(len(rows))]
    return [row if false is None else false for row, false in zip(rows, lies, strict=True)]


def fed_avg(
    n: int,
    x: Tensor,
    grad: Grad,
    agg: Agg,
    T: int,
    K: int,
    gamma_c: float,
    gamma_s: float,
    beta: float = 0.0,
    keep: bool = False,
    outer: float = 0.0,
    lie: Lie = nobody,
) -> list[Tensor]:
    """Rows (x - y^K)/(γ_c K), a heavy ball at the workers and one at the server. Iterates after 1 .. T."""
    path, ball = [], torch.zeros_like(x)
    velocity = [torch.zeros_like(x) for _ in range(n)]
    for t in range(1, T + 1):
        rows = []
        for i in range(n):
            y = x.clone()
            b = velocity[i] if keep else torch.zeros_like(x)
            for k in range(K):
                b = beta * b + grad(i, (t - 1) * K + k + 1, y)
                y = y - gamma_c * b
            velocity[i] = b
            rows.append((x - y) / (gamma_c * K))
        ball = outer * ball + agg(believed(rows, lie))
        x = x - gamma_s * gamma_c * K * ball
        path.append(x)
    return path


def whole_weights(
    n: int, x: Tensor, grad: Grad, agg: Agg, T: int, K: int, gamma_c: float, lie: Lie = nobody
) -> list[Tensor]:
    """Workers send y^K itself and the server answers Agg(y): FedAvg as it is listed."""
    path = []
    for t in range(1, T + 1):
        ends = []
        for i in range(n):
            y = x.clone()
            for k in range(K):
                y = y - gamma_c * grad(i, (t - 1) * K + k + 1, y)
            ends.append(y)
        x = agg(believed(ends, lie))
        path.append(x)
    return path


def diloco(
    n: int,
    x: Tensor,
    grad: Grad,
    agg: Agg,
    T: int,
    K: int,
    lr: float,
    outer_lr: float,
    outer: float,
    betas: tuple[float, float],
    eps: float,
    wd: float,
    keep: bool = True,
    lie: Lie = nobody,
) -> list[Tensor]:
    """AdamW inside, Nesterov momentum outside on the outer gradients x - y^K."""
    path, v_outer = [], torch.zeros_like(x)
    memory = [(torch.zeros_like(x), torch.zeros_like(x), 0) for _ in range(n)]
    for t in range(1, T + 1):
        deltas = []
        for i in range(n):
            m, v, k = memory[i] if keep else (torch.zeros_like(x), torch.zeros_like(x), 0)
            y = x.clone()
            for j in range(K):
                g = grad(i, (t - 1) * K + j + 1, y)
                k += 1
                y = y - lr * wd * y
                m = betas[0] * m + (1 - betas[0]) * g
                v = betas[1] * v + (1 - betas[1]) * g * g
                y = y - lr * (m / (1 - betas[0] ** k)) / ((v / (1 - betas[1] ** k)).sqrt() + eps)
            memory[i] = (m, v, k)
            deltas.append(x - y)
        delta = agg(believed(deltas, lie))
        v_outer = outer * v_outer + delta
        x = x - outer_lr * (delta + outer * v_outer)
        path.append(x)
    return path
