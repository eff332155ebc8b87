"""Rules decided by lengths, angles and signs about the origin, which a centred Gram product does not hold
well.

`<v_i, v_j>` put together from products about a pivot loses its digits as soon as one row dwarfs the pivot,
and such rules must judge just those rows. So lengths and angles are taken from the rows. Lengths of rows as
they were sent have a relative error below 1e-6 where rows are float32 and many (`kernels.row_figures`), so
that rows which are nearer to a tie than this may be taken for tied or in the other order; of few, of float64
and behind a stage they are float64. Cosines come from float64 products of the rows: rows of float32 whose
angle is a millionth are still told apart, where float32 products would show a difference of 0. A weighted
sum is float64 only where a weight like ‖v_0‖/‖v_i‖ lies outside float32's range.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from math import ceil, isfinite

import numpy as np
import torch
from torch import Tensor

from byzopt import accelerator, linalg
from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.foreign import checked_value
from byzopt.aggregators.numerics.distances import Array, by_rows
from byzopt.aggregators.numerics.figures import Ask, figures_of, in_range, measures, measures_all, value_order
from byzopt.aggregators.numerics.measuring import ExtremeRows
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
        for name in self.foreign & {"weigh", "shares"}:
            weights = checked_value(self, name, weights, (mixed.m,))
        return mixed.through(weights)

    def reduce(self, mixed: Mixed) -> Tensor:
        return weighted_sum(self.influence(mixed), mixed.rows)


class FigureRule(WeighingRule):
    """A weighing rule that needs no more of each row than a few figures: it says which it `asks` for, and
    `shares(found, unit, order)` gives the weights by them.

    Examples:
        >>> from byzopt import NormClipping
        >>> from byzopt.aggregators import FigureRule
        >>> isinstance(NormClipping(), FigureRule), NormClipping().asks
        (True, 'squares')
    """

    validates = True

    @abstractmethod
    def shares(self, found: Array, unit: float, order: Ask | None = None) -> Array:
        """Weights `[m]` of the rows by the figures `found` `[k, m]`, in which lengths are in units of `unit`.
        `order` gives the places of the rows in the order of their values, for ties."""

    def weigh(self, mixed: Mixed) -> Tensor:
        return torch.from_numpy(self.shares(self.figures(mixed), mixed.unit, lambda: value_order(mixed)))

    def figures(self, mixed: Mixed) -> Array:
        """What the rule `asks` for of the mixed rows, `[k, m]`, however they are held."""
        assert self.asks is not None
        if measures_all(mixed) or (measures(mixed) and self.asks != "apart"):
            return figures_of(mixed, self.asks, self.row)
        if self.asks == "apart" and self.row is not None:
            return mixed.geometry.sq_dists[self.row : self.row + 1].numpy()
        parts: list[Tensor] = []
        if self.asks == "inner" and self.row is not None:
            parts = [inner_products(mixed, self.row)]
        elif self.asks == "signs":
            parts = list(_signs(mixed))
        return torch.stack([*parts, row_squares(mixed)]).numpy()


def weighted_sum(weights: Tensor, rows: Tensor) -> Tensor:
    """`weights` `[n]` times finite `rows` `[n, d]`, in float64 where float32 does not hold a weight or a
    sum."""
    if linalg.ordinary(weights):
        out = linalg.blend(weights, rows)
        if accelerator.holds(rows) or isfinite(float(out.sum(dtype=torch.float64))):
            return out
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
    """Squared Euclidean norms of the mixed rows, `[m]`.

    Raises `ExtremeRows` as `figures_of` does, of rows that are not admitted.
    """
    if measures(mixed):
        return torch.from_numpy(figures_of(mixed, "squares")[-1])
    if accelerator.holds(mixed.rows):
        total = _row_squares_there(mixed)
    else:
        total = torch.zeros(mixed.m, dtype=torch.float64, device="cpu")
        for block in wide_blocks(mixed):
            total += block.square().sum(dim=1)
        total = mixed.total(total)
    if not (mixed.admitted or in_range(total.numpy(), mixed.rows.dtype)):
        raise ExtremeRows
    return total


def _row_squares_there(mixed: Mixed) -> Tensor:
    """As `row_squares`, on an accelerator: in float64 only where squares leave the rows' range."""
    for dtype in (linalg.compute_dtype(mixed.rows.dtype), torch.float64):
        parts = [accelerator.squares(block, dtype) for _, block in mixed.blocks(dtype)]
        (total,) = accelerator.fetch(mixed.total(sum(parts[1:], parts[0])))
        finite = bool(total.isfinite().all())
        if not (finite or mixed.admitted):
            raise ExtremeRows  # who looks at the rows next sees why
        if finite and (total > _TINY).all():
            break
    return total


def row_norms(mixed: Mixed) -> Tensor:
    """Euclidean norms of the mixed rows, `[m]`."""
    return row_squares(mixed).sqrt()


def inner_products(mixed: Mixed, i: int) -> Tensor:
    """Inner products `<v_j, v_i>` of all mixed rows with row i, `[m]`."""
    if measures(mixed):
        return torch.from_numpy(figures_of(mixed, "inner", i)[0])
    inner = torch.zeros(mixed.m, dtype=torch.float64, device=mixed.rows.device)
    for block in wide_blocks(mixed):
        inner += block @ block[i]
    return mixed.total(inner).cpu()


def _signs(mixed: Mixed) -> Tensor:
    """How many coordinates of each row are positive, zero and negative: `[3, m]`."""
    there = accelerator.holds(mixed.rows)
    blocks = (block for _, block in mixed.blocks()) if there else wide_blocks(mixed)
    parts = [torch.stack([(block > 0).sum(1), (block < 0).sum(1)]) for block in blocks]
    counts = sum(parts[1:], parts[0]) if parts else torch.zeros(2, mixed.m, device="cpu")
    ((more, less),) = accelerator.fetch(mixed.total(counts.double()))
    return torch.stack([more, mixed.d - more - less, less])


def cosines(mixed: Mixed, norms: Tensor) -> Tensor:
    """Cosines between the mixed rows, `[m, m]`; 0 with a row of zeros. Exact whatever the lengths are."""
    if mixed.mixing is None or accelerator.holds(mixed.rows):
        return _cosines_of(mixed)
    scale = torch.where(norms > 0, 1 / norms, 0).unsqueeze(1).to(mixed.rows.device)
    total = torch.zeros(mixed.m, mixed.m, dtype=torch.float64, device=mixed.rows.device)
    for block in wide_blocks(mixed):
        units = block * scale
        total += units @ units.T
    return mixed.total(total).cpu().clamp(-1, 1)


def _cosines_of(mixed: Mixed) -> Tensor:
    """As `cosines`, of rows that nothing has mixed, and of all on an accelerator: by float64 products about
    the origin, which hold the lengths too."""
    if accelerator.holds(mixed.rows):
        parts = [accelerator.products(block, None, torch.float64) for block in wide_blocks(mixed)]
    else:
        parts = [linalg.gram(mixed.rows, None, torch.float64)]
    (products,) = accelerator.fetch(mixed.total(sum(parts[1:], parts[0])))
    gram: Array = products.numpy()
    lengths = np.sqrt(gram.diagonal())
    scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    found = by_rows(lambda part, own: (part * scale * own[:, None]).clip(-1, 1), gram, scale)
    return torch.from_numpy(found)


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
