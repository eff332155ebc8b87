"""What attacks make of given honest rows."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from byzopt.attacks import Adversary, Attack
from byzopt.cohort import Cohort
from byzopt.rng import stream

HONEST = [[1.0, 4.0], [3.0, 0.0], [5.0, 2.0]]  # mean (3, 2), std (2, 2), with ddof 0 sqrt(8/3)
OWN = [[10.0, -20.0], [30.0, 40.0]]


def rows_of(honest: list[list[float]], own: list[list[float]], cohort: Cohort) -> Tensor:
    rows = torch.empty(cohort.n, len(honest[0]), dtype=torch.float64)
    rows[list(cohort.honest)] = torch.tensor(honest, dtype=torch.float64)
    rows[list(cohort.byzantine)] = torch.tensor(own, dtype=torch.float64)
    return rows


def forged(attack: Attack, honest: Any = HONEST, own: Any = OWN, t: int = 1, seed: int = 0) -> Tensor:
    """Rows that Byzantine workers 1 and 3 of five send in round t."""
    liars = tuple(range(1, 2 * len(own), 2))
    cohort = Cohort.of(len(honest) + len(own), liars)
    adversary = Adversary(attack, cohort, len(own))
    rows = rows_of(honest, own, cohort)
    x = torch.zeros(rows.shape[1], dtype=torch.float64)
    out, _ = adversary.forge_rows(adversary.start(x), t, x, rows, stream(seed), lambda r: r.mean(dim=0))
    return out[list(liars)]


def close(rows: Tensor, expected: Any) -> None:
    torch.testing.assert_close(rows, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


ROWS = st.integers(1, 6).flatmap(
    lambda d: st.tuples(
        st.lists(st.lists(st.floats(-100, 100), min_size=d, max_size=d), min_size=2, max_size=6),
        st.lists(st.lists(st.floats(-100, 100), min_size=d, max_size=d), min_size=1, max_size=3),
    ).filter(lambda rows: len(rows[1]) < len(rows[0]))
)
