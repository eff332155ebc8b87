"""Vector medians with a majority about them: any row i with more than n/2 rows within a radius (VMED).

Written over leading dimensions. Rows that are not `fit` are nobody's neighbours, and no medians.
"""

from __future__ import annotations

from functools import cached_property
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.guards.spare import room_after
from byzopt.aggregators.numerics.measuring import geometry_of

DIRECT = 1 << 18  # n² d up to which distances are taken from differences, without a Gram product
CHUNK = 1 << 16  # columns that are converted to float64 at once
FEW = 64  # rows up to which all distances, on the way, cost no more than those from some rows one by one
MANY = 1 << 20  # numbers from which the first touch of new memory costs more than sums


class MedianRow(NamedTuple):
    """A median row's index (`place`), all rows' distances `[..., n]` to it, the `radius` of the majority
    nearest to it, and whether that is within the radius asked for (`found`)."""

    place: Tensor
    dists: Tensor
    radius: Tensor
    found: Tensor


class Crowd:
    """Rows `[..., n, d]` and which of them are `fit` `[..., n]`. Their distances, infinite to and from
    others, and their lengths are taken when first asked for, unless they were found on the way."""

    def __init__(
        self, rows: Tensor, fit: Tensor, dists: Tensor | None = None, lengths: Tensor | None = None
    ) -> None:
        self.rows, self.fit = rows, fit
        if dists is not None:
            self.dists = dists
        if lengths is not None:
            self.lengths = lengths

    @cached_property
    def dists(self) -> Tensor:
        """`[..., n, n]`, as `distances`."""
        return distances(self.rows, self.fit)

    @cached_property
    def lengths(self) -> Tensor:
        """`[..., n]`, as `norms`."""
        return norms(self.rows)

    def dists_from(self, i: int) -> Tensor:
        """Those of `[n, d]` rows from row i, `[n]`."""
        if "dists" in self.__dict__:
            return self.dists[i]
        return torch.where(self.fit, _lengths_from(self.rows, i).nan_to_num(nan=inf), inf)


def fit(rows: Tensor) -> Tensor:
    """Which rows `[..., n, d]` are finite, and have a finite squared length: `[..., n]`."""
    return norms(rows).isfinite()


def norms(rows: Tensor) -> Tensor:
    """Euclidean lengths `[..., n]` in float64. On a CPU float32 rows are summed in float32, many times
    faster, unless that overflows."""
    if rows.dtype == torch.float32 and rows.device.type == "cpu":
        quick: Tensor = torch.linalg.vector_norm(rows, dim=-1).double()
        if quick.isfinite().all():
            return quick
    return linalg.norm(rows)


def sound(rows: Tensor, fit: Tensor) -> Tensor:
    """`rows` with zeros in place of those that are not fit; as they are where all are (asked on a CPU)."""
    if rows.device.type == "cpu" and fit.all():
        return rows
    return torch.where(fit.unsqueeze(-1), rows, 0)


def distances(rows: Tensor, fit: Tensor) -> Tensor:
    """Distances `[..., n, n]` in float64; infinite to and from rows that are not fit. Exact where n² d is
    small, so that equal rows are at distance 0; else from a centred Gram product."""
    rows = sound(rows, fit)
    n, d = rows.shape[-2:]
    if n * n * d <= DIRECT:
        wide = rows.double()
        apart = torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist")
    else:
        flat = rows.reshape(-1, n, d)
        apart = torch.stack([geometry_of(each).dists for each in flat]).to(rows.device)
        apart = apart.reshape(*rows.shape[:-1], n)
    return among(apart, fit)


def among(apart: Tensor, fit: Tensor) -> Tensor:
    """Distances `apart` `[..., n, n]` with infinite ones to and from rows that are not fit."""
    pairs = fit.unsqueeze(-1) & fit.unsqueeze(-2)
    return torch.where(pairs, apart.nan_to_num(nan=inf), inf)


def medoid_row(crowd: Crowd, radius: Tensor) -> MedianRow:
    """The row whose majority, ⌊n/2⌋ + 1 rows with itself, lies nearest. Ties: the lowest index.

    Within twice the largest honest deviation of some honest row while fewer than half the rows lie, whatever
    `radius` says; that is only checked. O(n² d).
    """
    dists = crowd.dists
    index = majority(dists).argmin(dim=-1)
    return _middle(dists.gather(-2, _row(index, dists)).squeeze(-2), index, radius)


def random_median(crowd: Crowd, radius: Tensor, generator: torch.Generator) -> MedianRow:
    """A row with a majority within `radius`, drawn at random: the paper's finder. O(n d) a try, two tries
    expected for honest rows. Where there is none: the medoid, and `found` is False."""
    n, lead = crowd.rows.shape[-2], crowd.rows.shape[:-2]
    order = torch.randperm(n, generator=generator, device="cpu").tolist()
    if lead:
        each = zip(crowd.rows, crowd.fit, radius.expand(lead), strict=True)
        some = [_drawn(Crowd(rows, fit), r, order) for rows, fit, r in each]
        return MedianRow(*(torch.stack(parts) for parts in zip(*some, strict=True)))
    return _drawn(crowd, radius, order)


