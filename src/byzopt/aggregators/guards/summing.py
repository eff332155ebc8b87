"""A round's rows in the sums of SafeguardSGD's windows: in one pass by a kernel, or in turn."""

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
from byzopt.kernels import Sums


class Way(NamedTuple):
    """Whose rows are summed, the `good` `[..., n]` or everybody's, and what each is multiplied by, `share`
    `[...]` (1 of `raw` sums); as a `sketch` to so many numbers by a draw of `seed`. `paired`: workers are
    tested in pairs, which asks for the rows' distances too."""

    good: Tensor
    everybody: bool
    share: Tensor
    raw: bool
    paired: bool
    sketch: int | None
    seed: int


class Old(NamedTuple):
    """A window's sums before the round; `begins`: the round starts it afresh."""

    sums: Tensor
    begins: bool


class Summed(NamedTuple):
    """Which rows are `fit` `[..., n]`; `moves`, rows as they were added where workers are tested in pairs;
    the windows' sums after the round; the mean of the good ones, where it was taken on the way."""

    fit: Tensor
    moves: Crowd
    sums: list[Crowd]
    mean: KnownMean | None


def in_turn(rows: Tensor, windows: list[Old], way: Way) -> Summed:
    """Rows `[..., n, d]` in the sums; those that are not fit, or not summed, count as zero."""
    fit, dtype = majority.fit(rows), windows[0].sums.dtype
    present = fit if way.everybody else way.good & fit
    sound = majority.sound(rows, present).to(dtype)
    scaled = sound if way.raw else sound * way.share[..., None, None].to(dtype)
    added = sketched(scaled, way.sketch, way.seed)
    after = [added.clone() if old.begins else majority.added(old.sums, added) for old in windows]
    sums = [Crowd(each, present if way.paired else present & majority.fit(each)) for each in after]
    return Summed(fit, Crowd(added, present), sums, None)


def at_once(rows: Tensor, windows: list[Old], way: Way) -> Summed | None:
    """The same for `[n, d]`, unsketched. None: a kernel cannot, rows or sums are extreme, or none is good."""
    fits = passes.one_pass_fits(rows, *(old.sums for old in windows))
    if not fits or windows[0].sums.shape != rows.shape or (way.paired and not way.raw):
        return None
    fit, pivot = passes.first_look(rows, way.good)
    tables = [Sums(None if old.begins else old.sums, majority.room(old.sums)) for old in windows]
    mean = torch.empty_like(rows[0])
    for _ in range(passes.TRIES):
        if pivot is None or not fit[pivot]:
            return None
        kept = way.good & fit
        present = fit if way.everybody else kept
        found = kernels.fused_history(
            rows,
            passes.array(present) * way.share.item(),
            centre=rows[pivot] if way.paired else None,
            weights=passes.array(kept) / max(1, int(kept.sum())),
            mixed=mean,
            sums=tables,
            pivot=pivot,
        )
        known = passes.known(rows, fit, found.lengths)
        if known is None:
            return None
        if torch.equal(known, fit):
            if not np.isfinite(found.sizes).all():
                return None
            here = Crowd(rows, present)
            if way.paired:
                here = passes.crowd(rows, present, found.rows, pivot, found.lengths)
            sums = [
                passes.crowd(table.out, present, products, pivot, sizes)
                for table, products, sizes in zip(tables, found.sums, found.sizes, strict=True)
            ]
            return Summed(fit, here, sums, KnownMean(kept, mean))
        fit = known
    return None
