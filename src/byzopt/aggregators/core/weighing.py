"""Rules decided by lengths, angles and signs about the origin, which a centred Gram product does not hold
well.

`<v_i, v_j>` put together from products about a pivot loses its digits as soon as one row dwarfs the pivot,
and such rules must judge just those rows. So lengths and angles are taken from the rows, in float64, and so
is the weighted sum, because a weight like ‖v_0‖/‖v_i‖ may lie outside float32's range.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from math import ceil

import torch
from torch import Tensor

from byzopt import accelerator, linalg
from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.foreign import checked_value
from byzopt.aggregators.numerics.mixed import Mixed

_TINY = 1e-30  # squares below this may have lost digits in float32


class WeighingRule(Aggregator):
    """A rule that needs more than the geometry: `weigh(mixed)` gives `[m]` float64 weights on the CPU.

    Examples:
        >>> from byzopt import FLTrust
        >>> from byzopt.aggregators import WeighingRule
        >>> isinstance(FLTrust(), WeighingRule)
        True
    """

    @abstractmethod
    def weigh(self, mixed: Mixed) -> Tensor:
        """Weights `[m]` of the mixed rows in the aggregate."""

    def splits(self) -> bool:
        return True

    def influence(self, mixed: Mixed) -> Tensor:
        weights = self.weigh(mixed)
        weights = checked_value(self, "weigh", weights, (mixed.m,)) if "weigh" in self.foreign else weights
        return mixed.through(weights)

    def reduce(self, mixed: Mixed) -> Tensor:
        return weighted_sum(self.influence(mixed), mixed.rows)


def weighted_sum(weights: Tensor, rows: Tensor) -> Tensor:
    """`weights` `[n]` times `rows` `[n, d]`, in float64 wherever float32 might not hold a weight or a sum."""
    if accelerator.holds(rows) and linalg.ordinary(weights):
        return linalg.blend(weights, rows)
    total = weights.to(rows.device)
    out = torch.empty(rows.shape[1], dtype=rows.dtype, device=rows.device)
    for piece, block in linalg.column_blocks(rows, torch.float64):
        out[piece] = saturated(total @ block, out.dtype)
    return out


def saturated(vec: Tensor, dtype: torch.dtype) -> Tensor:
    """`vec` in `dtype`; what lies beyond its range becomes its largest number, for the rows were finite."""
    end = torch.finfo(dtype).max
    return vec.clamp(-end, end).to(dtype)


def whole(mixed: Mixed) -> Mixed:
    """The mixed rows, written out in the compute dtype, as rows that nothing has mixed."""
    rows = mixed.rows if mixed.mixing is None else mixed.materialise()
    return mixed.again(rows.to(linalg.compute_dtype(rows.dtype)))


def size_limits(sizes: Tensor, share: float) -> Tensor:
    """The least of the largest `share` of each row's values, at least one: `[m, d] -> [m, 1]`."""
    d = sizes.shape[1]
    count = min(d, max(1, ceil(share * d - 1e-9)))
    limits: Tensor = sizes.kthvalue(d - count + 1, dim=1, keepdim=True).values
    return limits


def wide_blocks(mixed: Mixed) -> Iterator[Tensor]:
    """Column blocks `[m, b]` of the mixed rows in float64. They may be views: do not write."""
    for _, block in mixed.blocks(torch.float64):
        yield block


def row_squares(mixed: Mixed) -> Tensor:
    """Squared Euclidean norms of the mixed rows, `[m]`."""
    if accelerator.holds(mixed.rows):
        return _row_squares_there(mixed)
    total = torch.zeros(mixed.m, dtype=torch.float64, device=mixed.rows.device)
    for block in wide_blocks(mixed):
        total += block.square().sum(dim=1)
    return mixed.total(total).cpu()


def _row_squares_there(mixed: Mixed) -> Tensor:
    """As `row_squares`, on an accelerator: in float64 only where squares leave the rows' range."""
    for dtype in (linalg.compute_dtype(mixed.rows.dtype), torch.float64):
        parts = [accelerator.squares(block, dtype) for _, block in mixed.blocks(dtype)]
        (total,) = accelerator.fetch(mixed.total(sum(parts[1:], parts[0])))
        if total.isfinite().all() and (total > _TINY).all():
            break
    return total


def row_norms(mixed: Mixed) -> Tensor:
    """Euclidean norms of the mixed rows, `[m]`."""
    return row_squares(mixed).sqrt()


def inner_products(mixed: Mixed, i: int) -> Tensor:
    """Inner products `<v_j, v_i>` of all mixed rows with row i, `[m]`."""
    inner = torch.zeros(mixed.m, dtype=torch.float64, device=mixed.rows.device)
    for block in wide_blocks(mixed):
        inner += block @ block[i]
    return mixed.total(inner).cpu()


def cosines(mixed: Mixed, norms: Tensor) -> Tensor:
    """Cosines between the mixed rows, `[m, m]`; 0 with a row of zeros. Exact whatever the lengths are."""
    if accelerator.holds(mixed.rows):
        return _cosines_there(mixed)
    scale = torch.where(norms > 0, 1 / norms, 0).unsqueeze(1).to(mixed.rows.device)
    total = torch.zeros(mixed.m, mixed.m, dtype=torch.float64, device=mixed.rows.device)
    for block in wide_blocks(mixed):
        units = block * scale
        total += units @ units.T
    return mixed.total(total).cpu().clamp(-1, 1)


def _cosines_there(mixed: Mixed) -> Tensor:
    """As `cosines`, on an accelerator: float64 products about the origin, which hold the lengths too."""
    parts = [accelerator.products(block, None, torch.float64) for block in wide_blocks(mixed)]
    (products,) = accelerator.fetch(mixed.total(sum(parts[1:], parts[0])))
    scale = products.diagonal().sqrt()
    scale = torch.where(scale > 0, 1 / scale, 0)
    return (products * scale * scale.unsqueeze(1)).clamp(-1, 1)


def shrink(norms: Tensor, bound: Tensor | float) -> Tensor:
    """Factors min(1, bound / norm) that cut lengths to `bound`."""
    return torch.where(norms > bound, bound / norms, 1.0)


def median_value(values: Tensor) -> float:
    """The median; the mean of the two middle values for an even number."""
    return float(medians(values))


def medians(values: Tensor) -> Tensor:
    """The medians `[..., 1]` of values `[..., m]`, as `median_value`."""
    ranked, m = values.sort(dim=-1).values, values.shape[-1]
    low, high = ranked[..., (m - 1) // 2].unsqueeze(-1), ranked[..., m // 2].unsqueeze(-1)
    return low + (high - low) / 2
