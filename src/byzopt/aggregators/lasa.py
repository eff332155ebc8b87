"""LASA: rows cut to the median length and thinned out, then in each layer those of usual length and signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from byzopt import accelerator
from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.weighing import (
    median_value,
    row_norms,
    shrink,
    size_limits,
    weighted_sum,
    whole,
)
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import require

_SHOWN = 12  # sizes of layers in a message
_EVEN = 1e-9  # a relative spread below this is rounding, and so is a score that is so near to its limit


class _Filtered(NamedTuple):
    """The thinned rows `[m, d]`, the weights of each layer `[layers, m]`, and where the layers lie."""

    rows: Tensor
    weights: Tensor
    layers: tuple[slice, ...]


@RULES.register("lasa")
@dataclass(frozen=True)
class LASA(Aggregator):
    """In each layer the mean of the thinned rows whose length and share of positive signs are usual.

    1. v_i <- min(1, M/‖v_i‖) v_i, M the median norm. 2. All but the largest 1 - `sparsity` of each row's
    values become 0. 3. In each layer those rows stay whose length and whose share of positive among non-zero
    values lie within `norm_radius` and `sign_radius` standard deviations of their medians (the deviation is
    that of all rows, faulty ones too). 4. The mean of those that stay; of all, where none does.

    `layers` has the layers' sizes, in the order of the row's columns; without them the row is one layer.
    `f` only says how many rows may be dropped. Needs 2 f < n; the answer is no longer than √layers times M.
    κ unproved here (the paper has a bound under assumptions on the honest spread in each layer). Not
    translation-equivariant. Rows times c > 0 give c times the answer, but equal rows give that row thinned
    out, so that it is called scale-equivariant only for `sparsity` 0. Cost: about ten passes over the rows.
    Source: Xu, Zhang, Hu, WACV 2025 (arXiv:2409.01435), as the authors' code has it (`lasa.py`), since the
    text was not within reach. Where we differ: the code thins weight matrices only, not biases, which a rule
    cannot tell apart; it keeps one value less than 1 - `sparsity` of them; a layer in which all rows agree
    to rounding passes all of them, and one without any sign has share 1/2 (the code divides 0 by 0).

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.
        sparsity: Share of each row's values that become 0, in [0, 1).
        norm_radius: How many standard deviations a layer's length may lie from the median; λ_n.
        sign_radius: The same for its share of positive signs; λ_s.
        layers: Sizes of the layers, of sum d; None: one layer.

    Raises:
        InvalidInput: Layers whose sizes do not add up to d.

    Examples:
        >>> import torch
        >>> from byzopt import LASA
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [-90.0, -90.0]])
        >>> LASA(f=1, sparsity=0.0)(rows)
        tensor([1.5270, 1.5270])
    """

    translation_equivariant = False
    convex = False
    columnwise = True

    f: int | None = None
    sparsity: float = 0.3
    norm_radius: float = 1.0
    sign_radius: float = 1.0
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.sparsity < 1, "Parameter `sparsity` of LASA", "lie in [0, 1)", self.sparsity)
        for name in ("norm_radius", "sign_radius"):
            require(
                getattr(self, name) > 0, f"Parameter `{name}` of LASA", "be positive", getattr(self, name)
            )
        sizes = (1,) if self.layers is None else self.layers
        ok = len(sizes) > 0 and min(sizes) >= 1
        require(ok, "Parameter `layers` of LASA", "be sizes of at least 1", sizes)

    @property
    def scale_equivariant(self) -> bool:
        return self.sparsity == 0

    def doubt(self, sizes: tuple[int, ...]) -> str:
        if self.layers is not None or len(sizes) < 2:
            return ""
        listed = f"[{', '.join(map(str, sizes[:_SHOWN]))}{', ...' if len(sizes) > _SHOWN else ''}]"
        return (
            f"The rule lasa has no `layers`, and so takes the model's {len(sizes)} tensors for one layer, "
            "where its paper looks at each by itself. Give their sizes in the order of the columns, "
            f"layers={listed}."
        )

    def reduce(self, mixed: Mixed) -> Tensor:
        rows, weights, layers = self._filtered(mixed)
        parts = zip(weights, layers, strict=True)
        return torch.cat([weighted_sum(share, rows[:, part]) for share, part in parts])

    def influence(self, mixed: Mixed) -> Tensor:
        """The mean of the layers' weights, by their sizes."""
        _, weights, layers = self._filtered(mixed)
        sizes = torch.tensor([part.stop - part.start for part in layers], dtype=torch.float64, device="cpu")
        return mixed.through((sizes / sizes.sum()) @ weights)

    def _filtered(self, mixed: Mixed) -> _Filtered:
        plain, layers = whole(mixed), self._places(mixed.d)
        norms = row_norms(plain)
        cut = shrink(norms, median_value(norms))
        sizes = plain.rows.abs()
        rows = plain.rows.masked_fill(sizes < size_limits(sizes, 1 - self.sparsity), 0)
        found = accelerator.fetch(*(figure for part in layers for figure in _figures(rows[:, part])))
        lengths, above, below = (torch.stack(found[k::3]) for k in range(3))
        shares = (above - below) / (above + below).clamp_min(1)
        usual = _usual((lengths * cut).numpy(), self.norm_radius) & _usual(shares.numpy(), self.sign_radius)
        kept = torch.from_numpy(usual | ~usual.any(axis=1, keepdims=True))
        return _Filtered(rows, kept * cut / kept.sum(dim=1, keepdim=True), layers)

    def _places(self, d: int) -> tuple[slice, ...]:
        sizes = (d,) if self.layers is None else self.layers
        require(sum(sizes) == d, "The sizes in `layers` of LASA", f"have the sum d = {d}", sum(sizes))
        ends = np.cumsum(sizes).tolist()
        return tuple(slice(end - size, end) for size, end in zip(sizes, ends, strict=True))


def _figures(part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The length of each row, and how many of its values are above and below 0: `[m]` each."""
    length = torch.linalg.vector_norm(part, dim=1, dtype=torch.float64)
    return length, *((side.sum(dim=1, dtype=torch.float64)) for side in (part > 0, part < 0))


def _usual(values: Array, radius: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which `values` of each layer `[layers, m]` are less than `radius` deviations from their median."""
    away = np.abs(values - np.median(values, axis=1, keepdims=True))
    spread = values.std(axis=1, keepdims=True)
    even = spread <= _EVEN * np.abs(values).max(axis=1, keepdims=True)
    return np.asarray(even | (away < spread * radius * (1 - _EVEN)))
