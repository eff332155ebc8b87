"""Slow float64 twins of methods for samples of the workers: one worker after the other, from the listings.

`grad(i, t, x)` is worker i's gradient on round t's sample, `full(i, x)` its whole one; `here(t)` the workers
that take part in round t; `lie(i, t, x)` a liar's row, or None where i is honest. `Agg` takes a list of rows.
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
    full: Callable[[int, Tensor], Tensor]
    here: Callable[[int], list[int]]
    lie: Callable[[int, int, Tensor], Tensor | None]
    coin: Callable[[int], bool] = lambda t: False


def clipped(v: Tensor, radius: float) -> Tensor:
    length = float(v.norm())
    return v if length <= radius else v * (radius / length)


def marina_pp(
    problem: Problem, agg: Agg, gamma: float, a: float, T: int, whole: bool = False
) -> list[Tensor]:
    """Byz-VR-MARINA-PP: the server clips what a client sends between rounds of the coin."""
    x, old, g, path = problem.x0, problem.x0, torch.zeros_like(problem.x0), []
    for t in range(1, T + 1):
        full, sent = t == 1 or problem.coin(t), []
        for i in problem.here(t):
            if full:
                row = problem.full(i, x)
            elif whole:
                row = problem.full(i, x) - problem.full(i, old)
            else:
                row = problem.grad(i, t, x) - problem.grad(i, t, old)
            lie = problem.lie(i, t, x)
            if lie is not None:
                row = lie if full else lie - g  # what it wants the server to believe
            sent.append(row if full else clipped(row, a * float((x - old).norm())))
        g = agg(sent) if full else g + agg(sent)
        old, x = x, x - gamma * g
        path.append(x)
    return path


def demoa(problem: Problem, agg: Agg, gamma: float, eta: float, p: float, T: int, kept: bool) -> list[Tensor]:
    """DeMoA, and with `kept` the recursion of the paper's first version."""
    x, path = problem.x0, []
    m = [torch.zeros_like(x) for _ in range(problem.n)]  # at the workers
    held = [torch.zeros_like(x) for _ in range(problem.n)]  # at the server
    for t in range(1, T + 1):
        here = problem.here(t)
        for i in range(problem.n):
            if i in here:
                s = problem.grad(i, t, x)
                m[i] = (1 - (eta if kept else eta * p)) * m[i] + eta * s
                lie = problem.lie(i, t, x)
                held[i] = m[i] if lie is None else lie
            elif not kept:
                m[i] = (1 - eta * p) * m[i]
                held[i] = (1 - eta * p) * held[i]
        x = x - gamma * agg(held)
        path.append(x)
    return path


def rosdhb(
    problem: Problem, agg: Agg, gamma: float, eta: float, kept: Callable[[int], Tensor], T: int
) -> list[Tensor]:
    """RoSDHB: `kept(t)` are the coordinates of round t, a mask `[d]`; the averages are the server's."""
    x, path = problem.x0, []
    m = [torch.zeros_like(x) for _ in range(problem.n)]
    for t in range(1, T + 1):
        mask = kept(t)
        for i in range(problem.n):
            row = torch.zeros_like(x)
            row[mask] = problem.grad(i, t, x)[mask] * (len(x) / int(mask.sum()))
            lie = problem.lie(i, t, x)
            m[i] = (1 - eta) * m[i] + eta * (row if lie is None else lie)
        x = x - gamma * agg(m)
        path.append(x)
    return path


def clipped_changes(problem: Problem, agg: Agg, gamma: float, a: float, T: int) -> list[Tensor]:
    """Heuristic (10) on plain gradients of those who came."""
    x, old, g, path = problem.x0, problem.x0, torch.zeros_like(problem.x0), []
    for t in range(1, T + 1):
        rows = []
        for i in problem.here(t):
            lie = problem.lie(i, t, x)
            rows.append(problem.grad(i, t, x) if lie is None else lie)
        radius = a * float((x - old).norm())
        g = agg(rows) if t == 1 else g + agg([clipped(row - g, radius) for row in rows])
        old, x = x, x - gamma * g
        path.append(x)
    return path
