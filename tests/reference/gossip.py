"""Mixers written from their papers, node by node in float64, for comparison with `byzopt.mixers`.

`x` `[H, d]` are the honest nodes, `hears[i]` what node i hears as (weight, row) pairs, honest ones first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import torch
from torch import Tensor

Heard = Sequence[tuple[float, Tensor]]
Summand = Callable[[list[tuple[float, Tensor]], float], Tensor]


def heard(weights: Tensor, rows: Tensor, lies: Tensor, per_receiver: bool) -> list[Heard]:
    """What each node hears, from the matrix `[H, H + B]` of weights."""
    h = len(rows)
    lists = []
    for i in range(h):
        told = [(float(weights[i, j]), rows[j]) for j in range(h) if weights[i, j] > 0]
        beside = [k for k in range(weights.shape[1] - h) if weights[i, h + k] > 0]
        told += [(float(weights[i, h + k]), lies[k, i] if per_receiver else lies[k]) for k in beside]
        lists.append(told)
    return lists


def step(x: Tensor, hears: Sequence[Heard], alpha: float, b: Sequence[float], summand: Summand) -> Tensor:
    """x_i + α F(y_ij - x_i)."""
    out = x.clone()
    for i, told in enumerate(hears):
        out[i] = x[i] + alpha * summand([(w, y - x[i]) for w, y in told], b[i])
    return out


def gossip(pairs: list[tuple[float, Tensor]], b: float) -> Tensor:
    """The plain sum."""
    return sum((w * z for w, z in pairs), torch.zeros_like(pairs[0][1]))


def cs_plus(pairs: list[tuple[float, Tensor]], b: float) -> Tensor:
    """Clip to the longest τ such that differences of no more than total - 2b are τ or shorter."""
    ranked = sorted(pairs, key=lambda pair: float(pair[1].norm()))
    total, so_far, tau = sum(w for w, _ in pairs), 0.0, 0.0
    for w, z in ranked:
        so_far += w
        if so_far <= total - 2 * b + 1e-9 * total:
            tau = float(z.norm())
    return _clipped(pairs, tau)


def gts(pairs: list[tuple[float, Tensor]], b: float) -> Tensor:
    """Leave out the longest of weight b."""
    out = torch.zeros_like(pairs[0][1])
    for w, z in _kept(pairs, b):
        out += w * z
    return out


def he(pairs: list[tuple[float, Tensor]], b: float) -> Tensor:
    """Clip at τ² = (1/b) Σ of all but the b longest."""
    tau = inf if b == 0 else (sum(w * float(z @ z) for w, z in _kept(pairs, b)) / b) ** 0.5
    return _clipped(pairs, tau)


def fixed(radius: float) -> Summand:
    """Clip at a radius."""
    return lambda pairs, b: _clipped(pairs, radius)


def oracle(honest: Sequence[int]) -> list[Summand]:
    """For each node: clip at τ² = (1/b) Σ over its honest neighbours, the first `honest[i]` pairs."""

    def of(count: int) -> Summand:
        def summand(pairs: list[tuple[float, Tensor]], b: float) -> Tensor:
            squares = sum(w * float(z @ z) for w, z in pairs[:count])
            return _clipped(pairs, inf if b == 0 else (squares / b) ** 0.5)

        return summand

    return [of(count) for count in honest]


def nna(x: Tensor, told: Heard, drop: int) -> Tensor:
    """The mean of a node's row and of all but the `drop` farthest that it hears."""
    ranked = sorted((row for _, row in told), key=lambda row: float((row - x).norm()))
    return torch.stack([x, *ranked[: max(0, len(ranked) - drop)]]).mean(dim=0)


def ubar(x: Tensor, told: Heard, share: float, alpha: float, loss: Callable[[Tensor], float]) -> Tensor:
    """(1 - α) x + α mean of the nearest ⌊share N⌋ whose loss is no larger than that at x."""
    rows = sorted((row for _, row in told), key=lambda row: float((row - x).norm()))
    near = rows[: max(1, int(share * len(rows) + 1e-9))]
    good = [row for row in near if loss(row) <= loss(x)] or [min(near, key=loss)]
    return (1 - alpha) * x + alpha * torch.stack(good).mean(dim=0)


def _kept(pairs: list[tuple[float, Tensor]], b: float) -> list[tuple[float, Tensor]]:
    room = sum(w for w, _ in pairs) - b
    found = []
    for w, z in sorted(pairs, key=lambda pair: float(pair[1].norm())):
        if room > 1e-12:
            found.append((min(w, room), z))
        room -= w
    return found


def _clipped(pairs: list[tuple[float, Tensor]], tau: float) -> Tensor:
    out = torch.zeros_like(pairs[0][1])
    for w, z in pairs:
        length = float(z.norm())
        out += w * (z if length <= tau else z * (tau / length))
    return out
