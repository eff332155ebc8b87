"""Slow float64 twins of servers that hear one worker at a time: a list of events, and listings in words.

`Problem.grad(i, s, x)` is worker i's gradient on sample s at x, `service(i, c)` the time of its c-th job,
`lie(i, x)` what a liar sends when it is heard at the server's x, or None where i is honest. Answers at one
time are heard by number, and points are sent after all of them. Each listing below takes rows one by one:
`take(i, row, tau, point, x)` gives the step `g` of x <- x - γ g or None, and whether all begin anew.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor

Agg = Callable[[list[Tensor]], Tensor]


class Problem(NamedTuple):
    n: int
    f: int
    x0: Tensor
    gamma: float
    grad: Callable[[int, int, Tensor], Tensor]
    service: Callable[[int, int], float]
    lie: Callable[[int, Tensor], Tensor | None]


def walk(problem: Problem, listing: Any, steps: int) -> tuple[list[Tensor], list[int]]:
    """The server's iterates, and who was heard."""
    n, x, version, drawn, now = problem.n, problem.x0, 0, 0, 0.0
    path, heard = [], []
    events: list[tuple[float, int]] = []  # (when, who)
    jobs: dict[int, tuple[Tensor, int, int]] = {}  # point, version, sample
    count, waiting = [0] * n, list(range(n))
    while len(path) < steps:
        if not any(when == now for when, _ in events):
            for i in waiting:
                count[i] += 1
                jobs[i] = (x, version, drawn + 1)
                events.append((now + problem.service(i, count[i]), i))
            waiting = []
            now = min(when for when, _ in events)
        i = min(who for when, who in events if when == now)
        events.remove((now, i))
        waiting.append(i)
        point, began, sample = jobs[i]
        drawn = max(drawn, sample)
        row = problem.lie(i, x)
        row = problem.grad(i, sample, point) if row is None else row
        heard.append(i)
        g, restart = listing.take(i, row, version - began, point, x)
        if restart:
            events, waiting = [], list(range(n))
        if g is not None:
            x = x - problem.gamma * g
            version += 1
            path.append(x)
    return path, heard


class Buffer:
    """`size` rows, or with `unique` one of each of `size` workers, times (1 + τ)^-exponent."""

    def __init__(self, agg: Agg, size: int, unique: bool, exponent: float) -> None:
        self.agg, self.size, self.unique, self.exponent = agg, size, unique, exponent
        self.rows: list[tuple[int, Tensor]] = []

    def take(self, i: int, row: Tensor, tau: int, point: Tensor, x: Tensor) -> tuple[Tensor | None, bool]:
        if self.unique:
            self.rows = [(who, old) for who, old in self.rows if who != i]
        self.rows.append((i, row * (1 + tau) ** -self.exponent))
        if len(self.rows) < self.size:
            return None, False
        rows = [row for _, row in (sorted(self.rows, key=lambda p: p[0]) if self.unique else self.rows)]
        self.rows = []
        return self.agg(rows), False


class LastRows:
    """The rule on everybody's last row, once all but f were heard, divided by n."""

    def __init__(self, agg: Agg, n: int, f: int) -> None:
        self.agg, self.n, self.f, self.rows = agg, n, f, dict[int, Tensor]()

    def take(self, i: int, row: Tensor, tau: int, point: Tensor, x: Tensor) -> tuple[Tensor | None, bool]:
        self.rows[i] = row
        if len(self.rows) < self.n - self.f:
            return None, False
        return self.agg([self.rows[who] for who in sorted(self.rows)]) / self.n, False


class Boxes:
    """BASGD."""

    def __init__(self, agg: Agg, boxes: int) -> None:
        self.agg, self.boxes = agg, [list[Tensor]() for _ in range(boxes)]

    def take(self, i: int, row: Tensor, tau: int, point: Tensor, x: Tensor) -> tuple[Tensor | None, bool]:
        self.boxes[i % len(self.boxes)].append(row)
        if any(not box for box in self.boxes):
            return None, False
        means = [torch.stack(box).mean(dim=0) for box in self.boxes]
        self.boxes = [[] for _ in self.boxes]
        return self.agg(means), False


class Kardam:
    """Own growth against the quantile, nobody twice in 2 f + 1 rows that pass, 1/(1 + τ)."""

    def __init__(self, n: int, f: int) -> None:
        self.n, self.f = n, f
        self.last: dict[int, tuple[Tensor, Tensor]] = {}
        self.growth: dict[int, float] = {}
        self.passed: list[int] = []

    def take(self, i: int, row: Tensor, tau: int, point: Tensor, x: Tensor) -> tuple[Tensor | None, bool]:
        good = i not in self.last
        if i in self.last:
            old, place = self.last[i]
            if not torch.equal(place, point):
                self.growth[i] = float((row - old).norm() / (point - place).norm())
        self.last[i] = (row, point)
        if not good and i in self.growth:
            known = sorted(self.growth.values())
            good = self.growth[i] <= known[ceil(len(known) * (self.n - self.f) / self.n) - 1]
        if not good or (self.f and i in self.passed[-2 * self.f :]):
            return None, False
        self.passed.append(i)
        return row / (1 + tau), False


class ZenoPlusPlus:
    """Rows in the length of a trusted gradient, which is taken anew after `refresh` steps."""

    def __init__(self, trusted: Callable[[Tensor], Tensor], rho: float, eps: float, refresh: int) -> None:
        self.trusted, self.rho, self.eps, self.refresh = trusted, rho, eps, refresh
        self.v: Tensor | None = None
        self.age = 0

    def take(self, i: int, row: Tensor, tau: int, point: Tensor, x: Tensor) -> tuple[Tensor | None, bool]:
        if self.v is None or self.age >= self.refresh:
            self.v, self.age = self.trusted(x), 0
        u = row / row.norm() * self.v.norm()
        if float((self.v * u).sum()) - self.rho * float(u.norm()) ** 2 < -self.eps:
            return None, False
        self.age += 1
        return u, False


class Throttle:
    """First rows about a centre, further ones by q^-c; all begin anew when all have come."""

    def __init__(self, n: int, x0: Tensor, radius: float, bound: float, q: float) -> None:
        self.n, self.radius, self.bound, self.q = n, radius, bound, q
        self.a, self.terms, self.times = torch.zeros_like(x0), list[Tensor](), dict[int, int]()

    def take(self, i: int, row: Tensor, tau: int, point: Tensor, x: Tensor) -> tuple[Tensor | None, bool]:
        c = self.times.get(i, 0)
        self.times[i] = c + 1
        if c:
            return clipped(row, self.bound) / self.q**c, False
        self.terms.append(self.a + clipped(row - self.a, self.radius))
        g = self.terms[-1] / self.n
        if len(self.times) < self.n:
            return g, False
        self.a = clipped(sum(self.terms) / self.n, self.bound)
        self.terms, self.times = [], {}
        return g, True


def clipped(v: Tensor, radius: float) -> Tensor:
    length = float(v.norm())
    return v if length <= radius else v * (radius / length)
