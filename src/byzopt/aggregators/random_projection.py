"""Random projection: distances from a short sketch of the rows, the aggregate from the rows themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from byzopt import accelerator
from byzopt.aggregators.core.pre_aggregator import PRE_AGGREGATORS, PreAggregator
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.measuring import geometry_of
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import require
from byzopt.rng import stream


@PRE_AGGREGATORS.register("random_projection")
@dataclass(frozen=True)
class RandomProjection(PreAggregator):
    """The rows stay as they are; the stages and the rule behind see the geometry of P v_i in `k` dimensions.

    P adds every coordinate, with a random sign, to one of k sums. E‖P u‖² = ‖u‖², with standard deviation at
    most √(2/k) ‖u‖²: 2 % of squared distances at the default. For geometric rules only; rules that look at
    columns, lengths or angles look at the rows. With d <= k nothing is done. P is drawn from (seed,
    "random_projection", t, block); `at(t)` is the recipe of round t, a new P each, because rows crafted for a
    P that is known can hide in its kernel. Scale- and translation-equivariant. No κ is composed: lemmas are
    about true distances. Cost: one pass over the rows in float64 instead of a Gram product of d columns.
    Source: the sketch of Charikar, Chen, Farach-Colton, 2002 (hashing into k signed sums).

    Args:
        k: Number of dimensions.
        seed: Of the projection.
        t: The round, part of the projection's stream.

    Examples:
        >>> import torch
        >>> from byzopt import Krum, RandomProjection
        >>> rows = torch.randn(7, 10_000, generator=torch.Generator().manual_seed(0))
        >>> (RandomProjection(k=64) >> Krum(f=1))(rows).shape
        torch.Size([10000])
    """

    sketches = True
    mixes = False

    k: int = 4096
    seed: int = 0
    t: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.k >= 1, "Parameter `k` of RandomProjection", "be at least 1", self.k)

    def at(self, t: int) -> RandomProjection:
        return replace(self, t=t)

    def mixing(self, geometry: Geometry) -> Tensor:
        return torch.eye(geometry.m, dtype=torch.float64, device="cpu")

    def apply(self, mixed: Mixed) -> Mixed:
        if mixed.d <= self.k:
            return mixed
        sums = mixed.total(self.projected(mixed.rows, mixed.first, mixed.d))
        geometry = geometry_of(sums, mixed.unit, order=mixed.among)
        if mixed.mixing is not None:
            geometry = geometry.mixed(mixed.mixing, affine=False)  # clipping may stand before
        seen = mixed.seen(geometry)
        if mixed.mixing is None:
            seen.unmixed = geometry  # knows a row of the bulk
        return seen

    def projected(self, rows: Tensor, first: int = 0, d: int | None = None) -> Tensor:
        """P v_i for all rows, `[n, d] -> [n, k]`, float64; or what the columns from `first` on, of d, add.

        Coordinates are taken k at a time, turned by a random shift and given random signs: sums without
        scattered additions, whose order would vary on a GPU.
        """
        k, end = self.k, first + rows.shape[1]
        d = end if d is None else d
        if accelerator.holds(rows):
            return self._projected_there(rows, first, d)
        total = torch.zeros(rows.shape[0], k, dtype=torch.float64, device=rows.device)
        for start in range(first // k * k, end, k):
            signs, shift = self._drawn(start, d)
            here = slice(max(start, first), min(start + k, end))
            part = rows[:, here.start - first : here.stop - first].double()
            part = part * signs[here.start - start : here.stop - start].to(part)
            wide = torch.nn.functional.pad(part, (here.start - start, start + k - here.stop))
            total += wide.roll(shift, dims=1)
        return total

    def _drawn(self, start: int, d: int) -> tuple[Tensor, int]:
        """The signs of the coordinates from `start` on, at most k, and by how much they are turned."""
        draw = stream(self.seed, "random_projection", self.t, start // self.k)
        signs = torch.randint(0, 2, (min(self.k, d - start),), generator=draw, device="cpu") * 2.0 - 1
        return signs, int(torch.randint(self.k, (), generator=draw, device="cpu"))

    def _projected_there(self, rows: Tensor, first: int, d: int) -> Tensor:
        """As `projected`, on an accelerator: all coordinates at once, with one copy of the rows."""
        k, end = self.k, first + rows.shape[1]
        starts = range(first // k * k, end, k)
        signs, shifts = zip(*(self._drawn(start, d) for start in starts), strict=True)
        signed = rows * torch.cat(signs)[first - starts[0] : end - starts[0]].to(rows)
        wide = torch.nn.functional.pad(signed, (first - starts[0], starts[-1] + k - end))
        places = (torch.arange(k, device="cpu") - torch.tensor(shifts, device="cpu").unsqueeze(1)) % k
        shape = len(rows), len(starts), k
        turned = wide.view(shape).gather(2, places.to(rows.device).expand(shape))
        return turned.sum(dim=1, dtype=torch.float64)
