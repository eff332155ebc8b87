"""All rows, some columns: what a rank holds after the exchange, with the geometry of whole rows.

This is the one place that knows how rules look at rows. Sums over columns are all-reduced; what is decided on
them is decided on every rank, from the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import proxy

import torch
from torch import Tensor

from byzopt import lengths, linalg
from byzopt.aggregators.numerics.distances import Distances, Index
from byzopt.aggregators.numerics.geometry import Geometry, Origin
from byzopt.aggregators.numerics.measuring import SMALL, about_bulk, close_pairs
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.distributed.communicator import Communicator


class ColumnShard(Mixed):
    """Columns `first ..` of n finite rows of length d, in units of `unit`, one of `comm.n` such pieces."""

    def __init__(
        self,
        rows: Tensor,
        unit: float,
        comm: Communicator,
        d: int,
        mixing: Tensor | None = None,
        geometry: Geometry | None = None,
        ordered: bool = False,
        first: int | None = None,
    ) -> None:
        self.comm, self._d = comm, d
        self.first = comm.columns(d)[comm.rank][0] if first is None else first
        super().__init__(rows, unit, mixing, geometry, ordered=ordered)

    @property
    def d(self) -> int:
        return self._d

    def total(self, partial: Tensor) -> Tensor:
        return self.comm.all_reduce(partial)

    def held(self, vec: Tensor) -> Tensor:
        """The columns held here of `vec` `[d]`, or of one that has no others."""
        return vec if vec.shape == self.rows.shape[1:] else super().held(vec)

    def measured(self) -> Geometry:
        return summed([self.rows], self.unit, self.comm, self._d, self.order)

    def again(
        self, rows: Tensor, mixing: Tensor | None = None, geometry: Geometry | None = None
    ) -> ColumnShard:
        return ColumnShard(rows, self.unit, self.comm, self._d, mixing, geometry, first=self.first)

    def widened(self, centre: Tensor) -> Geometry:
        rows = torch.cat([centre.unsqueeze(0), self.rows])
        return summed([rows], self.unit, self.comm, self._d)


class Products(NamedTuple):
    """The sum over all columns of products about row `pivot` `[n, n]` (float64, CPU), taken in `dtype`."""

    pivot: int
    dtype: torch.dtype
    gram: Tensor


def summed(
    blocks: Sequence[Tensor],
    unit: float,
    comm: Communicator,
    d: int,
    order: Index | None = None,
    known: Products | None = None,
) -> Geometry:
    """The geometry of n rows of length d of which every rank holds some columns, in one or several `blocks`
    `[n, b]`: partial products are summed.

    The pivot is chosen as for whole rows, beginning with the one about which products are `known`. All that
    is read is on all ranks the same, so all make the same passes.
    """

    def product(pivot: int, dtype: torch.dtype) -> Tensor:
        return comm.all_reduce(gram_of(blocks, pivot, dtype, order)).cpu()

    def centred() -> Tensor:
        wide = dtype_of(blocks[0], d)
        first = 0 if order is None else int(order[len(order) // 2])
        start = known or Products(first, wide, product(first, wide))
        seen = Distances(start.gram.numpy())
        here.pivot, apart = about_bulk(product, seen, start.pivot, start.dtype, order)
        return _equated(blocks, torch.from_numpy(apart.gram), comm)

    def origin() -> Origin:
        _ = here.centred  # decides on the pivot
        pivot, n = here.pivot or 0, len(blocks[0])
        parts = [lengths.lengths(rows, rows[pivot]) for rows in blocks]
        cross, norms = (sum(part[1:], part[0]) for part in zip(*parts, strict=True))
        own = torch.stack([linalg.norm(rows[pivot]).square() for rows in blocks]).sum().unsqueeze(0)
        whole = comm.all_reduce(torch.cat([cross, norms, own])).cpu()
        return Origin(whole[:n], whole[-1], whole[n:-1])

    geometry = Geometry(len(blocks[0]), centred, origin, unit)
    here = proxy(geometry)  # no circle: see `geometry_of`
    return geometry


def dtype_of(rows: Tensor, d: int) -> torch.dtype:
    """The dtype in which products of whole rows `[n, d]` are first taken, from some of their columns."""
    return torch.float64 if len(rows) * d <= SMALL else linalg.compute_dtype(rows.dtype)


def gram_of(blocks: Sequence[Tensor], pivot: int, dtype: torch.dtype, order: Index | None = None) -> Tensor:
    """Products about row `pivot` over the columns of all `blocks`, `[n, n]` float64."""
    parts = [linalg.gram(rows, rows[pivot], dtype, order) for rows in blocks]
    return sum(parts[1:], parts[0])


def _equated(blocks: Sequence[Tensor], gram: Tensor, comm: Communicator) -> Tensor:
    """`gram` with equal rows made equal to the last bit, as for whole rows."""
    values = gram.numpy()
    # Where products are equal to the last bit there is nothing to mend, and no need to look at the rows.
    pairs = [(j, i) for j, i in close_pairs(gram).tolist() if not (values[i] == values[j]).all()]
    if not pairs:
        return gram
    apart = [any(not torch.equal(rows[i], rows[j]) for rows in blocks) for j, i in pairs]
    differ = torch.tensor(apart, dtype=torch.float64, device="cpu")
    kind = list(range(len(gram)))
    for (j, i), others in zip(pairs, comm.all_reduce(differ).tolist(), strict=True):
        if not others and kind[j] == j and kind[i] == i:
            kind[j] = i
    return gram[kind][:, kind]
