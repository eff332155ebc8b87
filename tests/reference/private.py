"""Slow float64 twins of methods with clipping and noise: one worker after the other, from the listings.

`grad(i, t, x)` is worker i's gradient on round t's sample, `noise(i, t)` standard normal numbers;
`lie(i, t, x)` is the row that a liar wants the server to believe, None where i is honest; `agg` takes a list
of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Agg = Callable[[list[Tensor]], Tensor]


class Problem(NamedTuple):
    n: int
    x0: Tensor
    grad: Callable[[int, int, Tensor], Tensor]
    noise: Callable[[int, int], Tensor]
    lie: Callable[[int, int, Tensor], Tensor | None]


def clipped(v: Tensor, radius: float) -> Tensor:
    length = float(v.norm())
    return v if length <= radius else v * (radius / length)


def safe_dshb(
    problem: Problem, agg: Agg, gamma: float, eta: float, clip: float, sigma: float, T: int
) -> list[Tensor]:
    """Safe-DSHB with clipped messages."""
    x, path = problem.x0, []
    m = [torch.zeros_like(x) for _ in range(problem.n)]
    for t in range(1, T + 1):
        sent = []
        for i in range(problem.n):
            released = clipped(problem.grad(i, t, x), clip) + sigma * clip * problem.noise(i, t)
            m[i] = (1 - eta) * m[i] + eta * released
            lie = problem.lie(i, t, x)
            sent.append(m[i] if lie is None else lie)
        x = x - gamma * agg(sent)
        path.append(x)
    return path


def clip21(
    problem: Problem,
    agg: Agg,
    gamma: float,
    eta_v: float,
    eta_u: float,
    clip: float,
    sigma: float,
    T: int,
) -> list[Tensor]:
    """Clip21-SGD2M behind a rule: g at the workers without noise, m at the server with it."""
    x, path = problem.x0, []
    v, g, m = ([torch.zeros_like(x) for _ in range(problem.n)] for _ in range(3))
    for t in range(1, T + 1):
        for i in range(problem.n):
            v[i] = (1 - eta_v) * v[i] + eta_v * problem.grad(i, t, x)
            k = clipped(v[i] - g[i], clip)
            g[i] = g[i] + eta_u * k
            lie = problem.lie(i, t, x)
            m[i] = m[i] + eta_u * (k + sigma * clip * problem.noise(i, t)) if lie is None else lie
        x = x - gamma * agg(m)
        path.append(x)
    return path
