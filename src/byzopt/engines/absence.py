"""What absence means to workers and wires: nothing is computed, sent or forgotten."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from byzopt.states import map_leaves
from byzopt.workers import Estimator, Oracle


def zero_absent(rows: Tensor, present: Tensor | None) -> Tensor:
    """Rows `[..., n, d]`, zeros where `present` `[..., n]` is false."""
    if present is None:
        return rows
    return torch.where(present.to(rows.device).unsqueeze(-1), rows, 0.0)


def share_of(present: Tensor | None) -> float:
    """The share of workers that take part, where figures are those of one worker on average."""
    return 1.0 if present is None else float(present.sum()) / len(present)


def unmoved(state: Any, before: Any, present: Tensor | None) -> Any:
    """`state` with the rows of absentees as they were `before`: those of its tensors `[..., n, d]`, where
    `present` is `[..., n]`. Before round 1 there is nothing, and absentees begin with zeros sent."""
    if present is None:
        return state
    kinds = present.ndim + 1

    def back(new: Any, old: Any) -> Any:
        of_rows = isinstance(new, Tensor) and new.ndim == kinds and new.shape[:-1] == present.shape
        return torch.where(present.to(new.device).unsqueeze(-1), new, old) if of_rows else new

    return map_leaves(back, state, before)


def played(
    worker: Estimator, state: Any, first: bool, x: Tensor, oracle: Oracle, present: Tensor | None
) -> tuple[Tensor, Any]:
    """A round of an estimator, in which absentees take no step: their messages are 0, and they remember what
    they did. An estimator that counts absence itself is left to it."""
    vectors, after = worker.init(x, oracle) if first else worker.step(state, x, oracle)
    if not first and not worker.counts_absence:
        after = unmoved(after, state, present)
    return zero_absent(vectors, present), after
