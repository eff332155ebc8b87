"""Many sets of rows through one rule at once: what the rounds of many small runs need.

Sets are small, so that Python and not arithmetic is the cost; products are float64, as for one small set.
Sets that have to be looked at (NaN, Inf, extreme values) are left to one call each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.certificate import Nearness, Source, nearness
from byzopt.aggregators.geometry import Geometry, Origin
from byzopt.aggregators.measuring import SMALL, close_pairs, far_pivots, ordinary
from byzopt.aggregators.selection import answer
from byzopt.kernels import Plan

if TYPE_CHECKING:
    from byzopt.aggregators.base import PreAggregator, Stage
    from byzopt.theory.robustness import Coefficients

_LARGEST = {torch.float32: 1e30, torch.float64: 1e100}  # magnitudes that need no other unit or dtype


def together(stages: tuple[PreAggregator, ...], rule: Stage, rows: Tensor) -> Tensor | None:
    """The aggregates `[R, d]` of rows `[R, n, d]` on the CPU; None if they should be called one by one.

    `rule` has `weights(geometry)` or `plan(m)`; all recipes have been checked with their numbers of rows.
    """
    if not _plain(stages, rule, rows):
        return None
    ranks = getattr(rule, "plan", None)
    if ranks and not stages:
        return _ranked(rows, ranks)
    behind = geometries(stages, rows)
    if behind is None:
        return None
    geometry, mixing, _ = behind
    if ranks:
        assert mixing is not None
        return _ranked(mixing.to(rows) @ rows, ranks)
    weights: Tensor = rule.weights(geometry).unsqueeze(-2)  # type: ignore[attr-defined]
    return ((weights if mixing is None else weights @ mixing).to(rows) @ rows).squeeze(-2)


def near_together(
    stages: tuple[PreAggregator, ...],
    rule: Stage,
    rows: Tensor,
    f: int,
    whole: Callable[[Coefficients], Coefficients],
) -> Nearness | None:
    """How near each answer comes to the median of the rows that reach `rule`; f of `rows` are faulty.

    None where `rule` has no `weights(geometry)`, and where `together` has none.
    """
    weights = getattr(rule, "weights", None)
    if weights is None or not _plain(stages, rule, rows):
        return None
    behind = geometries(stages, rows)
    if behind is None:
        return None
    geometry, mixing, first = behind
    source = Source(first, None if mixing is None else mixing.numpy(), f, whole)
    return nearness(geometry, weights(geometry).numpy(), geometry.m, source)


def _plain(stages: tuple[PreAggregator, ...], rule: Stage, rows: Tensor) -> bool:
    """Whether the sets `[R, n, d]` go through all stages at once, for all that a look at them shows."""
    sets, n, d = rows.shape
    if sets < 2 or n * d > SMALL or rows.device.type != "cpu" or rows.dtype not in _LARGEST:
        return False
    every = all(stage.batched for stage in (*stages, rule))
    return every and float(rows.abs().amax()) < _LARGEST[rows.dtype]


def geometries(
    stages: tuple[PreAggregator, ...], rows: Tensor
) -> tuple[Geometry, Tensor | None, Geometry] | None:
    """The stacked geometry of rows `[R, n, d]` behind all stages, their mixing `[R, m, n]`, and the geometry
    before all; None where a set is extreme."""
    first = geometry = _geometry(rows.double())
    if geometry is None or first is None:
        return None
    mixing: Tensor | None = None
    for stage in stages:
        matrix = stage.mixing(geometry)
        geometry = geometry.mixed(matrix, stage.affine)
        mixing = matrix if mixing is None else matrix @ mixing
    return geometry, mixing, first


def _ranked(rows: Tensor, ranks: Callable[[int], Plan]) -> Tensor:
    sets, m, d = rows.shape
    return answer(rows.transpose(0, 1).reshape(m, -1), ranks(m)).view(sets, d)


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
