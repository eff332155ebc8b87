"""Slow float64 twins of Byz-DM21 and its family: one worker after the other, straight from the listings.

A problem is three functions of the round t from 1: `grad(i, t, x)` on worker i's sample, `full(i, x)`, and
`coin(t)`. A compressor is a function of (row, i, t). `Agg` takes a list of rows. `lie(i, t, rows)` gives a
Byzantine worker's row, from all workers' rows, or None where i is honest: the server believes it as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Row = Tensor
Press = Callable[[Row, int, int], Row]


class Problem(NamedTuple):
    n: int
    x0: Row
    grad: Callable[[int, int, Row], Row]
    full: Callable[[int, Row], Row]
    coin: Callable[[int], bool] = lambda t: False


class Server(NamedTuple):
    gamma: float
    agg: Callable[[list[Row]], Row]
    lie: Callable[[int, int, list[Row]], Row | None] = lambda i, t, rows: None


def top(row: Row, k: int) -> Row:
    """The k largest magnitudes, of equal ones the lowest index."""
    order = sorted(range(len(row)), key=lambda j: (-abs(float(row[j])), j))
    kept = torch.zeros_like(row)
    for j in order[:k]:
        kept[j] = row[j]
    return kept


def _believed(server: Server, t: int, rows: list[Row]) -> list[Row]:
    lies = [server.lie(i, t, rows) for i in range(len(rows))]
    return [row if lie is None else lie for row, lie in zip(rows, lies, strict=True)]


def dm21(
    problem: Problem, server: Server, C: Press, eta_v: float, eta_u: float, T: int, vr: bool = False
) -> list[Row]:
    """Sections 2 and 3, start v = u = s, g = C(u). The iterates after rounds 1 .. T."""
    x, old, path = problem.x0, problem.x0, []
    v: list[Row] = []
    u: list[Row] = []
    g: list[Row] = []
    for t in range(1, T + 1):
        for i in range(problem.n):
            s = problem.grad(i, t, x)
            if t == 1:
                v.append(s)
                u.append(s)
                g.append(C(s, i, t))
                continue
            if vr:
                v[i] = s + (1 - eta_v) * (v[i] - problem.grad(i, t, old))
            else:
                v[i] = (1 - eta_v) * v[i] + eta_v * s
            u[i] = (1 - eta_u) * u[i] + eta_u * v[i]
            g[i] = g[i] + C(u[i] - g[i], i, t)
        old = x
        x = x - server.gamma * server.agg(_believed(server, t, g))
        path.append(x)
    return path


def sgdm(problem: Problem, server: Server, C: Press, eta: float, T: int) -> list[Row]:
    """Byz-EF21-SGDM, v = s and g = C(v) first."""
    x, path = problem.x0, []
    v: list[Row] = []
    g: list[Row] = []
    for t in range(1, T + 1):
        for i in range(problem.n):
            s = problem.grad(i, t, x)
            if t == 1:
                v.append(s)
                g.append(C(s, i, t))
                continue
            v[i] = (1 - eta) * v[i] + eta * s
            g[i] = g[i] + C(v[i] - g[i], i, t)
        x = x - server.gamma * server.agg(_believed(server, t, g))
        path.append(x)
    return path


def ef21(
    problem: Problem, server: Server, C: Press, T: int, down: Press | None = None, raw: bool = False
) -> list[Row]:
    """Byz-EF21 with g = C(∇f_i(x^0)), or ∇f_i(x^0) itself if `raw`; with `down` the two-way form."""
    x, w, path = problem.x0, problem.x0, []
    g = [torch.zeros_like(x) for _ in range(problem.n)]
    for t in range(1, T + 1):
        w = x if down is None else w + down(x - w, 0, t)
        for i in range(problem.n):
            news = problem.full(i, w) - g[i]
            g[i] = g[i] + (news if raw and t == 1 else C(news, i, t))
        x = x - server.gamma * server.agg(_believed(server, t, g))
        path.append(x)
    return path


class Buffers(NamedTuple):
    """A released worker's averages, its g, its message, and the g that the server adds it to."""

    top: Row
    second: Row
    grads: Row
    diff: Row
    stored: Row


Start = Callable[[Row, float, Press], Buffers]


def double_start(s: Row, m: float, C: Press) -> Buffers:
    """The first round of `DoubleMomentumWorker` (released with arXiv:2603.15144)."""
    return Buffers(s, s, s, torch.zeros_like(s), torch.zeros_like(s))


def vr_double_start(s: Row, m: float, C: Press) -> Buffers:
    """The first round of `VRDoubleMomentumWorker` (released with arXiv:2603.15144)."""
    top = (1 - m) * s
    second = (1 - m) * top
    grads = C(second, 0, 1)
    return Buffers(top, second, grads, grads, torch.zeros_like(s))


def top_start(s: Row, m: float, C: Press) -> Buffers:
    """The first round of `TopMomentumWorker` for images (released with arXiv:2409.08640)."""
    return Buffers(s, s, s, torch.zeros_like(s), torch.zeros_like(s))


