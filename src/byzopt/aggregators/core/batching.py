"""Many sets of rows through one rule at once: what the rounds of many small runs need.

Sets are small, so that Python and not arithmetic is the cost; products are float64, as for one small set.
Sets that have to be looked at (NaN, Inf, extreme values) are left to one call each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from byzopt import accelerator, linalg
from byzopt.aggregators.core.certificate import ChainInput, Nearness, nearness
from byzopt.aggregators.core.mixing import MixingStage
from byzopt.aggregators.core.stage import Stage
from byzopt.aggregators.numerics.distances import within_range
from byzopt.aggregators.numerics.geometry import Geometry, Origin
from byzopt.aggregators.numerics.measuring import SMALL, close_pairs, far_pivots
from byzopt.aggregators.numerics.ordering import keys, order_of
from byzopt.aggregators.numerics.selection import answer
from byzopt.kernels import RankWindow

_LARGEST = {torch.float32: 1e30, torch.float64: 1e100}  # magnitudes that need no other unit or dtype


class BatchDecision(NamedTuple):
    """What decided the answers to R sets of rows: their geometry, that after all stages with the `mixing`
    `[R, m, n]` that leads there (None: there is no stage), and the weights `[R, m]` of the answers."""

    first: Geometry
    geometry: Geometry
    mixing: Tensor | None
    weights: Tensor

    def near(self, source: ChainInput) -> Nearness:
        """How near each answer comes to the geometric median of the rows that reach the rule."""
        return nearness(self.geometry, self.weights.numpy(), self.geometry.m, source)


def batch_aggregate(
    stages: tuple[MixingStage, ...], rule: Stage, rows: Tensor
) -> tuple[Tensor, BatchDecision | None] | None:
    """The aggregates `[R, d]` of rows `[R, n, d]` on the CPU; None if they should be called one by one.

    With them what decided them, where that is their geometry. `rule` has `weights(geometry)`, `plan(m)`, or
    only `decided(geometry)`, which asks for the rows' lengths. All recipes have been checked with their
    numbers of rows.
    """
    sets, n, d = rows.shape
    simple = (
        not accelerator.holds(rows) and rows.dtype in _LARGEST and all(s.batched for s in (*stages, rule))
    )
    if sets < 2 or n * d > SMALL or not simple or not float(rows.abs().amax()) < _LARGEST[rows.dtype]:
        return None
    if (stages or rule.by_value) and not any(stage.positional for stage in (*stages, rule)):
        order = torch.from_numpy(order_of(keys(rows, 0, d)))
        rows = rows.take_along_dim(order.unsqueeze(-1), dim=1)
    ranks = getattr(rule, "plan", None)
    if ranks and not stages:
        return _ranked(rows, ranks), None
    by_rows = not ranks and not hasattr(
        rule, "weights"
    )  # it goes by rows' lengths, and not by their products
    if by_rows and stages:
        return None
    first = geometry = _geometry(rows.double())
    if geometry is None or first is None:
        return None
    mixing: Tensor | None = None
    for stage in stages:
        matrix = stage.decided(geometry)
        geometry = geometry.mixed(matrix, stage.affine)
        mixing = matrix if mixing is None else matrix @ mixing
    if mixing is not None and not all(stage.affine for stage in stages) and not linalg.ordinary(mixing):
        return None
    if ranks:
        assert mixing is not None
        return _ranked(mixing.to(rows) @ rows, ranks), None
    weights: Tensor = rule.decided(geometry)  # type: ignore[attr-defined]
    if by_rows and not linalg.ordinary(weights):
        return None
    through = weights.unsqueeze(-2) if mixing is None else weights.unsqueeze(-2) @ mixing
    return (through.to(rows) @ rows).squeeze(-2), BatchDecision(first, geometry, mixing, weights)


def _ranked(rows: Tensor, ranks: Callable[[int], RankWindow]) -> Tensor:
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
    if not within_range(product.diagonal(dim1=-2, dim2=-1).numpy()):
        return None

    def origin() -> Origin:
        pivots = rows[each, pivot]
        cross = (about @ pivots.unsqueeze(-1)).squeeze(-1)
        return Origin(cross, pivots.square().sum(dim=-1, keepdim=True), rows.square().sum(dim=-1))

    return Geometry(n, lambda: product, origin)


def _equated(rows: Tensor, product: Tensor) -> Tensor:
    """Products `[R, n, n]` with equal rows made equal to the last bit."""
    at, later, earlier = close_pairs(product).unbind(1)
    equal = (rows[at, later] == rows[at, earlier]).all(dim=-1)
    kind = np.tile(np.arange(product.shape[-1]), (len(rows), 1))
    np.minimum.at(kind, (at[equal].numpy(), later[equal].numpy()), earlier[equal].numpy())
    gram = np.take_along_axis(product.numpy(), kind[..., :, None], axis=-2)
    return torch.from_numpy(np.take_along_axis(gram, kind[..., None, :], axis=-1))
