"""The geometry of rows: n x n float64 numbers on which every geometric rule decides.

One centred Gram product is taken per set of rows, when first asked for; everything after it, along a whole
chain, is n x n and lives on the CPU. `measuring` takes the product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple
from weakref import proxy

import torch
from torch import Tensor

from byzopt.aggregators.numerics.distances import Distances, Index
from byzopt.aggregators.numerics.distances_seen import DistancesSeen


class Origin(NamedTuple):
    """`<x_i - p, p>` `[m]`, `<p, p>`, and the squared norms `[m]`; of R sets of rows `[R, m]`, `[R, 1]` and
    `[R, m]`."""

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
        squares: Their squared norms, `[m]`, where these can be had without the products.

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
        self,
        m: int,
        centred: Callable[[], Tensor],
        origin: Callable[[], Origin],
        unit: float = 1.0,
        squares: Callable[[], Tensor] | None = None,
    ) -> None:
        self.m = m
        self.unit = unit
        self.pivot: int | None = None  # the row of the bulk that products are about, once it is known
        self._centred = centred
        self._origin = origin
        self._squares = squares

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

    def begin(self) -> None:
        """Takes the products now, unless `apart` may do without them: where ranks take them together, all do
        before anything can fail on one alone."""
        if "apart" not in self.__dict__:
            _ = self.centred

    def look(self) -> None:
        """Sees to it that somebody has looked at the rows, and that what is wrong with them was raised."""
        apart = self.__dict__.get("apart")
        if not ("sq_norms" in self.__dict__ or (apart is not None and apart.looked)):
            _ = self.centred if self._squares is None else self.sq_norms

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
        """Inner products `<x_i, x_j>` about the origin, `[..., m, m]`."""
        cross, square, _ = self.origin
        return self.centred + cross.unsqueeze(-1) + cross.unsqueeze(-2) + square.unsqueeze(-1)

    @cached_property
    def sq_norms(self) -> Tensor:
        """Squared norms of the rows, `[..., m]`. Where nobody has asked for products they cost one pass over
        the rows, and no product of all with each other."""
        if self._squares is None or self.__dict__.keys() & {"centred", "origin"}:
            return self.origin.sq_norms
        return self._squares()

    def about(self, i: int) -> Tensor:
        """`<x_j - x_i, x_k - x_i>`, `[m, m]`."""
        return torch.from_numpy(self.apart.about(i))

    def sq_dists_to(self, weights: Tensor) -> Tensor:
        """Squared distances `[..., m]` of every row to Σ weights[i] x_i; `weights` `[..., m]` sum to 1."""
        return torch.from_numpy(self.apart.lengths_to(weights.numpy()))

    def bulk(self) -> Tensor:
        """Mean of the majority nearest to the row that has the tightest majority: weights `[..., m]`."""
        return torch.from_numpy(self.apart.bulk()[0])

    def taken(self, order: Index) -> Geometry:
        """The geometry of the rows in another order `[m]`."""

        def centred() -> Tensor:
            here.apart = here.__dict__.get("apart") or self.apart.taken(order)
            return torch.from_numpy(here.apart.gram)

        def origin() -> Origin:
            cross, square, sq_norms = self.origin
            return Origin(cross[order], square, sq_norms[order])

        result = Geometry(self.m, centred, origin, self.unit, lambda: self.sq_norms[order])
        here = proxy(result)  # no circle: see `geometry_of`
        seen = self.__dict__.get("apart")
        if isinstance(seen, DistancesSeen):
            result.apart = seen.taken(order)
        return result

    def mixed(self, mixing: Tensor, affine: bool, scales: bool = False) -> Geometry:
        """The geometry of `mixing @ rows`. `affine` says that every row of `mixing` sums to one, `scales`
        that it is diagonal."""

        def spare() -> Tensor:
            return mixing.sum(-1) - 1

        def origin() -> Origin:
            old, square, _ = self.origin
            cross = _times(mixing, old) + (0 if affine else spare() * square)
            own = here.centred.diagonal(dim1=-2, dim2=-1)
            return Origin(cross, square, (own + 2 * cross + square).clamp_min(0))

        def centred() -> Tensor:
            apart = here.__dict__.get("apart") or self.apart.mixed(mixing.numpy())
            product = torch.from_numpy(apart.gram)
            if affine:
                here.apart = apart
                return product
            cross, square, _ = self.origin
            lean = _outer(spare(), _times(mixing, cross))
            return product + lean + lean.mT + _outer(spare(), spare()) * square.unsqueeze(-1)

        def squares() -> Tensor:
            return self.sq_norms * mixing.diagonal(dim1=-2, dim2=-1).square()

        result = Geometry(mixing.shape[-2], centred, origin, self.unit, squares if scales else None)
        here = proxy(result)  # no circle: see `geometry_of`
        seen = self.__dict__.get("apart")
        if affine and isinstance(seen, DistancesSeen):
            points = seen.points.mixed(mixing.numpy())
            if points is not None:
                result.apart = seen.mixed_as(points, mixing.numpy())
        return result


def _times(mixing: Tensor, vec: Tensor) -> Tensor:
    """`mixing` `[..., m, n]` times `vec` `[..., n]`."""
    return mixing @ vec if vec.ndim == 1 else (mixing @ vec.unsqueeze(-1)).squeeze(-1)


def _outer(one: Tensor, other: Tensor) -> Tensor:
    """The products of all entries of two vectors `[..., m]`, `[..., m, m]`."""
    return one.unsqueeze(-1) * other.unsqueeze(-2)