def release(
    problem: Problem,
    gamma: float,
    agg: Callable[[list[Row]], Row],
    C: Press,
    method: str,
    start: Start,
    m: float,
    T: int,
    byzantine: int,
    lie: Callable[[list[Row]], Row] | None,
) -> list[Row]:
    """The released worker and server, in the order in which the released trainer calls them.

    `m` is the released momentum. The server is handed each honest worker's g before this round beside its
    message, and adds every liar's message to the last honest worker's. `byz_dm21` is the released class
    without its correction by the gradient at the old point, which the release does not have.
    """
    x, old, path = problem.x0, problem.x0, []
    workers: list[Buffers] = []
    for t in range(1, T + 1):
        for i in range(problem.n - byzantine):
            s = problem.grad(i, t, x)
            if t == 1:
                workers.append(start(s, m, C))
                continue
            top, second, grads, _, _ = workers[i]
            top = m * top + (1 - m) * s
            if method == "byz_vr_dm21":
                top = top + m * (s - problem.grad(i, t, old))
            second = top if method == "byz_ef21_sgdm" else m * second + (1 - m) * top
            diff = C(second - grads, i, t)
            workers[i] = Buffers(top, second, grads + diff, diff, grads)
        diffs = [worker.diff for worker in workers]
        rows = [worker.stored + worker.diff for worker in workers]
        rows += [workers[-1].stored + lie(diffs) for _ in range(byzantine) if lie]
        old, x = x, x - gamma * agg(rows)
        path.append(x)
    return path


def csgd(problem: Problem, server: Server, Q: Press, T: int) -> list[Row]:
    """m_i = Q(s_i)."""
    x, path = problem.x0, []
    for t in range(1, T + 1):
        rows = [Q(problem.grad(i, t, x), i, t) for i in range(problem.n)]
        x = x - server.gamma * server.agg(_believed(server, t, rows))
        path.append(x)
    return path


def diana(problem: Problem, server: Server, Q: Press, beta: float, T: int) -> list[Row]:
    """m_i = Q(s_i - h_i), row h_i + m_i, h_i += β m_i."""
    x, path = problem.x0, []
    h = [torch.zeros_like(x) for _ in range(problem.n)]
    for t in range(1, T + 1):
        rows = []
        for i in range(problem.n):
            m = Q(problem.grad(i, t, x) - h[i], i, t)
            rows.append(h[i] + m)
            h[i] = h[i] + beta * m
        x = x - server.gamma * server.agg(_believed(server, t, rows))
        path.append(x)
    return path


def error_feedback(problem: Problem, server: Server, C: Press, T: int) -> list[Row]:
    """q_i = s_i + e_i, c_i = C(q_i), e_i = q_i - c_i, row c_i."""
    x, path = problem.x0, []
    e = [torch.zeros_like(x) for _ in range(problem.n)]
    for t in range(1, T + 1):
        rows = []
        for i in range(problem.n):
            q = problem.grad(i, t, x) + e[i]
            rows.append(C(q, i, t))
            e[i] = q - rows[i]
        x = x - server.gamma * server.agg(_believed(server, t, rows))
        path.append(x)
    return path


def marina(
    problem: Problem, server: Server, Q: Press, T: int, own_base: bool, whole: bool = False
) -> list[Row]:
    """MARINA (1), or 2.0 with `own_base`; differences of full gradients with `whole`."""
    x, old, last, path = problem.x0, problem.x0, torch.zeros_like(problem.x0), []
    g = [torch.zeros_like(x) for _ in range(problem.n)]
    for t in range(1, T + 1):
        rows = []
        for i in range(problem.n):
            if t == 1 or problem.coin(t):
                rows.append(problem.full(i, x))
            else:

                def at(y: Row, i: int = i, t: int = t) -> Row:
                    return problem.full(i, y) if whole else problem.grad(i, t, y)

                rows.append((g[i] if own_base else last) + Q(at(x) - at(old), i, t))
            g[i] = rows[i]
        last = server.agg(_believed(server, t, rows))
        old, x = x, x - server.gamma * last
        path.append(x)
    return path


def dasha(problem: Problem, server: Server, Q: Press, a: float, T: int) -> list[Row]:
    """DASHA-PAGE, g_i = h_i = ∇f_i(x^0) first."""
    x, old, path = problem.x0, problem.x0, []
    h = [problem.full(i, x) for i in range(problem.n)]
    g = list(h)
    for t in range(1, T + 1):
        for i in range(problem.n) if t > 1 else ():
            if problem.coin(t):
                new = problem.full(i, x)
            else:
                new = h[i] + (problem.grad(i, t, x) - problem.grad(i, t, old))
            g[i] = g[i] + Q(new - h[i] - a * (g[i] - h[i]), i, t)
            h[i] = new
        old, x = x, x - server.gamma * server.agg(_believed(server, t, g))
        path.append(x)
    return path


def lsvrg(problem: Problem, server: Server, T: int) -> list[Row]:
    """∇ℓ(x) - ∇ℓ(w) + ∇f_i(w); w <- x when the coin falls. Round 1 is at w = x^0."""
    x, w, path = problem.x0, problem.x0, []
    for t in range(1, T + 1):
        rows = [problem.grad(i, t, x) - problem.grad(i, t, w) + problem.full(i, w) for i in range(problem.n)]
        if t > 1 and problem.coin(t):
            w = x
        x = x - server.gamma * server.agg(_believed(server, t, rows))
        path.append(x)
    return path


def storm(problem: Problem, server: Server, eta: float, T: int) -> list[Row]:
    """v_i <- s_i + (1 - η)(v_i - s'_i), row v_i."""
    x, old, path = problem.x0, problem.x0, []
    v: list[Row] = []
    for t in range(1, T + 1):
        for i in range(problem.n):
            s = problem.grad(i, t, x)
            if t == 1:
                v.append(s)
            else:
                v[i] = s + (1 - eta) * (v[i] - problem.grad(i, t, old))
        old, x = x, x - server.gamma * server.agg(_believed(server, t, v))
        path.append(x)
    return path
