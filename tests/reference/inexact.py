"""Slow float64 twins of the accelerated and similarity methods, straight from their listings.

`oracle(point)` is the robust gradient g; every function returns the list of answers x_1, x_2, ...
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np

Vector = np.ndarray
Oracle = Callable[[Vector], Vector]
Prox = Callable[[Vector, Vector, float], Vector]  # (centre, g, eta) -> exact minimiser of phi


def gd(x: Vector, oracle: Oracle, lr: float, steps: int) -> list[Vector]:
    path = []
    for _ in range(steps):
        x = x - lr * oracle(x)
        path.append(x)
    return path


def released_nag(x: Vector, oracle: Oracle, lr: float, beta: float, steps: int) -> list[Vector]:
    v, path = np.zeros_like(x), []
    for _ in range(steps):
        g = oracle(x)
        v = beta * v + g
        x = x - lr * (g + beta * v)
        path.append(x)
    return path


def two_sequence_nag(x: Vector, oracle: Oracle, lr: float, beta: float, steps: int) -> list[Vector]:
    """w_{k+1} = x_k - lr g_k, x_{k+1} = w_{k+1} + beta (w_{k+1} - w_k), w_0 = x_0."""
    w, path = x, []
    for _ in range(steps):
        after = x - lr * oracle(x)
        x, w = after + beta * (after - w), after
        path.append(x)
    return path


def three_sequence_nag(
    x: Vector, oracle: Oracle, big_l: float, mu: float, tau: float, steps: int
) -> list[Vector]:
    z, eta, path = x, 2 * tau / mu, []
    for _ in range(steps):
        y = tau * z + (1 - tau) * x
        g = oracle(y)
        x = y - g / big_l
        z = z + 2 * tau * (y - z) - eta * g
        path.append(x)
    return path


def aeg(
    x: Vector,
    oracle: Oracle,
    theta: float,
    gamma: float,
    tau_factor: float,
    fast_factor: float,
    steps: int,
    prox: Prox | None = None,
) -> list[Vector]:
    """With `prox` the slow step is the similarity subproblem: AEG-prox."""
    z, path = x, []
    tau = min(1, sqrt(theta * gamma / 2) * tau_factor)
    eta = min(1 / (2 * gamma), theta / (2 * tau) * fast_factor)
    b = gamma * eta
    for _ in range(steps):
        y = tau * z + (1 - tau) * x
        g = oracle(y)
        x = y - theta * g if prox is None else prox(y, g, theta)
        z = z + b * (x - z) - eta * oracle(x)
        path.append(x)
    return path


def pigs(x: Vector, oracle: Oracle, eta: float, prox: Prox, steps: int) -> list[Vector]:
    path = []
    for _ in range(steps):
        x = prox(x, oracle(x), eta)
        path.append(x)
    return path


def quadratic_prox(hessian: Vector) -> Prox:
    """For q with this constant Hessian: x - (H + I/eta)^{-1} g."""

    def prox(centre: Vector, g: Vector, eta: float) -> Vector:
        return centre - np.linalg.solve(hessian + np.eye(len(g)) / eta, g)

    return prox
