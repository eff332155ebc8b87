"""The geometry of rows: n x n float64 numbers on which every geometric rule decides.

One centred Gram product is taken per set of rows, when first asked for; everything after it, along a whole
chain, is n x n and lives on the CPU. Centring about a row of the bulk keeps float32 products as accurate as
float64 ones even when all rows share an offset that dwarfs their spread, or some rows are far away.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from byzopt import kernels, linalg

_FAR = 64.0  # the pivot may be this many times further from the bulk than the bulk is wide (both squared)
_TINY = 1e-30  # squared widths below this lose bits in float32 products
_SKETCH = 1 << 11  # columns from which the first pivot is chosen
_EXTREME = 1e-200  # squared lengths of float64 rows beyond this and its inverse ask for another unit
_SMALL = 1 << 16  # up to this many numbers float64 costs nothing worth saving


class Origin(NamedTuple):
    """`<x_i - p, p>` `[m]`, `<p, p>`, and the squared norms `[m]`."""

    cross: Tensor
    square: Tensor
    sq_norms: Tensor


class Geometry:
    """Pairwise inner products of m rows about a pivot p of the bulk, and about the origin for norms.

    Lengths are in units of `unit` (1 but for extreme float64 rows): a rule with an absolute length divides
    it by `unit`. Nothing is computed before it is asked for.
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
        """`<x_i - p, x_j - p>`, `[m, m]`."""
        return self._centred()

    @cached_property
    def origin(self) -> Origin:
        """Products with the pivot, and norms; costs another pass over the rows."""
        return self._origin()

    @cached_property
    def sq_dists(self) -> Tensor:
        """Squared distances between rows, `[m, m]`."""
        return linalg.sq_dists_of(self.centred)

    @cached_property
    def dists(self) -> Tensor:
        """Distances between rows, `[m, m]`."""
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
        lean = self.centred[i]
        moved = self.centred - lean.unsqueeze(-1) - lean.unsqueeze(-2) + lean[i]
        twins = self.sq_dists[i] == 0
        return moved.masked_fill_(twins.unsqueeze(-1) | twins, 0)

    def sq_dists_to(self, weights: Tensor) -> Tensor:
        """Squared distances `[m]` of every row to Σ weights[i] x_i; `weights` `[m]` sum to 1."""
        lean = self.centred @ weights
        return (self.centred.diagonal() - 2 * lean + weights @ lean).clamp_min(0)

    def bulk(self) -> Tensor:
        """Mean of the majority nearest to the row that has the tightest majority: weights `[m]`.

        A starting point inside the bulk, whatever fewer than half of the rows hold.
        """
        size = self.m // 2 + 1
        order = self.sq_dists[medoid(self.sq_dists)[0]].argsort(stable=True)
        return torch.zeros(self.m, dtype=torch.float64).index_fill(0, order[:size], 1 / size)

    def mixed(self, mixing: Tensor, affine: bool) -> Geometry:
        """The geometry of `mixing @ rows`. `affine` says that every row of `mixing` sums to one."""
        spare = mixing.sum(-1) - 1

        def origin() -> Origin:
            old, square, _ = self.origin
            cross = mixing @ old + (0 if affine else spare * square)
            return Origin(cross, square, (result.centred.diagonal() + 2 * cross + square).clamp_min(0))

        def centred() -> Tensor:
            # Equal rows of the mixing give rows equal to the last bit, whatever order a product is summed in.
            kinds, kind = torch.unique(mixing, dim=0, return_inverse=True)
            product: Tensor = (kinds @ self.centred @ kinds.mT)[kind][:, kind]
            if affine:
                return product
            cross, square, _ = self.origin
            lean = torch.outer(spare, mixing @ cross)
            return product + lean + lean.mT + torch.outer(spare, spare) * square

        result = Geometry(mixing.shape[0], centred, origin, self.unit)
        return result


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
        if not (admitted or _ordinary(found.sq_norms)):
            raise Unusual
        return found

    return Geometry(rows.shape[0], centred, origin, unit)


def medoid(sq_dists: Tensor) -> tuple[int, float]:
    """The row whose majority lies nearest, and the squared radius of that majority. Ties: lowest index."""
    dists = sq_dists.numpy()
    radii = np.sort(dists, axis=-1)[:, dists.shape[-1] // 2]
    best = int(radii.argmin())
    return best, float(radii[best])


def _centred(rows: Tensor, admitted: bool) -> tuple[int, Tensor]:
    """A pivot of the bulk and the Gram matrix about it.

    A fast pass, repeated in float64 when squares overflowed or vanished, and about a better pivot while the
    one at hand is far from the bulk. A pass can be fooled only by outliers that dwarf those the pass before
    it saw, so at most n passes are made, and nearly always one: the first pivot comes from a sketch.
    """
    n = rows.shape[0]
    small = rows.numel() <= _SMALL
    pivot = 0 if small else _sketched(rows)
    dtype = torch.float64 if small else linalg.compute_dtype(rows.dtype)
    product = linalg.gram(rows, rows[pivot], dtype).cpu()
    if not (admitted or _ordinary(product.diagonal())):
        raise Unusual
    for _ in range(n):
        fits = bool(np.isfinite(product.numpy()).all())
        best, width = medoid(linalg.sq_dists_of(product)) if fits else (pivot, 0.0)
        near = fits and float(product[best, best]) <= _FAR * width
        if dtype != torch.float64 and (not fits or (near and width < _TINY)):
            dtype = torch.float64
        elif near or best == pivot:
            break
        else:
            pivot = best
        product = linalg.gram(rows, rows[pivot], dtype).cpu()
    return pivot, product if kernels.usable(rows) else _equated(rows, product)


def _sketched(rows: Tensor) -> int:
    """The medoid of some of the columns: likely a row of the bulk, whatever the others hold."""
    some = rows[:, :: max(1, rows.shape[1] // _SKETCH)].double().cpu()
    product = linalg.gram(some, some[0])
    return medoid(linalg.sq_dists_of(product))[0] if np.isfinite(product.numpy()).all() else 0


def _ordinary(squares: Tensor) -> bool:
    """Whether squared lengths are finite, and neither overflow when squared nor, for the bulk, vanish."""
    sizes = np.sort(squares.numpy())  # NaN is sorted to the end
    return bool(sizes[-1] < 1 / _EXTREME and sizes[len(sizes) // 2] > _EXTREME)


def _equated(rows: Tensor, product: Tensor) -> Tensor:
    """`product` with equal rows made equal to the last bit: rounding must not set twins apart.

    Kernels sum all products in one order, so that twins come out equal by themselves.
    """
    sizes = product.diagonal()
    close = linalg.sq_dists_of(product) <= 1e-5 * (sizes.unsqueeze(-1) + sizes)
    kind = list(range(len(sizes)))
    for j, i in close.tril(-1).nonzero().tolist():
        if kind[j] == j and kind[i] == i and torch.equal(rows[i], rows[j]):
            kind[j] = i
    return product[kind][:, kind]


def _origin(rows: Tensor, pivot: Tensor) -> Origin:
    """Norms are summed from the rows themselves: a short row far from the pivot keeps an exact norm."""
    cross = torch.zeros(rows.shape[0], dtype=torch.float64, device=rows.device)
    norms, square = torch.zeros_like(cross), torch.zeros_like(cross[0])
    for piece, block in linalg.column_blocks(rows, torch.float64):
        p = pivot[piece].to(torch.float64)
        cross += (block - p) @ p
        norms += block.square().sum(dim=1)
        square += p @ p
    return Origin(cross.cpu(), square.cpu(), norms.cpu())
