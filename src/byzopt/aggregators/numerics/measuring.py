"""Products of rows, taken once: about a pivot of the bulk, in the dtype that keeps them accurate.

Centring about a row of the bulk keeps float32 products as accurate as float64 ones even when all rows share
an offset that dwarfs their spread, or some rows are far away.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import proxy

import numpy as np
import torch
from torch import Tensor

from byzopt import accelerator, kernels, lengths, linalg
from byzopt.aggregators.numerics.distances import Distances, Index, squared, within_range
from byzopt.aggregators.numerics.distances_seen import DistancesSeen
from byzopt.aggregators.numerics.distances_there import distances_by
from byzopt.aggregators.numerics.geometry import Geometry, Origin
from byzopt.aggregators.numerics.ordering import Order, listed, row_order, sample
from byzopt.aggregators.numerics.points import ExtremeRows as ExtremeRows
from byzopt.aggregators.numerics.points import Points, are_points
from byzopt.aggregators.numerics.products import WHOLE

_FAR = 64.0  # the pivot may be this many times further from the bulk than the bulk is wide (both squared)
_NEAR = 16.0  # as it appears in a sketch, which may be wrong
_TINY = 1e-30  # squared widths below this lose bits in float32 products
_SKETCH = 1 << 9  # columns from which the first pivot is chosen
_LARGE = 1 << 20  # numbers from which a second pass costs more than a sketch
ORIGIN = -1  # in the place of a row that products are about
SMALL = 1 << 16  # up to this many numbers float64 costs nothing worth saving


def geometry_of(
    rows: Tensor, unit: float = 1.0, admitted: bool = True, order: Order | None = None, first: int = 0
) -> Geometry:
    """The geometry of finite `rows` `[n, d]`, given in units of `unit`.

    Rows that are not `admitted` may hold anything; then asking for products raises `ExtremeRows` where rows
    are not finite, or squares overflow. With an `order` of the rows' values products depend on them alone, to
    the last bit, and not on their places. Else row `first` is the first that products are taken about. On an
    accelerator it is the origin, which needs no copy of the rows.
    """
    measure = _centred_there if accelerator.holds(rows) else _centred

    def measured() -> tuple[int, Distances]:
        return measure(rows, admitted, order, first)

    def centred() -> Tensor:
        apart = here.__dict__.get("apart")
        pivot, found = apart.measured if isinstance(apart, DistancesSeen) else measured()
        here.apart, here.pivot = apart or found, None if pivot == ORIGIN else pivot
        return torch.from_numpy(found.gram)

    def origin() -> Origin:
        centred = here.centred  # decides on the pivot
        if here.pivot is None:
            return _own_origin(rows, centred.diagonal())
        measured = _origin(rows, rows[here.pivot])
        if not (admitted or within_range(measured.sq_norms.numpy())):
            raise ExtremeRows
        return measured

    def squares() -> Tensor:
        found = lengths.figures(rows, None, "squares")[0]
        if not (admitted or within_range(found.numpy())):
            raise ExtremeRows
        return found

    pass_ = None if accelerator.holds(rows) else squares  # there products about the origin hold them
    geometry = Geometry(rows.shape[0], centred, origin, unit, pass_)
    here = proxy(geometry)  # a circle would keep the rows until garbage is collected
    if are_points(rows):
        geometry.apart = DistancesSeen(Points(rows, admitted), measured)
    return geometry


def usual_distances(rows: Tensor, ordered: bool) -> tuple[Index | None, Distances] | None:
    """The order of few usable `rows` `[n, d]` by their values, if they are to be `ordered`, and distances
    between them in that order, where the first pass tells.

    None where it does not, or rows are so large that `geometry_of` takes another way; it finds the same bits.
    Raises `ExtremeRows` as that does of rows that are not admitted.
    """
    size, n = rows.numel(), rows.shape[0]
    if size > _LARGE:
        return None
    if size <= SMALL:
        order, found = kernels.measured_rows(rows, torch.float64, listed(rows.shape[1]) if ordered else None)
    else:
        order = row_order(rows) if ordered else None
        pivot = rows[0 if order is None else order.item(n // 2)]
        gram = kernels.fused_gram(rows, pivot).numpy()
        gram = gram if order is None else gram.take(order, 0).take(order, 1)
        found = kernels.measured_products(gram)
    if not found.ordinary:
        raise ExtremeRows
    near = found.work.item(found.best * (n + 1)) <= _FAR * found.radius
    fine = found.finite and near and (size <= SMALL or found.radius >= _TINY)
    return (order, Distances.of(found)) if fine else None


def geometry_about(centre: Tensor, rows: Tensor, unit: float, admitted: bool) -> Geometry | None:
    """The geometry of `centre` `[d]` and then `rows`, about `centre`; None if that loses digits."""
    n = rows.shape[0]
    dtype = torch.float64 if rows.numel() <= SMALL else linalg.compute_dtype(rows.dtype)
    product = linalg.gram(rows, centre, dtype).cpu()
    apart = Distances(product.numpy())
    if not (admitted or apart.ordinary):
        raise ExtremeRows
    if not apart.finite:
        return None
    best, width = apart.middle()
    if not _TINY < float(product[best, best]) <= _FAR * width:
        return None
    padded = torch.zeros(n + 1, n + 1, dtype=torch.float64, device="cpu")
    padded[1:, 1:] = product
    return Geometry(
        n + 1, lambda: padded, lambda: _origin(torch.cat([centre.unsqueeze(0), rows]), centre), unit
    )


def _centred(rows: Tensor, admitted: bool, among: Order | None, pivot: int) -> tuple[int, Distances]:
    """A pivot of the bulk and distances by products about it; the first pivot comes from a sketch."""
    order = None if among is None else among.index

    def product(pivot: int, dtype: torch.dtype) -> Tensor:
        return linalg.gram(rows, None if pivot == ORIGIN else rows[pivot], dtype, order)

    if rows.numel() > _LARGE:
        pivot = _sketched(rows, order, not linalg.one_order(rows))
    elif order is not None:
        pivot = int(order[len(order) // 2])  # likely of the bulk
    dtype = torch.float64 if rows.numel() <= SMALL else linalg.compute_dtype(rows.dtype)
    first = Distances(product(pivot, dtype).numpy(), dtype != torch.float64)
    if not (admitted or first.ordinary):
        raise ExtremeRows
    pivot, apart = about_bulk(product, first, pivot, dtype, order)
    return pivot, apart if linalg.one_order(rows) else _equated(rows, apart)


def _centred_there(rows: Tensor, admitted: bool, among: Order | None, first: int) -> tuple[int, Distances]:
    """As `_centred` for rows on an accelerator: about the origin, unless the bulk is far from it.

    Products are fetched together with the keys of the rows' order. `first` is not asked: a pivot would cost a
    copy of the rows, and a sketch a look.
    """

    def product(pivot: int, dtype: torch.dtype) -> Tensor:
        return fetched(linalg.gram(rows, None if pivot == ORIGIN else rows[pivot], dtype))

    def fetched(there: Tensor) -> Tensor:
        if among is None or not accelerator.holds(among.keys):
            return accelerator.fetch(there)[0]
        gram, keys = accelerator.fetch(there, among.keys)
        among.learn(keys)
        return gram

    dtype = torch.float64 if rows.numel() <= SMALL else linalg.compute_dtype(rows.dtype)
    there = linalg.gram(rows, None, dtype)
    seen = distances_by(there, fetched(there).numpy())
    if not (admitted or seen.ordinary):
        raise ExtremeRows
    pivot, apart = about_bulk(product, seen, ORIGIN, dtype, None if among is None else among.index)
    return pivot, _equated(rows, apart)


def about_bulk(
    product: Callable[[int, torch.dtype], Tensor],
    apart: Distances,
    pivot: int,
    dtype: torch.dtype,
    order: Index | None = None,
) -> tuple[int, Distances]:
    """A pivot of the bulk and distances by products about it, from those by products about `pivot` in
    `dtype`.

    `product` is taken again in float64 when squares overflowed or vanished, and about a better pivot while
    the one at hand is far from the bulk. A pass can be fooled only by outliers that dwarf those the pass
    before it saw, so at most n passes are made, and nearly always none.
    """
    for _ in range(len(apart.gram)):
        best, width = apart.middle(order) if apart.finite else (pivot, 0.0)
        near = apart.finite and float(apart.gram[best, best]) <= _FAR * width
        if dtype != torch.float64 and (not apart.finite or (near and width < _TINY)):
            dtype = torch.float64
        elif near or best == pivot:
            break
        else:
            pivot = best
        apart = Distances(product(pivot, dtype).numpy(), dtype != torch.float64)
    return pivot, apart


def _sketched(rows: Tensor, order: Index | None, copied: bool) -> int:
    """The medoid of some rows in some of the columns: likely a row of the bulk, whatever the others hold.

    Where rows are `copied` to be centred it is the origin, if that is not far from the bulk.
    """
    n, d = rows.shape
    among = (np.arange(n) if order is None else order)[:: -(-n // WHOLE)]
    some = rows[:, :: max(1, d // min(_SKETCH, max(64, (_SKETCH << 9) // len(among))))]
    some = (some if len(among) == n and order is None else some[among]).double()
    about = some - some[0]
    apart = Distances((about @ about.mT).numpy())
    best, width = apart.middle() if apart.finite else (0, 0.0)
    if copied and float(some[best] @ some[best]) <= _NEAR * width:
        return ORIGIN
    return int(among[best])


def _equated(rows: Tensor, apart: Distances) -> Distances:
    """Distances by products that are made equal, to the last bit, for equal rows: rounding must not set twins
    apart. Only rows that agree in some of their columns are compared whole.
    """
    if accelerator.holds(rows):
        return _as_kind(apart, _kinds_there(rows, apart))
    some = (sample(rows) + 0.0).clone(memory_format=torch.contiguous_format)  # -0.0 becomes 0.0
    alike: dict[bytes, list[int]] = {}
    kind = list(range(len(rows)))
    for j, part in enumerate(some.view(torch.uint8).numpy()):
        others = alike.setdefault(part.tobytes(), [])
        kind[j] = next((i for i in others if torch.equal(rows[i], rows[j])), j)
        if kind[j] == j:
            others.append(j)
    return _as_kind(apart, kind)


def _as_kind(apart: Distances, kind: list[int]) -> Distances:
    """Distances by products that are those of the row `kind[i]` for each row i."""
    return (
        apart if kind == list(range(len(kind))) else Distances(apart.gram[np.ix_(kind, kind)], apart.single)
    )


def _kinds_there(rows: Tensor, apart: Distances) -> list[int]:
    """For each row on an accelerator the first one that equals it. Looking at rows costs more there than
    looking at their products: two looks at most, whatever their number."""
    kind, values = list(range(apart.m)), apart.gram
    # Rows with equal products are as equal as they can be made.
    close = [(j, i) for j, i in apart.close() if (values[i] != values[j]).any()]
    if close:
        some = sample(rows).cpu()
        close = [(j, i) for j, i in close if torch.equal(some[i], some[j])]
    if close:
        same = torch.stack([(rows[i] == rows[j]).all() for j, i in close]).cpu()
        for (j, i), equal in zip(close, same.tolist(), strict=True):
            if equal and kind[j] == j and kind[i] == i:
                kind[j] = i
    return kind


def far_pivots(product: Tensor, pivot: Index) -> Index:
    """For stacked products `[R, n, n]` about rows `pivot` `[R]`: better pivots, where these are far away."""
    gram = product.numpy()
    radii = np.sort(squared(gram), axis=-1)[..., gram.shape[-1] // 2]
    best, each = radii.argmin(axis=-1), np.arange(len(gram))
    return np.where(gram[each, best, best] <= _FAR * radii[each, best], pivot, best)


def close_pairs(product: Tensor) -> Tensor:
    """Places `(..., j, i)`, i < j, of rows that may be equal by their products `[..., n, n]`: one a row."""
    sizes = product.diagonal(dim1=-2, dim2=-1)
    close = linalg.sq_dists_of(product) <= 1e-5 * (sizes.unsqueeze(-1) + sizes.unsqueeze(-2))
    return torch.from_numpy(np.argwhere(np.tril(close.numpy(), -1)))  # torch takes many threads for it


def _origin(rows: Tensor, pivot: Tensor) -> Origin:
    """Norms are summed from the rows themselves: a short row far from the pivot keeps an exact norm."""
    cross, norms = lengths.lengths(rows, pivot)
    square = linalg.norm(pivot).square()
    return Origin(cross.cpu(), square.cpu(), norms.cpu())


def _own_origin(rows: Tensor, sq_norms: Tensor) -> Origin:
    """Products about the origin hold the `sq_norms`; where some may have vanished they are taken again."""
    if rows.dtype != torch.float64 and (sq_norms < _TINY).any():
        (sq_norms,) = accelerator.fetch(accelerator.squares(rows, torch.float64))
    zeros = torch.zeros_like(sq_norms)
    return Origin(zeros, zeros.sum(), sq_norms)
