"""The usual call on rows on a CPU: straight from the rows to the answer.

Where rows are few and short, what lies between kernels costs more than they do. So rules that ask for
distances, ranks or figures of single rows alone are answered here in as few steps as it takes, by the kernels
that `Mixed` and `Geometry` use, in the same order, so that bits are the same. All that is out of the ordinary
is left to them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt import accelerator, kernels, lengths, linalg
from byzopt.aggregators.numerics.distances import Array, Index
from byzopt.aggregators.numerics.figures import in_range, ordinary
from byzopt.aggregators.numerics.measuring import ExtremeRows, usual_distances
from byzopt.aggregators.numerics.ordering import keys, order_of
from byzopt.aggregators.numerics.products import chained


def straight_answer(rule: Any, rows: Tensor) -> Tensor | None:
    """The answer `[d]` of a rule that is `direct`, or `asks` for figures, to rows nobody has looked at; None:
    ask the long way.

    Raises `ExtremeRows` as that does, where the policy for input has to see them.
    """
    if accelerator.holds(rows):
        return None
    if rule.asks:
        return _by_figures(rule, rows)
    if not kernels.supports(rows):
        return None
    mixing: Any = None
    step: Any = None
    last, ranks = rule.last, rule.columnwise
    if ranks and not rule.stages:
        return _columns(rows, last.plan(rows.shape[0]), None, None)
    if rows.shape[0] > kernels.FEW:
        return None
    measured = usual_distances(rows, rule.by_value)
    if measured is None:
        return None
    order, apart = measured
    for stage in rule.stages:
        apart = apart if step is None else apart.mixed(step)
        step = stage.decide(apart)
        mixing = step if mixing is None else chained(step, mixing)
    if ranks:
        plan, m = last.plan(len(mixing)), len(mixing)
        if plan != (0, m, None):
            return _columns(rows, plan, mixing, order)
        weights = np.full(m, 1 / m)  # a mean of sums
    else:
        weights = last.decide(apart if step is None else apart.mixed(step))
    return kernels.mixed_blend(weights, None if mixing is None else mixing.T, rows, order)


def _by_figures(rule: Any, rows: Tensor) -> Tensor | None:
    plain = not kernels.supports(rows)
    if plain and rows.dtype not in kernels.NUMPY:
        return None  # a sum in half precision may leave its range
    found = lengths.figures(rows, rule.row, rule.asks).numpy() if plain else None
    found = kernels.row_figures(rows, rule.row, rule.asks) if found is None else found
    if not in_range(found[-1], rows.dtype):
        raise ExtremeRows
    weights = rule.shares(found, 1.0, lambda: order_of(keys(rows, 0, rows.shape[1])))
    if not ordinary(weights):
        return None
    return linalg.blend(torch.from_numpy(weights), rows) if plain else kernels.weighted_rows(weights, rows)


def _columns(
    rows: Tensor, plan: kernels.RankWindow, mixing: Array | None, order: Index | None
) -> Tensor | None:
    if not kernels.reduces_columns(rows, mixing, plan):
        return None
    out = rows.new_empty(rows.shape[1])
    if not kernels.reduce_columns(rows, plan, mixing, out, order):
        raise ExtremeRows
    return out
