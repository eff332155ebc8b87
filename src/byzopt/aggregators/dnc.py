"""DnC, divide and conquer: rows that stand out along the direction of greatest spread are dropped."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.kinds import GeometricRule
from byzopt.aggregators.numerics.distances_seen import DistancesSeen
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import counted, require
from byzopt.rng import stream

_FAR = 100.0  # rows this many majority radii from the bulk would hide all others from the top direction


@RULES.register("dnc")
@dataclass(frozen=True)
class DnC(GeometricRule):
    """The mean of the rows left when the ⌊c f⌋ with the largest <v_i - v̄, u>² are dropped.

    u is the top right singular vector of the centred rows, from an exact eigen-decomposition of their n x n
    Gram matrix, or of their d x d covariance where there are more than 256 rows and d < n. `filtering` is the
    paper's c > 0. `coordinates` b: score on b coordinates drawn from (seed, "dnc", t, i), `iterations` times,
    and keep the rows that survive every draw, or, where none does, those that survive most often; `at(t)` is
    the recipe of round t. By default all coordinates are used, once, and nothing is drawn.

    Needs 2 f < n and c f < n. Breakdown point f/n for c >= 1; κ unproved (the paper bounds the error in
    terms of the largest eigenvalue of the honest covariance). Scale- and translation-equivariant. Ties: the
    first in the order of the rows' values is kept. Cost: one Gram product (of b columns for each draw), or
    n d² for the covariance.
    Source: Shejwalkar, Houmansadr, NDSS 2021, algorithm 2. Where we differ: a row of 1e30 is all that u
    sees, and a second one of 1e6 would pass unseen, so rows more than 100 majority radii from the bulk's
    middle row are dropped first, farthest first, on account of c f; an empty intersection is filled as
    said.

    Args:
        f: Number of faulty rows that the rule is set to withstand, 2 f < n.
        filtering: c: ⌊c f⌋ rows are dropped.
        iterations: Number of draws of coordinates.
        coordinates: How many are drawn; None: all, and nothing is drawn.
        seed: Of the draws.
        t: The round, part of the draws' streams.

    Examples:
        >>> import torch
        >>> from byzopt import DnC
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> DnC(f=1)(rows)
        tensor([1.5000, 1.5000])
    """

    by_value = True

    f: int
    filtering: float = 1.0
    iterations: int = 1
    coordinates: int | None = None
    seed: int = 0
    t: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.filtering > 0, "Parameter `filtering` of DnC", "be positive", self.filtering)
        require(self.iterations >= 1, "Parameter `iterations` of DnC", "be at least 1", self.iterations)
        b = self.coordinates
        require(b is None or b >= 1, "Parameter `coordinates` of DnC", "be at least 1", b)

    @property
    def dropped(self) -> int:
        """⌊c f⌋, whatever rounding does to c f."""
        return int(self.filtering * self.f + 1e-9)

    def check(self, n: int) -> None:
        super().check(n)
        c, numbers = self.dropped, f"{counted(self.dropped, 'row')} to drop of n = {n}"
        require(c < n, "Parameter `filtering` of DnC", "satisfy c f < n", numbers, "Lower filtering.")

    @property
    def draws(self) -> bool:
        return self.coordinates is not None

    @property
    def validates(self) -> bool:  # type: ignore[override]
        """All rows are looked at whole, unless coordinates are drawn."""
        return self.coordinates is None

    def at(self, t: int) -> DnC:
        return replace(self, t=t)

    def weights(self, geometry: Geometry) -> Tensor:
        return _even(self._kept(geometry))

    def reduce(self, mixed: Mixed) -> Tensor:
        if self.coordinates is None or self.coordinates >= mixed.d:
            return super().reduce(mixed)
        times = torch.stack([self._kept(self._drawn(mixed, i)) for i in range(self.iterations)]).sum(dim=0)
        return mixed.blend(_even(times == times.max()))

    def _drawn(self, mixed: Mixed, i: int) -> Geometry:
        order = torch.randperm(mixed.d, generator=stream(self.seed, "dnc", self.t, i), device="cpu")
        drawn = torch.zeros(mixed.d, dtype=torch.bool, device="cpu").index_fill(
            0, order[: self.coordinates], True
        )
        columns = mixed.held(drawn).nonzero().flatten().to(mixed.rows.device)
        few = Mixed(mixed.rows[:, columns].double(), mixed.unit, mixed.mixing).materialise()
        return mixed.again(few).geometry

    def _kept(self, geometry: Geometry) -> Tensor:
        apart = geometry.apart
        best, radius = apart.middle()
        away = torch.from_numpy(apart.lengths_from(best))
        far = min(self.dropped, int((away > _FAR**2 * radius).sum()))
        rest = away.argsort(stable=True)[: geometry.m - far].sort().values
        if isinstance(apart, DistancesSeen) and apart.points.d < len(rest):
            leans = _leans(apart.points.rows[rest].double())
        else:
            centred = geometry.centred[rest][:, rest]
            lean = centred.mean(dim=0)
            leans = _top(centred - lean - lean.unsqueeze(1) + lean.mean())
        order = leans.square().round(decimals=9).argsort(stable=True)  # rounding must not break a tie
        kept = rest[order[: geometry.m - self.dropped]]
        return torch.zeros(geometry.m, dtype=torch.bool, device="cpu").index_fill(0, kept, True)


def _leans(rows: Tensor) -> Tensor:
    """How far rows `[m, d]`, fewer columns than rows, lean to u: Σ <v_i - v̄, u>² is 1."""
    ways = rows - rows.mean(dim=0)
    ways = ways / ways.abs().max().clamp_min(1e-300)
    along = ways @ _top(ways.T @ ways)
    leans: Tensor = along / torch.linalg.vector_norm(along).clamp_min(1e-300)
    return leans


def _top(spread: Tensor) -> Tensor:
    """The eigenvector of the greatest eigenvalue of a symmetric matrix."""
    spread = spread / spread.abs().max().clamp_min(1e-300)  # the solver fails on entries of 1e280
    top: Tensor = torch.linalg.eigh(spread).eigenvectors[:, -1]
    return top


def _even(kept: Tensor) -> Tensor:
    return kept / kept.sum(dtype=torch.float64)