def _drawn(crowd: Crowd, radius: Tensor, order: list[int]) -> MedianRow:
    for i in order:
        if not crowd.fit[i]:
            continue
        middle = _middle(crowd.dists_from(i), torch.tensor(i, device="cpu").to(crowd.rows.device), radius)
        if middle.found:
            return middle
    return medoid_row(crowd, radius)


def _lengths_from(rows: Tensor, i: int) -> Tensor:
    """Distances `[n]` of `rows` `[n, d]` from row i; many numbers some columns at a time, on a CPU."""
    if rows.device.type == "cpu" and rows.numel() >= MANY:
        parts = [norms(block - block[i]) for block in torch.split(rows, CHUNK, dim=1)]
        total = torch.stack(parts).square().sum(dim=0).sqrt()
        if total.isfinite().all():
            return total
    return norms(rows - rows[i])


def fullest(crowd: Crowd, radius: Tensor, generator: torch.Generator) -> MedianRow:
    """The first row, in random order, with at least n/2 rows within `radius`, itself included; where there is
    none, the one with most, and `found` is False. O(n² d)."""
    dists, n = crowd.dists, crowd.rows.shape[-2]
    rank = torch.empty(n, dtype=torch.int64, device="cpu")
    rank[torch.randperm(n, generator=generator, device="cpu")] = torch.arange(n, device="cpu")
    near = (dists <= radius[..., None, None]).sum(dim=-1)
    # Enough is enough: among those the order decides, as it does among equals.
    score = near.clamp_max((n + 1) // 2) * n - rank.to(near.device)
    index = torch.where(crowd.fit, score, -n).argmax(dim=-1)
    enough = near.gather(-1, index.unsqueeze(-1)).squeeze(-1) * 2 >= n
    of = dists.gather(-2, _row(index, dists)).squeeze(-2)
    return MedianRow(index, of, majority(of), enough)


def central(crowd: Crowd) -> MedianRow:
    """The row whose median distance to all rows, itself included, is least, and that distance as `radius`; of
    an even number the mean of the middle two."""
    dists = crowd.dists
    middles = middle_value(dists)
    index = middles.argmin(dim=-1)
    radius = middles.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    of = dists.gather(-2, _row(index, dists)).squeeze(-2)
    return MedianRow(index, of, radius, radius.isfinite())


def projections(rows: Tensor, vec: Tensor) -> Tensor:
    """`<rows_i, vec>` in float64: `[..., n, d]` and `[..., d]` to `[..., n]`, some columns at a time."""
    total = torch.zeros(rows.shape[:-1], dtype=torch.float64, device=rows.device)
    for start in range(0, vec.shape[-1], CHUNK):
        piece = slice(start, start + CHUNK)
        total = total + (rows[..., piece].double() @ vec[..., piece].double().unsqueeze(-1)).squeeze(-1)
    return total


def moved(sums: Tensor, rows: Tensor, centre: Tensor, vec: Tensor) -> tuple[Tensor, Tensor]:
    """`sums` + `rows` - `centre` `[..., d]`, and projections of `rows` - `centre` on `vec`."""
    pivot = centre.unsqueeze(-2)
    out = torch.sub(rows, pivot, out=room_after(sums)) if _many(sums, rows) else rows - pivot
    along = projections(out, vec)
    return out.add_(sums), along


def added(sums: Tensor, rows: Tensor) -> Tensor:
    """`sums` + `rows`."""
    return torch.add(sums, rows, out=room_after(sums)) if _many(sums, rows) else sums + rows


def room(sums: Tensor) -> Tensor:
    """Uninitialised memory for the sums after `sums`, on a CPU: used memory where new would cost more."""
    return (
        room_after(sums) if sums.numel() >= MANY else torch.empty(sums.shape, dtype=sums.dtype, device="cpu")
    )


def _many(sums: Tensor, rows: Tensor) -> bool:
    """Whether new memory for sums costs more than the sums."""
    return rows.device.type == "cpu" and rows.numel() >= MANY and rows.dtype == sums.dtype


def middle_value(values: Tensor) -> Tensor:
    """The median `[...]` of `[..., n]`; of even n the mean of the middle two. NaN counts as largest."""
    n = values.shape[-1]
    ordered = values.nan_to_num(nan=inf, posinf=inf, neginf=-inf).sort(dim=-1).values
    return (ordered[..., (n - 1) // 2] + ordered[..., n // 2]) / 2


def take(rows: Tensor, index: Tensor) -> Tensor:
    """Row `index` `[...]` of `[..., n, d]`: `[..., d]`."""
    return rows.gather(-2, _row(index, rows)).squeeze(-2)


def majority(dists: Tensor) -> Tensor:
    """The distance `[..., n]` within which each row has a majority, by distances `[..., n, n]`."""
    return dists.kthvalue(dists.shape[-1] // 2 + 1, dim=-1).values


def _middle(dists: Tensor, index: Tensor, radius: Tensor) -> MedianRow:
    reached = majority(dists)
    return MedianRow(index, dists, reached, reached <= radius)


def _row(index: Tensor, rows: Tensor) -> Tensor:
    return index[..., None, None].expand(*index.shape, 1, rows.shape[-1])
