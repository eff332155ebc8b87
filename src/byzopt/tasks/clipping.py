"""Gradients of single samples, clipped before their mean is taken."""

from __future__ import annotations

from collections.abc import Callable
from warnings import warn

import torch
from torch import Tensor

from byzopt import linalg

FLOATS = 1 << 24  # numbers of samples' gradients that are held at a time


def mean_of_clipped(
    gradients: Callable[[Tensor, Tensor, int], Tensor],
    inputs: Tensor,
    targets: Tensor,
    radius: float,
    x: Tensor,
    over: int | None = None,
) -> Tensor:
    """The sum `[d]` of samples' gradients at `x` `[d]`, each clipped to the length `radius`, divided by
    `over`, or by their number. Of no samples it is 0.

    `gradients(inputs, targets, first)` gives `[k, d]`, a row for each of some samples `[k, ...]`, of which
    `first` is the place of the first one.
    """
    most = max(1, FLOATS // len(x))
    total = torch.zeros_like(x)
    for first in range(0, len(inputs), most):
        part = slice(first, first + most)
        total = total + clipped(gradients(inputs[part], targets[part], first), radius).sum(dim=0)
    return total / (over or max(1, len(inputs)))


def clipped(rows: Tensor, radius: float) -> Tensor:
    """Gradients of samples `[k, d]`, each clipped to the length `radius`. Those that are not finite, which no
    clipping bounds, are zeros, and a warning says how many."""
    rows, bad = linalg.clip_all(rows, radius)
    if bad.any():
        warn(
            f"{int(bad.sum())} gradients of single samples are not finite, and count as zeros.", stacklevel=2
        )
    return rows


def sizes(counts: list[int], like: Tensor) -> Tensor:
    """Numbers of samples `[n]` beside rows."""
    return torch.tensor(counts, dtype=like.dtype, device=like.device)
