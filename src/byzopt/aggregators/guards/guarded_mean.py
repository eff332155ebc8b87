"""Aggregation of the workers that a guard keeps: their mean, or a rule for which the others are missing."""

from __future__ import annotations

from math import nan
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.mean import Mean
from byzopt.errors import TooManyFaults


class KnownMean(NamedTuple):
    """The mean `value` `[d]`, as `guarded_mean` has it, of those who are `kept` `[n]`."""

    kept: Tensor
    value: Tensor


def guarded_mean(
    rule: Aggregator,
    rows: Tensor,
    kept: Tensor,
    fit: Tensor,
    over_good: bool,
    t: int,
    known: KnownMean | None = None,
) -> Tensor:
    """Σ_kept rows_i over n, or over their number; 0 of nobody. Rows that are not `fit` are never kept.

    `rule` other than the mean answers for the kept rows in place of their mean: for it the others are
    missing, which counts against its f. A mean that is `known` is not taken again. Errors: `TooManyFaults`
    where that is more than it tolerates.
    """
    size = kept.sum(dim=-1, keepdim=True)
    if isinstance(rule, Mean):
        if known is not None and torch.equal(known.kept, kept):
            return known.value
        return _share(rows, kept, fit, size.clamp_min(1) if over_good else rows.shape[-2])
    here = rule.at(t)
    present = torch.where(kept.unsqueeze(-1), rows, nan)
    try:
        answer = here(present) if rows.ndim == 2 else here.batch(present)
    except TooManyFaults as error:
        n, gone = rows.shape[-2], list(error.rows)
        raise TooManyFaults(
            "Workers that the guard expelled, or whose rows are not finite, should be at most "
            f"f = {rule.tolerance(n)} of {n} for the rule behind it. Found {len(gone)}: workers {gone}. "
            "Raise f, or take the mean, which answers for those who are left. A guard that takes workers "
            "with other data for liars is the wrong one.",
            gone,
        ) from None
    return answer if over_good else answer * (size / rows.shape[-2]).to(answer.dtype)


def _share(rows: Tensor, kept: Tensor, fit: Tensor, size: Tensor | int) -> Tensor:
    weights = kept.double() / size
    if rows.ndim == 2 and kept.any() and fit.all():
        return linalg.blend(weights, rows)
    dtype = linalg.compute_dtype(rows.dtype)
    sound = torch.where(kept.unsqueeze(-1), rows, 0).to(dtype)
    out: Tensor = (weights.to(dtype).unsqueeze(-2) @ sound).squeeze(-2).to(rows.dtype)
    return out
