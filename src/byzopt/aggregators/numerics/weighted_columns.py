"""Order statistics of rows that count with a weight each, as if every row came that many times."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.kernels import TIE

_ROUNDING = 1e-12  # of the whole weight: less than this is a rounding error of a sum of weights


def ranked(block: Tensor, row_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Each column in order, and the weight held up to and with each value: `[m, b]` both."""
    values, order = block.sort(dim=0, stable=True)
    return values, row_weights.to(block.device)[order].cumsum(dim=0)


def weighted_median(values: Tensor, held: Tensor) -> Tensor:
    """Values at which half of the weight is reached, and passed; their midpoint. Of `ranked` columns."""
    half = held[-1] / 2
    low = (held < half * (1 - _ROUNDING)).sum(dim=0, keepdim=True)
    high = (held <= half * (1 + _ROUNDING)).sum(dim=0, keepdim=True).clamp_max(len(held) - 1)
    return (values.gather(0, low) + values.gather(0, high))[0] / 2


def weighted_window(values: Tensor, held: Tensor, start: float, end: float) -> Tensor:
    """The mean of the values whose weight lies in start .. end of what is held; a value may count in part."""
    before = torch.cat([torch.zeros_like(held[:1]), held[:-1]])
    kept = held.clamp_max(end) - before.clamp_min(start)
    kept = kept.where(kept > _ROUNDING * end, 0).to(values.dtype)  # rounding times 1e30 would be huge
    return (kept * values).sum(dim=0) / kept.sum(dim=0)


def weighted_trimmed_mean(values: Tensor, held: Tensor, cut: float) -> Tensor:
    """The mean without the weight `cut` at either end."""
    return weighted_window(values, held, cut, float(held[-1, 0]) - cut)


def weighted_mean_around(
    block: Tensor, row_weights: Tensor, cut: float, centre: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The mean of the weight, less `cut`, that lies nearest to `centre`; ties go to the smaller value."""
    values, order = block.sort(dim=0, stable=True)
    ordered = row_weights.to(block.device)[order]
    near = (values - centre(values, ordered.cumsum(dim=0))).abs().argsort(dim=0, stable=True)
    held = ordered.gather(0, near).cumsum(dim=0)
    return weighted_window(values.gather(0, near), held, 0.0, float(row_weights.sum()) - cut)


def weighted_upper_median(values: Tensor, row_weights: Tensor) -> Tensor:
    """For each row of `values` `[..., m]`, the value at which more than half of the weight is reached."""
    ordered, order = values.sort(dim=-1, stable=True)
    held = row_weights[order].cumsum(dim=-1)
    half = float(row_weights.sum()) / 2 * (1 + _ROUNDING)
    at = (held <= half).sum(dim=-1, keepdim=True).clamp_max(len(row_weights) - 1)
    return ordered.gather(-1, at).squeeze(-1)


def weighted_bulk(geometry: Geometry, row_weights: Tensor) -> Tensor:
    """Weights `[m]` of the mean of a majority of the weight around the row that has the tightest one.

    Ties as in `Geometry.bulk`.
    """
    radii = weighted_upper_median(geometry.sq_dists, row_weights) * (1 + TIE)
    best = radii <= radii.min() * (1 + TIE)
    inside = torch.where(geometry.sq_dists[best] <= radii[best].unsqueeze(1), row_weights, 0)
    return (inside / inside.sum(dim=1, keepdim=True)).mean(dim=0)
