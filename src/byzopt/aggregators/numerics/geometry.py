"""The geometry of rows: n x n float64 numbers on which every geometric rule decides.

One centred Gram product is taken per set of rows, when first asked for; everything after it, along a whole
chain, is n x n and lives on the CPU. `measuring` takes the product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple, cast
from weakref import proxy

import numpy as np
import torch
from torch import Tensor

from byzopt import kernels
from byzopt.aggregators.numerics.distances import Array, Distances, Index
from byzopt.kernels import FEW, TIE

_PRODUCTS = 128  # rows up to which a kernel's products of n x n numbers are faster than BLAS


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

    Args:
        m: Number of rows.
        centred: Their products about a pivot, `[m, m]`, when they are needed.
        origin: Their products about the origin, when they are needed.
        unit: Of all lengths.

    Examples:
        A rule gets one ready-made:

        >>> import torch
        >>> from byzopt.aggregators import Mixed
        >>> geometry = Mixed(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).geometry
        >>> geometry.dists
        tensor([[0., 5.],
                [5., 0.]], dtype=torch.float64)
    """

    def __init__(
        self, m: int, centred: Callable[[], Tensor], origin: Callable[[], Origin], unit: float = 1.0
    ) -> None:
        self.m = m
        self.unit = unit
        self.pivot: int | None = None  # the row of the bulk that products are about, once it is known
        self._centred = centred
        self._origin = origin

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of weights of the rows, `[..., m]`."""
        return (*self.centred.shape[:-2], self.m)

    @cached_property
    def centred(self) -> Tensor:
        """`<x_i - p, x_j - p>`, `[..., m, m]`, symmetric."""
        return self._centred()

    @cached_property
    def origin(self) -> Origin:
        """Products with the pivot, and norms; costs another pass over the rows."""
        return self._origin()

    @cached_property
    def apart(self) -> Distances:
        """Distances between rows, and their order. Who measures rows may have found them on the way."""
        gram = self.centred.numpy()
        return self.__dict__.get("apart") or Distances(gram)

    @cached_property
    def sq_dists(self) -> Tensor:
        """Squared distances between rows, `[..., m, m]`."""
        return torch.from_numpy(self.apart.squared)

    @cached_property
    def ranked(self) -> Tensor:
        """Each row's squared distances to all rows in ascending order, itself first, `[..., m, m]`."""
        return torch.from_numpy(self.apart.ranked)

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
        """As `sq_dists_to`, from an array to an array."""
        gram = self.centred.numpy()
        if weights.ndim == gram.ndim - 1 == 1:
            lean = gram @ weights
            sizes: Array = gram.diagonal() - 2 * lean + weights @ lean
            return np.maximum(sizes, 0, out=sizes)
        lean = gram @ weights[..., None]
        sizes = np.einsum("...ii->...i", gram)[..., None] - 2 * lean + weights[..., None, :] @ lean
        return np.maximum(sizes, 0, out=sizes).squeeze(-1)

    def reach(self, rank: int) -> Array:
        """Squared distances of rows to their `rank`-th nearest, `[..., m]`; 0: themselves."""
        return self.apart.reach(rank)

    def bulk(self) -> Tensor:
        """Mean of the majority nearest to the row that has the tightest majority: weights `[..., m]`.

        A starting point inside the bulk, whatever fewer than half of the rows hold. Two rows that are each
        other's farthest in their majorities have equal radii whatever the rows hold: of rows whose majority
        is equally tight the means are averaged, and a majority holds all rows that lie on its rim.
        """
        return torch.from_numpy(self.bulk_and_squares()[0])

    def bulk_and_squares(self) -> tuple[Array, Array]:
        """The weights of `bulk`, and the squared distances `[..., m]` of all rows to it."""
        radii, apart = self.reach(self.m // 2), self.apart
        if radii.ndim == 1 and kernels.decides(self.m):
            return kernels.bulk_weights(apart.gram, apart.squared, radii)
        weights = _bulk(radii * (1 + TIE), apart.squared)
        return weights, self.sq_lengths_to(weights)

    def taken(self, order: Index) -> Geometry:
        """The geometry of the rows in another order `[m]`."""

        def centred() -> Tensor:
            return torch.from_numpy(self.centred.numpy()[np.ix_(order, order)])

        def origin() -> Origin:
            cross, square, sq_norms = self.origin
            return Origin(cross[order], square, sq_norms[order])

        return Geometry(self.m, centred, origin, self.unit)

    def mixed(self, mixing: Tensor, affine: bool) -> Geometry:
        """The geometry of `mixing @ rows`. `affine` says that every row of `mixing` sums to one."""

        def spare() -> Tensor:
            return mixing.sum(-1) - 1

        def origin() -> Origin:
            old, square, _ = self.origin
            cross = mixing @ old + (0 if affine else spare() * square)
            return Origin(cross, square, (here.centred.diagonal() + 2 * cross + square).clamp_min(0))

        def centred() -> Tensor:
            product = torch.from_numpy(_congruent(mixing.numpy(), self.centred.numpy()))
            if affine:
                return product
            cross, square, _ = self.origin
            lean = torch.outer(spare(), mixing @ cross)
            return product + lean + lean.mT + torch.outer(spare(), spare()) * square

        result = Geometry(mixing.shape[-2], centred, origin, self.unit)
        here = proxy(result)  # no circle: see `geometry_of`
        return result


def _bulk(radii: Array, dists: Array) -> Array:
    best = radii <= radii.min(axis=-1, keepdims=True) * (1 + TIE)
    near = (dists <= radii[..., None]) & best[..., None]
    shares = near / np.maximum(near.sum(axis=-1, keepdims=True), 1)
    weights: Array = shares.sum(axis=-2) / best.sum(axis=-1, keepdims=True)
    return weights


def smoothed_weiszfeld(
    geometry: Geometry, row_weights: Array, squares: Array, floor: Array, steps: int
) -> Array:
    """`steps` times weights `[..., m]` proportional to `row_weights` / max(√`squares`, `floor`), where
    `squares` `[..., m]` then become the squared distances of the rows to their mean with these weights."""
    gram = geometry.centred.numpy()
    if gram.ndim == 2 and kernels.decides(geometry.m):
        return kernels.weiszfeld_steps(gram, row_weights, squares, floor.item(), steps)
    for _ in range(steps):
        weights: Array = row_weights / np.maximum(np.sqrt(squares), floor)
        weights /= np.add.reduce(weights, axis=-1, keepdims=True)
        squares = geometry.sq_lengths_to(weights)
    return weights


def even(chosen: Index, m: int) -> Tensor:
    """Equal weights `[..., m]` for the rows `chosen` `[..., k]`, 0 for the others."""
    weights = np.zeros((*chosen.shape[:-1], m))
    if chosen.ndim == 1:
        weights[chosen] = 1 / len(chosen)
    else:
        np.put_along_axis(weights, chosen, 1 / chosen.shape[-1], axis=-1)
    return torch.from_numpy(weights)


def _congruent(mixing: Array, gram: Array) -> Array:
    """mixing @ gram @ mixing^T, symmetric, with rows that are mixed alike made equal to the last bit.

    A product may be summed in another order for another place, and rounding must not set twins apart.
    """
    if mixing.ndim == 2 and max(mixing.shape) <= _PRODUCTS and kernels.decides(max(mixing.shape)):
        return kernels.mixed_products(mixing.T, gram)
    if mixing.ndim == 2 and len(mixing) > FEW:
        product = _mirrored(torch.from_numpy(mixing), torch.from_numpy(gram)).numpy()
    else:
        product = mixing @ gram @ mixing.swapaxes(-1, -2)
    first = _first_alike(mixing)
    if (first != np.arange(first.shape[-1])).any():
        product = np.take_along_axis(product, first[..., :, None], axis=-2)
        product = np.take_along_axis(product, first[..., None, :], axis=-1)
    symmetric: Array = (product + product.swapaxes(-1, -2)) / 2
    return symmetric


def _mirrored(mixing: Tensor, gram: Tensor) -> Tensor:
    """As above, for many rows: of two blocks of the product that mirror each other one is taken."""
    left = mixing @ gram
    out = torch.empty(len(left), len(left), dtype=torch.float64, device="cpu")
    for start in range(0, len(left), FEW):
        block = slice(start, start + FEW)
        out[block, start:] = left[block] @ mixing[start:].T
        out[start:, block] = out[block, start:].T
    return out


def _first_alike(mixing: Array) -> Index:
    """For each row of `mixing` `[..., m, n]` the place of the first row that equals it."""
    if mixing.ndim > 2:
        alike = (mixing[..., :, None, :] == mixing[..., None, :, :]).all(axis=-1)
        return cast(Index, alike.argmax(axis=-1))
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(row.tobytes(), i) for i, row in enumerate(mixing + 0.0)])  # no -0.0
