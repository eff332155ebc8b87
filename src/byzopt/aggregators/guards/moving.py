"""A round's rows in ByzantineSGD's sums, held about a row of each round: in one pass by a kernel, or in turn.

Any row of the bulk will do to hold sums about, for tests see differences alone. In one pass it is the medoid
of some columns; where that proves to be far from the median the pass is made again about the median.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from byzopt import kernels
from byzopt.aggregators.guards import majority, passes
from byzopt.aggregators.guards.guarded_mean import KnownMean
from byzopt.aggregators.guards.majority import Crowd
from byzopt.aggregators.numerics.sketch import sketched
from byzopt.kernels import Grown, Sums, Walk

_NEAR = 4.0  # the row may be so many times further from the median than its majority (both squared)


class Moved(NamedTuple):
    """A round's `rows`; their `moves` from the centre, as they enter the sums B; B after it. `along`
    `[..., n]`: products of moves with the walk from where sums began, and `path`, its squared length. The
    mean of those who were good before, where it was taken on the way."""

    rows: Crowd
    moves: Crowd
    sums: Crowd
    along: Tensor
    path: Tensor | float
    mean: KnownMean | None


class Way(NamedTuple):
    """How B is kept: as a `sketch` to so many numbers (None: all d) by a draw of `seed`; whether workers are
    tested in pairs, where distances between sums count among fit rows alone; what a mean is divided by (None:
    its number)."""

    sketch: int | None
    seed: int
    paired: bool
    size: int | None


def in_turn(here: Crowd, b: Tensor, centre: Tensor, walk: Walk, way: Way) -> Moved:
    """Moves from a `centre` `[..., d]` into the sums `b`. Rows that are not fit count as zero."""
    sound = majority.sound(here.rows, here.fit).to(b.dtype)
    pivot = torch.where(centre.isfinite().all(dim=-1, keepdim=True), centre, 0).to(b.dtype)
    offset = walk.x.double() - walk.home.double()
    whole, moves = b.shape == sound.shape, here
    if whole and not way.paired:
        after, along = majority.moved(b, sound, pivot, offset)
    else:
        apart = sound - pivot.unsqueeze(-2)
        along, short = majority.projections(apart, offset), sketched(apart, way.sketch, way.seed)
        moves = Crowd(short, here.fit, here.dists if whole else None)
        after = b + short
    return Moved(here, moves, _crowd_of(after, here.fit, way), along, offset.square().sum(dim=-1), None)


def at_once(rows: Tensor, b: Tensor, walk: Walk, good: Tensor, way: Way) -> Moved | None:
    """The same about one of the `good` rows `[n, d]`, in one pass over them and `b`. None: a kernel cannot,
    rows or sums are extreme, or nobody is left."""
    if not passes.one_pass_fits(rows, b, *walk):
        return None
    fit, centre = passes.first_look(rows, good)
    mean = torch.empty_like(rows[0])
    tables = [Sums(b, majority.room(b))] if b.shape == rows.shape else []
    for _ in range(passes.TRIES):
        if centre is None or not fit[centre]:
            return None
        kept = good & fit
        weights = kept.double() / (way.size or max(1, int(kept.sum())))
        found = kernels.fused_history(
            rows, passes.array(fit), rows[centre], walk, weights.numpy(), mean, tables, centre, moved=True
        )
        known = passes.known(rows, fit, found.lengths)
        if known is None or not np.isfinite(found.sizes).all():
            return None
        if not torch.equal(known, fit):
            fit = known
            continue
        here = passes.crowd(rows, fit, found.rows, centre, found.rows.diagonal())
        near = _near(here, centre)
        if near == centre:
            moves, sums = _sums(here, b, tables, found, centre, way)
            return Moved(here, moves, sums, torch.from_numpy(found.along), found.path, KnownMean(kept, mean))
        centre = near
    return None


def _near(here: Crowd, centre: int) -> int:
    """A row near the median: the `centre`, or the median where that is far from it."""
    radii = majority.majority(here.dists)
    best = int(radii.argmin())
    return centre if here.dists[centre, best].square() <= _NEAR * radii[best].square() else best


def _sums(
    here: Crowd, b: Tensor, tables: list[Sums], found: Grown, centre: int, way: Way
) -> tuple[Crowd, Crowd]:
    """Moves and the sums after them: as the pass left them, or as their sketch."""
    if tables:
        every = here.fit if way.paired else torch.ones_like(here.fit)
        return here, passes.crowd(tables[0].out, every, found.sums[0], centre, found.sizes[0])
    sound = majority.sound(here.rows, here.fit)
    short = sketched(sound, way.sketch, way.seed, here.rows[centre])
    return Crowd(short, here.fit), _crowd_of(b + short, here.fit, way)


def _crowd_of(sums: Tensor, fit: Tensor, way: Way) -> Crowd:
    return Crowd(sums, fit if way.paired else majority.fit(sums))
