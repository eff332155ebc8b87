"""What attackers remember of their own messages, for late and repeated ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.cohort import Cohort
from byzopt.linalg import compute_dtype

MOST = 1 << 20  # rounds that a delay may have: each is remembered


class Past(NamedTuple):
    """Own messages `[b, d]` of the latest rounds, oldest first. Before the run they are zeros."""

    rows: tuple[Tensor, ...]


def empty_past(cohort: Cohort, x: Tensor, length: int) -> Past:
    """A memory of `length` rounds without any; its entries share one tensor."""
    shape = (len(cohort.byzantine), x.numel())
    return Past((torch.zeros(shape, dtype=compute_dtype(x.dtype), device=x.device),) * length)


def delayed(past: Past, own: Tensor, t: int) -> tuple[Tensor, Past]:
    """The own message of `len(past.rows)` rounds ago (this round's while there is none); the memory after."""
    late = past.rows[0] if t > len(past.rows) else own
    return late, Past((*past.rows[1:], own))
