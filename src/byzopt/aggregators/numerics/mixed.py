"""Rows seen through a mixing matrix that is applied as late as possible.

Where rows are dealt to processes by columns, each holds a `Mixed` of its own ones. A rule that sums over
columns says so by `total`, and then need not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt import accelerator, kernels, linalg
from byzopt.aggregators.numerics.distances import Index, by_rows
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.measuring import ExtremeRows, geometry_about, geometry_of
from byzopt.aggregators.numerics.mixer import Mixer, Scaler
from byzopt.aggregators.numerics.ordering import Order, keys
from byzopt.aggregators.numerics.products import chained
from byzopt.aggregators.numerics.selection import answers
from byzopt.errors import InvalidInput

_WIDE = 1 << 24  # bytes of a block for coordinate rules: their cost is torch calls for each pair of rows
_MIXED = 1 << 23  # bytes of a block that is mixed in plain torch
_GRAIN = 1 << 15  # numbers beyond which torch wakes its threads for an operation, at the price of several


class Mixed:
    """Rows `[n, d]`, in units of `unit`, seen through a mixing matrix `[m, n]` (None: identity).

    Rows that are `admitted` are finite and in a safe range. With others, `geometry` and `columns` raise
    `ExtremeRows` where rows turn out not to be so; nothing else looks. Rows that are `ordered` are looked at
    in an order of their values (`ordering`), so that nothing depends on their places.

    Args:
        rows: The rows as they were sent, `[n, d]`.
        unit: Of all lengths.
        mixing: What stages made of them, `[m, n]`; None: nothing.
        geometry: Of the mixed rows; None: taken when it is needed.
        admitted: Whether rows are known to be finite and in a safe range.
        ordered: Whether they are looked at in an order of their values.

    Examples:
        A rule gets one ready-made:

        >>> import torch
        >>> from byzopt.aggregators import Mixed
        >>> mixed = Mixed(torch.tensor([[0.0, 2.0], [4.0, 4.0]]), mixing=torch.full((1, 2), 0.5))
        >>> mixed.m, mixed.d
        (1, 2)
    """

    first = 0  # the place, in whole rows, of the first column held here

    def __init__(
        self,
        rows: Tensor,
        unit: float = 1.0,
        mixing: Tensor | None = None,
        geometry: Geometry | None = None,
        admitted: bool = True,
        ordered: bool = False,
    ) -> None:
        self.rows = rows
        self.place: Tensor | None = None  # memory for an answer `[d]` of the rows' dtype, which may be taken
        self.unit = unit
        self.mixing = mixing
        self.admitted = admitted
        self.among: Order | None = None
        if ordered:
            self.among = Order(self.total(keys(rows, self.first, self.d)))
        self.geometry = self.unmixed = geometry or self.measured()
        self.sketched = False  # whether the geometry is that of a sketch of the rows
        self.weights: Tensor | None = None  # of the last blend
        self.chained: tuple[Any, Mixed] | None = None  # stages, and the rows after them
        self._sorted: Mixed | None = None
        self._in_order = False  # whether `mixing` only puts rows in the `order`
        self._scales = False  # whether it does no more than that, and multiply each row by a number

    @property
    def order(self) -> Index | None:
        """The order `[n]` in which rows are looked at; None: as they lie."""
        return None if self.among is None else self.among.index

    @property
    def m(self) -> int:
        """Number of rows after mixing."""
        return self.rows.shape[0] if self.mixing is None else self.mixing.shape[0]

    @property
    def d(self) -> int:
        """Number of columns of whole rows."""
        return self.rows.shape[1]

    def total(self, partial: Tensor) -> Tensor:
        """A sum over all columns, from the one over those held here."""
        return partial

    def held(self, vec: Tensor) -> Tensor:
        """What `vec` `[d]` has in the columns held here."""
        return vec[self.first : self.first + self.rows.shape[1]]

    def measured(self) -> Geometry:
        """The geometry of the unmixed rows."""
        return geometry_of(self.rows, self.unit, self.admitted, self.among)

    def again(self, rows: Tensor, mixing: Tensor | None = None, geometry: Geometry | None = None) -> Mixed:
        """Other rows whose columns are held in the same way as these."""
        return Mixed(rows, self.unit, mixing, geometry, self.admitted)

    def then(self, mixing: Tensor, affine: bool, scales: bool = False) -> Mixed:
        """These rows, mixed once more by `mixing` `[m', m]`, which is diagonal if it only `scales` them."""
        total, order = mixing, self.order
        if self._in_order and order is not None:
            back = order.argsort()
            total = torch.from_numpy(by_rows(lambda part: part[:, back], mixing.numpy()))
        elif self.mixing is not None:
            total = torch.from_numpy(chained(mixing.numpy(), self.mixing.numpy()))
        after = self._derived(total, self.geometry.mixed(mixing, affine, scales))
        after._scales = scales and (self.mixing is None or self._in_order or self._scales)
        return after

    def sorted(self) -> Mixed:
        """These rows in the order of their values, if they are `ordered` and no stage has moved them yet."""
        if self.among is None or self.mixing is not None:
            return self
        if self._sorted is None:
            _ = self.geometry.centred if accelerator.holds(self.rows) else None  # fetched with the keys
            order = self.among.index
            places = np.zeros((self.m, self.m))  # memory that is not written to is not fetched either
            places[np.arange(self.m), order] = 1
            self._sorted = self._derived(torch.from_numpy(places), self.geometry.taken(order))
            self._sorted._in_order = True
        return self._sorted

    def seen(self, geometry: Geometry) -> Mixed:
        """The same rows with another geometry."""
        derived = self._derived(self.mixing, geometry)
        derived.sketched = True
        return derived

    def _derived(self, mixing: Tensor | None, geometry: Geometry) -> Mixed:
        derived = self.again(self.rows, mixing, geometry)
        derived.among, derived.unmixed, derived.sketched = self.among, self.unmixed, self.sketched
        return derived

    def widened(self, centre: Tensor) -> Geometry:
        """The geometry of `centre`, of which the held columns are given, followed by the unmixed rows.

        Products are about `centre`. Where the bulk is so far from it that float32 would blur the bulk itself,
        the rows are copied beside it after all.
        """
        about = geometry_about(centre, self.rows, self.unit, self.admitted)
        if about is None:
            _ = self.geometry.centred
            about = geometry_of(torch.cat([centre.unsqueeze(0), self.rows]), self.unit)
        return about

    def blend(self, weights: Tensor) -> Tensor:
        """The weighted sum of the mixed rows: one pass over the unmixed ones. `[m] -> [d]`.

        Errors: `InvalidInput` unless there is a weight for each row.
        """
        if weights.shape != (self.m,):  # machine code would read past them
            shape = f"shape {tuple(weights.shape)} for {self.m} rows"
            raise InvalidInput(f"The weights of a rule should be one for each row, [m]. Found {shape}.")
        self.weights = weights
        return linalg.blend(self.through(weights), self.rows, self.order, self.place)

    def columns(self, plan: kernels.RankWindow) -> Tensor:
        """The order statistics that `plan` asks for in each mixed column, `[d]`: one pass over the rows."""
        if accelerator.holds(self.rows):
            return self._there(plan)
        if self.mixing is None and plan == (0, self.m, None) and not kernels.supports(self.rows):
            mean = self.rows.mean(dim=0, dtype=linalg.compute_dtype(self.rows.dtype))
            return self._seen(mean).to(self.rows.dtype)
        out = self.place
        if out is None:
            out = torch.empty(self.rows.shape[1], dtype=self.rows.dtype, device=self.rows.device)
        if self._scales:
            return self._scaled_columns(plan, out)
        for piece, rows in linalg.pieces(self.rows):
            if kernels.supports(rows) and kernels.reduces_columns(rows, self.mixing, plan):
                with linalg.written(out if rows is self.rows else out[piece], rows.dtype) as part:
                    mixing, order = None if self.mixing is None else self.mixing.numpy(), self.order
                    mixing = mixing if mixing is None or order is None else mixing[:, order]
                    fine = kernels.reduce_columns(rows, plan, mixing, part, order)
            else:
                fine = self._by_blocks(rows, plan, out[piece])
            if not (fine or self.admitted):
                raise ExtremeRows
        return out

    def _scaled_columns(self, plan: kernels.RankWindow, out: Tensor) -> Tensor:
        """As `columns`, of rows that are each multiplied by a number, in whatever order."""
        assert self.mixing is not None
        factors, dtype = self.mixing.sum(dim=0).unsqueeze(1), linalg.compute_dtype(self.rows.dtype)
        room = self.rows.new_empty(0, dtype=dtype)
        for piece, block in linalg.column_blocks(self.rows, dtype, _MIXED):
            room = block.new_empty(block.numel()) if room.numel() < block.numel() else room
            scaled = torch.mul(block, factors.to(dtype), out=room[: block.numel()].view_as(block))
            out[piece] = self.again(scaled).columns(plan)
        return out

    def _there(self, plan: kernels.RankWindow) -> Tensor:
        """As `columns`, on an accelerator: one look, at the end, and none at rows that are admitted."""
        dtype = linalg.compute_dtype(self.rows.dtype)
        pivot = self._pivot(dtype)
        out, trace = accelerator.columns(self.rows, plan, self.mixing, pivot, dtype)
        if not (self.admitted or isfinite(float(trace))):
            raise ExtremeRows
        return out

    def _seen(self, out: Tensor) -> Tensor:
        """`out`, a sum over all rows, once it has been checked to be finite."""
        if not (self.admitted or isfinite(float(out.sum(dtype=torch.float64)))):
            raise ExtremeRows
        return out

    def _by_blocks(self, rows: Tensor, plan: kernels.RankWindow, out: Tensor) -> bool:
        """Writes the plan's answer to `out`; False if rows or answers prove not to be finite.

        Mixing is torch's product of a block, by its threads. What becomes of columns is NumPy's, by ours.
        """
        dtype, fine = linalg.compute_dtype(rows.dtype), True
        mix = self._mixer(dtype)
        size = _MIXED if mix else rows.numel() * dtype.itemsize
        for piece, block in linalg.column_blocks(rows, dtype, size):
            with linalg.written(out[piece], dtype) as values:
                block = mix(block, again=True) if mix else block
                fine = answers(block, plan, values, ours=mix is not None) and fine
        return fine

    def through(self, weights: Tensor) -> Tensor:
        """Weights of the mixed rows as weights of the unmixed ones, `[m] -> [n]`."""
        if self.mixing is None:
            return weights
        if weights.dtype == torch.float64 and weights.is_cpu and not weights.requires_grad:
            return torch.from_numpy(chained(weights.numpy()[None], self.mixing.numpy())[0])
        return weights @ self.mixing.to(weights)

    def blocks(self, dtype: torch.dtype | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Column blocks `[m, b]` of the mixed rows in `dtype` (default: the compute dtype).

        They may be views: do not write.
        """
        dtype = dtype or linalg.compute_dtype(self.rows.dtype)
        size = min(_WIDE, _GRAIN * self.rows.shape[0] * dtype.itemsize)  # on an accelerator whole rows
        mix = self._mixer(dtype)
        for piece, block in linalg.column_blocks(self.rows, dtype, size):
            yield piece, mix(block) if mix else block

    def _mixer(self, dtype: torch.dtype) -> Mixer | Scaler | None:
        """What mixes column blocks in `dtype`; None where nothing is mixed."""
        if self.mixing is None:
            return None
        if self._scales and not accelerator.holds(self.rows):
            return Scaler(self.mixing, dtype)
        return Mixer(self.mixing, self.order, self._pivot(dtype), self.rows, dtype)

    def _pivot(self, dtype: torch.dtype) -> int | None:
        """The row about which mixing in `dtype` keeps the digits of means of rows that share an offset: a row
        of the bulk, where one is known; None where nothing is gained."""
        if self.mixing is None or dtype == torch.float64:
            return None
        means = bool(((self.mixing.sum(dim=1) - 1).abs() < 1e-9).all())
        return self.unmixed.pivot if means else None

    def materialise(self) -> Tensor:
        """The mixed rows `[m, d]`."""
        if self.mixing is None:
            return self.rows.clone()
        if accelerator.holds(self.rows):  # in one block, which is not copied
            return accelerator.joined([block.to(self.rows.dtype) for _, block in self.blocks()])
        out = self.rows.new_empty(self.m, self.rows.shape[1])
        for piece, block in self.blocks():
            out[:, piece] = block
        return out


def geometry_beside(centre: Tensor, mixed: Mixed) -> Geometry:
    """The geometry of `centre` `[d]` followed by the mixed rows, without a copy of the rows.

    `centre` has the columns that `mixed` holds. Raises `ExtremeRows` as `mixed.geometry` does.
    """
    about, n = mixed.widened(centre), len(mixed.rows)
    if mixed.mixing is None:
        return about
    mixing = torch.zeros(mixed.m + 1, n + 1, dtype=torch.float64, device="cpu")
    mixing[0, 0], mixing[1:, 1:] = 1, mixed.mixing
    return about.mixed(
        mixing,
        affine=bool(torch.allclose(mixing.sum(dim=1), torch.ones((), dtype=torch.float64, device="cpu"))),
    )
