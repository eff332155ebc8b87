"""Rules as they are usually written in torch, for `device.py`: a sort, or all distances, and whole copies.

The ways are those of ByzFL (all pairwise distances by `cdist`, neighbours gathered into an [n, n - f, d]
tensor, Weiszfeld steps over the rows), written anew; the answers are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Rule = Callable[[Tensor, int], Tensor]


def trimmed_mean(rows: Tensor, f: int) -> Tensor:
    return rows.sort(dim=0).values[f : len(rows) - f].mean(dim=0)


def meamed(rows: Tensor, f: int) -> Tensor:
    near = (rows - middle(rows)).abs().argsort(dim=0)[: len(rows) - f]
    return rows.gather(0, near).mean(dim=0)


def middle(rows: Tensor) -> Tensor:
    """The median; for an even number the mean of the middle two."""
    m = len(rows)
    return rows.sort(dim=0).values[(m - 1) // 2 : m // 2 + 1].mean(dim=0)


def multi_krum(rows: Tensor, f: int, count: int | None = None) -> Tensor:
    near = torch.cdist(rows, rows).square().sort(dim=1).values[:, 1 : len(rows) - f - 1]
    best = near.sum(dim=1).argsort()[: len(rows) - f if count is None else count]
    return rows[best].mean(dim=0)


def nnm(rows: Tensor, f: int) -> Tensor:
    near = torch.cdist(rows, rows).argsort(dim=1)[:, : len(rows) - f]
    return rows[near].mean(dim=1)


def smoothed_weiszfeld(rows: Tensor, f: int, steps: int = 8, least: float = 0.1) -> Tensor:
    z = torch.zeros_like(rows[0])
    for _ in range(steps):
        weights = 1 / torch.linalg.vector_norm(rows - z, dim=1).clamp_min(least)
        z = (rows * weights.unsqueeze(1)).sum(dim=0) / weights.sum()
    return z


def clipping(rows: Tensor, f: int) -> Tensor:
    z = torch.zeros_like(rows[0])
    for _ in range(3):
        apart = rows - z
        sizes = torch.linalg.vector_norm(apart, dim=1, keepdim=True)
        z = z + (apart * (100.0 / sizes).clamp_max(1.0)).mean(dim=0)
    return z


PLAIN: dict[str, Rule] = {
    "mean": lambda rows, f: rows.mean(dim=0),
    "median": lambda rows, f: middle(rows),
    "trimmed_mean": trimmed_mean,
    "meamed": meamed,
    "krum": lambda rows, f: multi_krum(rows, f, 1),
    "multi_krum": multi_krum,
    "rfa": smoothed_weiszfeld,
    "centered_clipping": clipping,
    "nnm >> krum": lambda rows, f: multi_krum(nnm(rows, f), f, 1),
    "nnm >> rfa": lambda rows, f: smoothed_weiszfeld(nnm(rows, f), f),
    "nnm >> median": lambda rows, f: middle(nnm(rows, f)),
    "nnm >> trimmed_mean": lambda rows, f: trimmed_mean(nnm(rows, f), f),
}
# Ways to the order statistics of n rows, of which plain torch could take another than the sort.
WAYS: dict[str, Callable[[Tensor], object]] = {
    "torch.sort": lambda rows: rows.sort(dim=0),
    "torch.median": lambda rows: rows.median(dim=0),
    "torch.kthvalue, twice": lambda rows: [rows.kthvalue(len(rows) // 2 + k, dim=0) for k in (0, 1)],
    "torch.topk, half": lambda rows: rows.topk(len(rows) // 2 + 1, dim=0),
    "torch.sort of columns as rows": lambda rows: rows.T.contiguous().sort(dim=1),
}
