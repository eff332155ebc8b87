"""Strategies of liars, and rounds of rows in which they use them: for guards and watches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from byzopt.rng import stream

Rows = list[Tensor]  # of all rounds
Lie = Callable[[Tensor, int, int, Tensor], None]  # (rows of the round, f, t, sums so far): the last f change


def honest(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    """Does nothing."""


def copy(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    rows[-f:] = rows[0]


def copy_with_noise(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    rows[-f:] = rows[0] + 0.1 * rows[-f:]


def copy_in_turn(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    rows[-f:] = rows[t % (len(rows) - f)]


def copy_two(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    rows[-f:] = rows[torch.arange(f) % 2]


def copy_the_farthest(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    """In sums, so that one victim stays."""
    rows[-f:] = rows[int((sums[:-f] - sums[:-f].mean(dim=0)).norm(dim=1).argmax())]


def between(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    """Where two honest rows meet: whoever is not of these two seems remote."""
    rows[-f:] = (rows[0] + rows[1]) / 2


def shadow(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    """Always opposite one victim, so that its sum is the remote one."""
    rest = rows[1:-f].mean(dim=0)
    rows[-f:] = rest + (rest - rows[0])


def at_the_mean(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    """Without noise, so that the honest seem wild."""
    rows[-f:] = rows[:-f].mean(dim=0)


def straddle(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    """Sums beside those of a victim, on the side away from the others."""
    way = torch.nn.functional.normalize(sums[0] - sums[:-f].mean(dim=0), dim=0)
    rows[-f:] = sums[0] + rows[0] + 2 * t**0.5 * way - sums[-f:]


def alternate(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    if t % 2:
        rows[-f:] = rows[:-f].mean(dim=0) + 3


def sleeper(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    if t > 60:
        rows[-f:] = -5 * rows[:-f].mean(dim=0) + 2


def together(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    rows[-f:, 0] += 3


def wild(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    rows[-f:] *= 1e6


def huge_in_every_third(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    if t % 3 == 0:
        rows[-f:] = 1e6


LIES: list[Lie] = [
    copy,
    copy_with_noise,
    copy_in_turn,
    copy_two,
    copy_the_farthest,
    between,
    shadow,
    at_the_mean,
    straddle,
    alternate,
    sleeper,
    together,
    wild,
    huge_in_every_third,
]


def drawn(law: str, n: int, d: int, t: int, seed: int) -> Tensor:
    """Honest rows: one distribution, of any law."""
    generator = stream(seed, "accusing", t)
    rows = torch.randn(n, d, dtype=torch.float64, generator=generator)
    if law == "heavy":  # of no variance
        rows /= torch.randn(n, 1, dtype=torch.float64, generator=generator).abs()
    if law == "line":
        rows = rows[:, :1].repeat(1, d)
    if law == "two kinds":  # a rare sample is a hundred times the usual one
        rows *= 1 + 99 * (torch.rand(n, 1, dtype=torch.float64, generator=generator) < 0.03)
    if law == "fading":
        rows *= 0.97**t
    return rows


def rounds_of(
    lie: Lie, n: int, f: int, d: int, last: int, law: str = "normal", seed: int = 0
) -> list[Tensor]:
    """Rows of all rounds; their common mean moves."""
    sums, made = torch.zeros(n, d, dtype=torch.float64), []
    for t in range(1, last + 1):
        rows = drawn(law, n, d, t, seed)
        lie(rows, f, t, sums)
        sums = sums + rows
        made.append(rows + 10 / t)
    return made
