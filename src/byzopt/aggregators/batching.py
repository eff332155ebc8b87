"""Many sets of rows through one rule at once: what the rounds of many small runs need.

Sets are small, so that Python and not arithmetic is the cost; products are float64, as for one small set.
Sets that have to be looked at (NaN, Inf, extreme values) are left to one call each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.geometry import Geometry, Origin
from byzopt.aggregators.measuring import SMALL, close_pairs, far_pivots, ordinary
from byzopt.aggregators.selection import answer

if TYPE_CHECKING:
    from byzopt.aggregators.base import PreAggregator, Stage

_LARGEST = {torch.float32: 1e30, torch.float64: 1e100}  # magnitudes that need no other unit or dtype


def together(stages: tuple[PreAggregator, ...], rule: Stage, rows: Tensor) -> Tensor | None:
    """The aggregates `[R, d]` of rows `[R, n, d]` on the CPU; None if they should be called one by one.

    `rule` has `weights(geometry)` or `plan(m)`; all recipes have been checked with their numbers of rows.
    """
    sets, n, d = rows.shape
    simple = rows.device.type == "cpu" and rows.dtype in _LARGEST and all(s.batched for s in (*stages, rule))
    if sets < 2 or n * d > SMALL or not simple or not float(rows.abs().amax()) < _LARGEST[rows.dtype]:
        return None
    ranks = getattr(rule, "plan", None)
    geometry = None if ranks and not stages else _geometry(rows.double())
    mixing: Tensor | None = None
    if geometry is None and not (ranks and not stages):
        return None
    for stage in stages:
        assert geometry is not None
        matrix = stage.mixing(geometry)
        geometry = geometry.mixed(matrix, stage.affine)
        mixing = matrix if mixing is None else matrix @ mixing
    if ranks:
        mixed = rows if mixing is None else mixing.to(rows) @ rows
        m = mixed.shape[-2]
        return answer(mixed.transpose(0, 1).reshape(m, -1), ranks(m)).view(sets, d)
    weights: Tensor = rule.weights(geometry).unsqueeze(-2)  # type: ignore[attr-defined]
    return ((weights if mixing is None else weights @ mixing).to(rows) @ rows).squeeze(-2)


def _geometry(rows: Tensor) -> Geometry | None:
    """The stacked geometry of float64 rows `[R, n, d]`; None where a set is extreme."""
    sets, n, _ = rows.shape
    each, pivot = np.arange(sets), np.zeros(sets, dtype=np.intp)
    for _ in range(n):
        about = rows - rows[each, pivot].unsqueeze(1)
        product = about @ about.mT
        better = far_pivots(product, pivot)
        if (better == pivot).all():
            break
        pivot = better
    product = _equated(rows, (product + product.mT) / 2)
    if not ordinary(product.diagonal(dim1=-2, dim2=-1)):
        return None
    return Geometry(n, lambda: product, _without_origin)


def _equated(rows: Tensor, product: Tensor) -> Tensor:
    """Products `[R, n, n]` with equal rows made equal to the last bit."""
    at, later, earlier = close_pairs(product).unbind(1)
    equal = (rows[at, later] == rows[at, earlier]).all(dim=-1)
    kind = np.tile(np.arange(product.shape[-1]), (len(rows), 1))
    np.minimum.at(kind, (at[equal].numpy(), later[equal].numpy()), earlier[equal].numpy())
    gram = np.take_along_axis(product.numpy(), kind[..., :, None], axis=-2)
    return torch.from_numpy(np.take_along_axis(gram, kind[..., None, :], axis=-1))


def _without_origin() -> Origin:
    raise NotImplementedError("stages that need lengths about the origin are not batched")
