"""The geometry of rows: n x n float64 numbers on which every geometric rule decides.

One centred Gram product is taken per set of rows, when first asked for; everything after it, along a whole
chain, is n x n and lives on the CPU. Centring about a row of the bulk keeps float32 products as accurate as
float64 ones even when all rows share an offset that dwarfs their spread, or some rows are far away.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from byzopt import kernels, linalg

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Index: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"

_FAR = 64.0  # the pivot may be this many times further from the bulk than the bulk is wide (both squared)
_TINY = 1e-30  # squared widths below this lose bits in float32 products
_SKETCH = 1 << 9  # columns from which the first pivot is chosen
_EXTREME = 1e-200  # squared lengths of float64 rows beyond this and its inverse ask for another unit
_LARGE = 1 << 20  # numbers from which a second pass costs more than a sketch (on a GPU, a sync costs more)
SMALL = 1 << 16  # up to this many numbers float64 costs nothing worth saving


class Origin(NamedTuple):
    """`<x_i - p, p>` `[m]`, `<p, p>`, and the squared norms `[m]`."""

    cross: Tensor
    square: Tensor
    sq_norms: Tensor


class Geometry:
    """Pairwise inner products of m rows about a pivot p of the bulk, and about the origin for norms.

    Lengths are in units of `unit` (1 but for extreme float64 rows): a rule with an absolute length divides
    it by `unit`. Nothing is computed before it is asked for. Numbers are float64 on the CPU, where NumPy
    works on them: torch takes several times as long for so few. Those of many sets of rows may be stacked.
    """

    def __init__(
        self, m: int, centred: Callable[[], Tensor], origin: Callable[[], Origin], unit: float = 1.0
    ) -> None:
        self.m = m
        self.unit = unit
        self._centred = centred
        self._origin = origin

    @cached_property
    def centred(self) -> Tensor:
        """`<x_i - p, x_j - p>`, `[..., m, m]`, symmetric."""
        return self._centred()

    @cached_property
    def origin(self) -> Origin:
        """Products with the pivot, and norms; costs another pass over the rows."""
        return self._origin()

    @cached_property
    def sq_dists(self) -> Tensor:
        """Squared distances between rows, `[..., m, m]`."""
        return torch.from_numpy(_sq_dists(self.centred.numpy()))

    @cached_property
    def ranked(self) -> Tensor:
        """Each row's squared distances to all rows in ascending order, itself first, `[..., m, m]`."""
        return torch.from_numpy(np.sort(self.sq_dists.numpy(), axis=-1))

    @cached_property
    def dists(self) -> Tensor:
        """Distances between rows, `[..., m, m]`."""
        return self.sq_dists.sqrt()

    @cached_property
    def inner(self) -> Tensor:
        """Inner products `<x_i, x_j>` about the origin, `[m, m]`."""
        cross, square, _ = self.origin
        return self.centred + cross.unsqueeze(-1) + cross.unsqueeze(-2) + square

    @cached_property
    def sq_norms(self) -> Tensor:
        """Squared norms of the rows, `[m]`."""
        return self.origin.sq_norms

    def about(self, i: int) -> Tensor:
        """`<x_j - x_i, x_k - x_i>`, `[m, m]`."""
        gram = self.centred.numpy()
        moved = gram - gram[i][:, None] - gram[i] + gram[i, i]
        twins = self.sq_dists.numpy()[i] == 0
        moved[twins], moved[:, twins] = 0, 0
        return torch.from_numpy(moved)

    def sq_dists_to(self, weights: Tensor) -> Tensor:
        """Squared distances `[..., m]` of every row to Σ weights[i] x_i; `weights` `[..., m]` sum to 1."""
        return torch.from_numpy(self.sq_lengths_to(weights.numpy()))

    def sq_lengths_to(self, weights: Array) -> Array:
        """The same, from an array to an array."""
        lean = self.centred.numpy() @ weights[..., None]
        sizes = self._own - 2 * lean + weights[..., None, :] @ lean
        return cast(Array, np.maximum(sizes, 0, out=sizes).squeeze(-1))

    @cached_property
    def _own(self) -> Array:
        return self.centred.diagonal(dim1=-2, dim2=-1).unsqueeze(-1).numpy()

    def bulk(self) -> Tensor:
        """Mean of the majority nearest to the row that has the tightest majority: weights `[..., m]`.

        A starting point inside the bulk, whatever fewer than half of the rows hold.
        """
        size = self.m // 2 + 1
        best = self.ranked.numpy()[..., self.m // 2].argmin(axis=-1)
        near = np.take_along_axis(self.sq_dists.numpy(), best[..., None, None], axis=-2)[..., 0, :]
        return even(near.argsort(axis=-1, kind="stable")[..., :size], self.m)

    def mixed(self, mixing: Tensor, affine: bool) -> Geometry:
        """The geometry of `mixing @ rows`. `affine` says that every row of `mixing` sums to one."""
        spare = mixing.sum(-1) - 1

        def origin() -> Origin:
            old, square, _ = self.origin
            cross = mixing @ old + (0 if affine else spare * square)
            return Origin(cross, square, (result.centred.diagonal() + 2 * cross + square).clamp_min(0))

        def centred() -> Tensor:
            product = torch.from_numpy(_congruent(mixing.numpy(), self.centred.numpy()))
            if affine:
                return product
            cross, square, _ = self.origin
            lean = torch.outer(spare, mixing @ cross)
            return product + lean + lean.mT + torch.outer(spare, spare) * square

        result = Geometry(mixing.shape[-2], centred, origin, self.unit)
        return result


def even(chosen: Index, m: int) -> Tensor:
    """Equal weights `[..., m]` for the rows `chosen` `[..., k]`, 0 for the others."""
    weights = np.zeros((*chosen.shape[:-1], m))
    np.put_along_axis(weights, chosen, 1 / chosen.shape[-1], axis=-1)
    return torch.from_numpy(weights)


def _sq_dists(gram: Array) -> Array:
    own = np.einsum("...ii->...i", gram)
    dists: Array = own[..., :, None] + own[..., None, :] - 2 * gram
    np.einsum("...ii->...i", dists)[...] = 0
    return np.maximum(dists, 0, out=dists)


def _congruent(mixing: Array, gram: Array) -> Array:
    """mixing @ gram @ mixing^T, symmetric, with rows that are mixed alike made equal to the last bit.

    A product may be summed in another order for another place, and rounding must not set twins apart.
    """
    product: Array = mixing @ gram @ mixing.swapaxes(-1, -2)
    first = (mixing[..., :, None, :] == mixing[..., None, :, :]).all(axis=-1).argmax(axis=-1)
    if (first != np.arange(first.shape[-1])).any():
        product = np.take_along_axis(product, first[..., :, None], axis=-2)
        product = np.take_along_axis(product, first[..., None, :], axis=-1)
    return (product + product.swapaxes(-1, -2)) / 2


class Unusual(Exception):
    """Rows that nobody looked at before prove not to be finite, or extreme: the policy must see them."""


def geometry_of(rows: Tensor, unit: float = 1.0, admitted: bool = True) -> Geometry:
    """The geometry of finite `rows` `[n, d]`, given in units of `unit`.

    Rows that are not `admitted` may hold anything; then asking for products raises `Unusual` where rows are
    not finite, or squares overflow.
    """
    pivot = 0

    def centred() -> Tensor:
        nonlocal pivot
        pivot, product = _centred(rows, admitted)
        return product

    def origin() -> Origin:
        found = _origin(rows, rows[pivot])
        if not (admitted or ordinary(found.sq_norms)):
            raise Unusual
        return found

    return Geometry(rows.shape[0], centred, origin, unit)


def geometry_about(centre: Tensor, rows: Tensor, unit: float, admitted: bool) -> Geometry | None:
    """The geometry of `centre` `[d]` and then `rows`, with `centre` for a pivot; None if that is blunt."""
    n = rows.shape[0]
    dtype = torch.float64 if rows.numel() <= SMALL else linalg.compute_dtype(rows.dtype)
    product = linalg.gram(rows, centre, dtype).cpu()
    if not (admitted or ordinary(product.diagonal())):
        raise Unusual
    if not np.isfinite(product.numpy()).all():
        return None
    best, width = medoid(torch.from_numpy(_sq_dists(product.numpy())))
    if not _TINY < float(product[best, best]) <= _FAR * width:
        return None
    whole = torch.zeros(n + 1, n + 1, dtype=torch.float64)
    whole[1:, 1:] = product
    return Geometry(
        n + 1, lambda: whole, lambda: _origin(torch.cat([centre.unsqueeze(0), rows]), centre), unit
    )


def medoid(sq_dists: Tensor) -> tuple[int, float]:
    """The row whose majority lies nearest, and the squared radius of that majority. Ties: lowest index."""
    radii = np.sort(sq_dists.numpy(), axis=-1)[:, sq_dists.shape[-1] // 2]
    best = int(radii.argmin())
    return best, float(radii[best])


def _centred(rows: Tensor, admitted: bool) -> tuple[int, Tensor]:
    """A pivot of the bulk and the Gram matrix about it; the first pivot comes from a sketch."""

    def product(pivot: int, dtype: torch.dtype) -> Tensor:
        return linalg.gram(rows, rows[pivot], dtype).cpu()

    pivot = _sketched(rows) if rows.numel() > _LARGE and rows.device.type == "cpu" else 0
    dtype = torch.float64 if rows.numel() <= SMALL else linalg.compute_dtype(rows.dtype)
    first = product(pivot, dtype)
    if not (admitted or ordinary(first.diagonal())):
        raise Unusual
    pivot, found = settled(product, first, pivot, dtype)
    return pivot, found if kernels.usable(rows) else _equated(rows, found)


def settled(
    product: Callable[[int, torch.dtype], Tensor], found: Tensor, pivot: int, dtype: torch.dtype
) -> tuple[int, Tensor]:
    """A pivot of the bulk and the Gram matrix about it, from the one `found` about `pivot` in `dtype`.

    `product` is taken again in float64 when squares overflowed or vanished, and about a better pivot while
    the one at hand is far from the bulk. A pass can be fooled only by outliers that dwarf those the pass
    before it saw, so at most n passes are made, and nearly always none.
    """
    for _ in range(len(found)):
        fits = bool(np.isfinite(found.numpy()).all())
        best, width = medoid(torch.from_numpy(_sq_dists(found.numpy()))) if fits else (pivot, 0.0)
        near = fits and float(found[best, best]) <= _FAR * width
        if dtype != torch.float64 and (not fits or (near and width < _TINY)):
            dtype = torch.float64
        elif near or best == pivot:
            break
        else:
            pivot = best
        found = product(pivot, dtype)
    return pivot, found


def _sketched(rows: Tensor) -> int:
    """The medoid of some of the columns: likely a row of the bulk, whatever the others hold."""
    some = rows[:, :: max(1, rows.shape[1] // _SKETCH)].double()
    about = some - some[0]
    product = about @ about.mT
    return medoid(torch.from_numpy(_sq_dists(product.numpy())))[0] if product.isfinite().all() else 0


def ordinary(squares: Tensor) -> bool:
    """Whether squared lengths `[..., n]` are finite, and may be squared: nor do those of the bulk vanish."""
    sizes = np.sort(squares.numpy(), axis=-1)  # NaN is sorted to the end
    return bool((sizes[..., -1] < 1 / _EXTREME).all() and (sizes[..., sizes.shape[-1] // 2] > _EXTREME).all())


def _equated(rows: Tensor, product: Tensor) -> Tensor:
    """`product` with equal rows made equal to the last bit: rounding must not set twins apart.

    Kernels sum all products in one order, so that twins come out equal by themselves.
    """
    kind = list(range(len(product)))
    for j, i in close_pairs(product).tolist():
        if kind[j] == j and kind[i] == i and torch.equal(rows[i], rows[j]):
            kind[j] = i
    return product[kind][:, kind]


def far_pivots(product: Tensor, pivot: Index) -> Index:
    """For stacked products `[R, n, n]` about rows `pivot` `[R]`: better pivots, where these are far away."""
    gram = product.numpy()
    radii = np.sort(_sq_dists(gram), axis=-1)[..., gram.shape[-1] // 2]
    best, each = radii.argmin(axis=-1), np.arange(len(gram))
    return np.where(gram[each, best, best] <= _FAR * radii[each, best], pivot, best)


def close_pairs(product: Tensor) -> Tensor:
    """Places `(..., j, i)`, i < j, of rows that may be equal by their products `[..., n, n]`: one a row."""
    sizes = product.diagonal(dim1=-2, dim2=-1)
    close = linalg.sq_dists_of(product) <= 1e-5 * (sizes.unsqueeze(-1) + sizes.unsqueeze(-2))
    return close.tril(-1).nonzero()


def _origin(rows: Tensor, pivot: Tensor) -> Origin:
    """Norms are summed from the rows themselves: a short row far from the pivot keeps an exact norm."""
    dtype = torch.float64 if rows.numel() <= SMALL else linalg.compute_dtype(rows.dtype)
    cross, norms = linalg.lengths(rows, pivot, dtype)
    if dtype != torch.float64 and not (norms.isfinite().all() and _kept(rows, norms)):
        cross, norms = linalg.lengths(rows, pivot, torch.float64)
    square = linalg.norm(pivot).square()
    return Origin(cross.cpu(), square.cpu(), norms.cpu())


def _kept(rows: Tensor, norms: Tensor) -> bool:
    """Whether no square of a row has vanished in float32."""
    short = norms < _TINY
    return not (short.any() and rows[short].any())
