"""The geometry of rows: n x n float64 numbers on which every geometric rule decides.

One centred Gram product is taken per set of rows, when first asked for; everything after it, along a whole
chain, is n x n and lives on the CPU. `measuring` takes the product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, cast
from weakref import proxy

import numpy as np
import torch
from torch import Tensor

from byzopt import kernels

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Index: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"

FEW = 256  # rows up to which n x n numbers fit the cache, and one thread is the fastest
_CACHED = 1 << 16  # numbers at a time beyond
TIE = 1e-9  # squared radii that differ by less, relatively, are equal but for rounding


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
    def sq_dists(self) -> Tensor:
        """Squared distances between rows, `[..., m, m]`."""
        return torch.from_numpy(squared(self.centred.numpy()))

    @cached_property
    def ranked(self) -> Tensor:
        """Each row's squared distances to all rows in ascending order, itself first, `[..., m, m]`."""
        return torch.from_numpy(by_rows(lambda part: np.sort(part, axis=-1), self.sq_dists.numpy()))

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
        lean = self.centred.numpy() @ weights[..., None]
        sizes = self._own - 2 * lean + weights[..., None, :] @ lean
        return cast(Array, np.maximum(sizes, 0, out=sizes).squeeze(-1))

    @cached_property
    def _own(self) -> Array:
        return self.centred.diagonal(dim1=-2, dim2=-1).unsqueeze(-1).numpy()

    def reach(self, rank: int) -> Array:
        """Squared distances of rows to their `rank`-th nearest, `[..., m]`; 0: themselves."""
        if "ranked" in self.__dict__ or self.m <= FEW:
            return cast(Array, self.ranked.numpy()[..., rank])
        return kth(self.sq_dists.numpy(), rank)

    def bulk(self) -> Tensor:
        """Mean of the majority nearest to the row that has the tightest majority: weights `[..., m]`.

        A starting point inside the bulk, whatever fewer than half of the rows hold. Two rows that are each
        other's farthest in their majorities have equal radii whatever the rows hold: of rows whose majority
        is equally tight the means are averaged, and a majority holds all rows that lie on its rim.
        """
        radii = self.reach(self.m // 2) * (1 + TIE)
        best = radii <= radii.min(axis=-1, keepdims=True) * (1 + TIE)
        near = (self.sq_dists.numpy() <= radii[..., None]) & best[..., None]
        shares = near / np.maximum(near.sum(axis=-1, keepdims=True), 1)
        return torch.from_numpy(shares.sum(axis=-2) / best.sum(axis=-1, keepdims=True))

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
        spare = mixing.sum(-1) - 1

        def origin() -> Origin:
            old, square, _ = self.origin
            cross = mixing @ old + (0 if affine else spare * square)
            return Origin(cross, square, (here.centred.diagonal() + 2 * cross + square).clamp_min(0))

        def centred() -> Tensor:
            product = torch.from_numpy(_congruent(mixing.numpy(), self.centred.numpy()))
            if affine:
                return product
            cross, square, _ = self.origin
            lean = torch.outer(spare, mixing @ cross)
            return product + lean + lean.mT + torch.outer(spare, spare) * square

        result = Geometry(mixing.shape[-2], centred, origin, self.unit)
        here = proxy(result)  # no circle: see `geometry_of`
        return result


def even(chosen: Index, m: int) -> Tensor:
    """Equal weights `[..., m]` for the rows `chosen` `[..., k]`, 0 for the others."""
    weights = np.zeros((*chosen.shape[:-1], m))
    np.put_along_axis(weights, chosen, 1 / chosen.shape[-1], axis=-1)
    return torch.from_numpy(weights)


def nearest(dists: Array, count: int) -> Array:
    """Which `count` entries of each row of `dists` `[..., m]` are least; of equal ones the first."""
    if dists.shape[-1] <= FEW:
        chosen = np.zeros(dists.shape, dtype=bool)
        np.put_along_axis(chosen, dists.argsort(axis=-1, kind="stable")[..., :count], True, axis=-1)
        return cast(Array, chosen)
    return cast(Array, by_rows(lambda part: _nearest(part, count), dists))


def _nearest(dists: Array, count: int) -> Any:
    limit = np.partition(dists, count - 1, axis=-1)[..., count - 1, None]
    chosen, rim = dists < limit, dists == limit
    spare = count - chosen.sum(axis=-1, keepdims=True)
    several = (rim.sum(axis=-1, keepdims=True) > spare)[..., 0]
    rim[several] &= rim[several].cumsum(axis=-1) <= spare[several]
    return chosen | rim


def squared(gram: Array) -> Array:
    """Squared distances between rows from their products about any pivot, `[..., m, m]`."""
    squares = np.einsum("...ii->...i", gram)
    dists: Array = by_rows(
        lambda part, own: np.maximum(own[..., :, None] + squares[..., None, :] - 2 * part, 0), gram, squares
    )
    np.einsum("...ii->...i", dists)[...] = 0
    return dists


def kth(values: Array, rank: int) -> Array:
    """The value of `rank` (from 0) in each row of `values` `[..., m]`."""
    return cast(Array, by_rows(lambda part: np.partition(part, rank, axis=-1)[..., rank], values))


def by_rows(work: Callable[..., Any], *arrays: Array) -> Any:
    """`work(*arrays)`, whose results belong to the arrays' rows: of large ones a few rows at a time, so that
    what lies between input and output stays in cache, and by several threads."""
    size, n = arrays[0].size, len(arrays[0])
    if arrays[0].ndim != 2 or n <= FEW:
        return work(*arrays)
    height = max(1, _CACHED * n // size)
    out: list[Any] = [None] * -(-n // height)

    def part(start: int, stop: int) -> None:
        for k in range(start, stop):
            out[k] = work(*(array[k * height : (k + 1) * height] for array in arrays))

    kernels.parallel_for(len(out), size, 1, part)
    return np.concatenate(out)


def _congruent(mixing: Array, gram: Array) -> Array:
    """mixing @ gram @ mixing^T, symmetric, with rows that are mixed alike made equal to the last bit.

    A product may be summed in another order for another place, and rounding must not set twins apart.
    """
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


def majority_medoid(sq_dists: Tensor) -> tuple[int, float]:
    """The row whose majority lies nearest, and the squared radius of that majority. Ties: lowest index."""
    radii = kth(sq_dists.numpy(), sq_dists.shape[-1] // 2)
    best = int(radii.argmin())
    return best, float(radii[best])
