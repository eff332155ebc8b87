"""How much the honest rows of a round differ, beside the length of their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, isfinite

import torch
from torch import Tensor

from byzopt import accelerator, linalg

Honest = Callable[[int], Sequence[int]]  # whose rows of round t are to be summarised; empty: nobody's


def nobody(t: int) -> Sequence[int]:
    """No round's honest rows are summarised."""
    return ()


def honest_figures(rows: Tensor, honest: Sequence[int], present: Tensor | None = None) -> dict[str, float]:
    """Figures of the rows `[n, d]` of those `honest` who are `present`; none where there are no such rows.

    `honest_variance`: the mean of ‖v_i - m‖² with m their mean. `relative_variance`: h = variance/‖m‖²,
    infinite where m is 0 and they differ.
    """
    here = [i for i in honest if present is None or bool(present[i])]
    if not here:
        return {}
    dtype = linalg.compute_dtype(rows.dtype) if accelerator.holds(rows) else torch.float64
    index = torch.tensor(here, device="cpu").to(rows.device)
    parts = [_squares(block.index_select(0, index)) for _, block in linalg.column_blocks(rows, dtype)]
    apart, length = torch.stack(parts).sum(dim=0).cpu().tolist()
    variance = apart / len(here)
    ratio = variance / length if length else (inf if variance else 0.0)
    return {"honest_variance": variance, "relative_variance": ratio if isfinite(ratio) else inf}


def _squares(block: Tensor) -> Tensor:
    """The sum of squared deviations from the mean of rows `[h, b]`, and the mean's squared length."""
    mean = block.mean(dim=0)
    return torch.stack([(block - mean).square().sum(), mean.square().sum()])
