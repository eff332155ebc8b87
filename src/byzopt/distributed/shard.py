"""All rows, some columns: what a rank holds after the exchange, with the geometry of whole rows.

This is the one place that knows how rules look at rows. Sums over columns are all-reduced; what is decided on
them is decided on every rank, from the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.numerics.geometry import Geometry, Index, Origin
from byzopt.aggregators.numerics.measuring import SMALL, close_pairs, settled
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
    ) -> None:
        self.comm, self.first, self._d = comm, comm.columns(d)[comm.rank][0], d
        super().__init__(rows, unit, mixing, geometry, ordered=ordered)

    @property
    def d(self) -> int:
        return self._d

    def total(self, partial: Tensor) -> Tensor:
        return self.comm.all_reduce(partial)

    def measured(self) -> Geometry:
        return summed(self.rows, self.unit, self.comm, self._d, self.order)

    def again(
        self, rows: Tensor, mixing: Tensor | None = None, geometry: Geometry | None = None
    ) -> ColumnShard:
        return ColumnShard(rows, self.unit, self.comm, self._d, mixing, geometry)

    def widened(self, centre: Tensor) -> Geometry:
        rows = torch.cat([centre.unsqueeze(0), self.rows])
        return summed(rows, self.unit, self.comm, self._d)


def summed(rows: Tensor, unit: float, comm: Communicator, d: int, order: Index | None = None) -> Geometry:
    """The geometry of rows `[n, d]` of which every rank holds some columns: partial products are summed.

    The pivot is chosen as for whole rows. All that is read is on all ranks the same, so all make the same
    passes.
    """

    def product(pivot: int, dtype: torch.dtype) -> Tensor:
        return comm.all_reduce(linalg.gram(rows, rows[pivot], dtype, order)).cpu()

    def centred() -> Tensor:
        dtype = torch.float64 if len(rows) * d <= SMALL else linalg.compute_dtype(rows.dtype)
        first = 0 if order is None else int(order[len(order) // 2])
        geometry.pivot, gram = settled(product, product(first, dtype), first, dtype, order)
        return _equated(rows, gram, comm)

    def origin() -> Origin:
        _ = geometry.centred  # decides on the pivot
        pivot = geometry.pivot or 0
        cross, norms = linalg.lengths(rows, rows[pivot], torch.float64)
        own = linalg.norm(rows[pivot]).square().unsqueeze(0)
        n, whole = len(rows), comm.all_reduce(torch.cat([cross, norms, own])).cpu()
        return Origin(whole[:n], whole[-1], whole[n:-1])

    geometry = Geometry(len(rows), centred, origin, unit)
    return geometry


def _equated(rows: Tensor, gram: Tensor, comm: Communicator) -> Tensor:
    """`gram` with equal rows made equal to the last bit, as for whole rows."""
    pairs = close_pairs(gram).tolist()
    if not pairs:
        return gram
    differ = torch.tensor(
        [not torch.equal(rows[i], rows[j]) for j, i in pairs], dtype=torch.float64, device="cpu"
    )
    kind = list(range(len(gram)))
    for (j, i), apart in zip(pairs, comm.all_reduce(differ).tolist(), strict=True):
        if not apart and kind[j] == j and kind[i] == i:
            kind[j] = i
    return gram[kind][:, kind]
