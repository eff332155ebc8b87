"""Small deterministic clusterings of n workers: largest mean-shift mode, first linked majority, two clusters
by agglomeration."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.numerics.distances import Array, Index, kth
from byzopt.aggregators.numerics.products import WHOLE

Chosen: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

SHIFTS = 300  # at most this many moves; with a flat kernel a few are enough
_SLACK = 1e-9  # of the window, so that rounding never leaves a mean without points, nor moves one for ever
_TIE = 1e-12  # linking distances that differ by less are equal


def largest_mode(points: Tensor, quantile: float = 0.5) -> Tensor:
    """The largest cluster of mean shift with a flat kernel started from every point: `[n, p]` to `[n]` bool.

    Points are shares, so distances are of order 1. The window's radius is the mean distance from a point to
    its (n · quantile)-th nearest, itself counted. A mode within a radius of a better one (more points) is
    dropped, and each point joins the nearest mode left. Ties are broken in the lexicographic order of the
    points, so that their places mean nothing.
    """
    values = points.numpy()
    order = np.lexsort(values.T[::-1])
    chosen = np.empty(len(values), dtype=np.bool_)
    chosen[order] = _largest_mode(values[order], quantile)
    return torch.from_numpy(chosen)


def _largest_mode(points: Array, quantile: float) -> Chosen:
    n = len(points)
    reach = kth(_apart(points, points), max(1, int(n * quantile)) - 1)
    radius = float(reach.mean()) + _SLACK
    counted = np.concatenate([points, np.ones((n, 1))], axis=1)
    modes = points
    for _ in range(SHIFTS):
        some, places = _distinct(modes)  # soon most points have moved to a few modes
        sums = (_apart(some, points) <= radius).astype(np.float64) @ counted
        moved = (sums[:, :-1] / sums[:, -1:])[places]
        still = float(np.abs(moved - modes).max()) <= _SLACK
        modes = moved
        if still:
            break
    counts, centres = sums[places, -1], list[int]()
    some, places = _distinct(modes)
    apart = _apart(some, some)
    for i in (-counts).argsort(kind="stable").tolist():
        if not centres or float(apart[places[i], places[centres]].min()) > radius:
            centres.append(i)
    label = _apart(points, modes[centres]).argmin(axis=1)
    return np.asarray(label == np.bincount(label).argmax())


def _distinct(points: Array) -> tuple[Array, Index]:
    """The different ones among points `[n, p]`, and which of them each is."""
    some, places = np.unique(points, axis=0, return_inverse=True)
    return some, places.reshape(-1)


def _apart(a: Array, b: Array) -> Array:
    """Distances without the Gram trick: equal points must be at distance 0."""
    if len(a) > WHOLE:
        exact = "donot_use_mm_for_euclid_dist"
        many: Array = torch.cdist(torch.from_numpy(a), torch.from_numpy(b), compute_mode=exact).numpy()
        return many
    squares = np.zeros((len(a), len(b)))
    for own, other in zip(a.T, b.T, strict=True):
        squares += np.square(own[:, None] - other)
    few: Array = np.sqrt(squares)
    return few


def linked_majority(dists: Tensor) -> Tensor:
    """The component of {d_ij <= t} that holds more than half of the rows, for the least such t: `[n]` bool.

    Components are those of a minimum spanning tree cut at t, so n^2 work is enough.
    """
    n = len(dists)
    group, limit = np.arange(n), float("inf") if n > 1 else 0.0
    for length, i, j in sorted(_spanning_tree(dists.numpy())):
        if length > limit:
            break
        group[group == group[j]] = group[i]
        if limit == float("inf") and np.count_nonzero(group == group[i]) > n // 2:
            limit = length + _TIE
    return torch.from_numpy(group == np.bincount(group).argmax())


def _spanning_tree(dists: Array) -> list[tuple[float, int, int]]:
    """A minimum spanning tree by Prim's algorithm, as (length, i, j)."""
    n = len(dists)
    edges = []
    best, parent = dists[0].copy(), np.zeros(n, dtype=np.int64)
    inside = np.zeros(n, dtype=np.bool_)
    inside[0], best[0] = True, np.inf  # rows inside are as far away as can be
    for _ in range(n - 1):
        j = int(best.argmin())
        if inside[j]:  # all that is left is infinitely far away, or no number
            j = int(inside.argmin())
        edges.append((float(best[j]), int(parent[j]), j))
        inside[j], best[j] = True, np.inf
        closer = (dists[j] < best) & ~inside
        best[closer], parent[closer] = dists[j][closer], j
    return edges


def larger_of_two(dists: Tensor, linkage: str) -> Tensor:
    """The larger of the two clusters of rows that joining the nearest ones leaves: `[n]` bool.

    Clusters lie as far apart as their rows do on "average", or as their nearest rows ("single"). Of two of
    equal size the one with the smaller mean distance inside, and both where these are equal, or where all
    rows are at distance 0.
    """
    joins = _joins(dists.numpy(), linkage)
    if not joins or max(joins)[0] == 0:
        return torch.ones(len(dists), dtype=torch.bool, device="cpu")
    one = torch.zeros(len(dists), dtype=torch.bool, device="cpu")
    one[list(max(joins)[1])] = True
    sizes = [int(side.sum()) for side in (one, ~one)]
    if sizes[0] != sizes[1]:
        return one if sizes[0] > sizes[1] else ~one
    inside = [float(dists[side][:, side].sum()) for side in (one, ~one)]
    if abs(inside[0] - inside[1]) <= _TIE * len(dists) ** 2:
        return one | ~one
    return one if inside[0] < inside[1] else ~one


def _joins(dists: Array, linkage: str) -> list[tuple[float, tuple[int, ...]]]:
    """The n - 1 joins of the dendrogram, each as (height, rows of one of its two sides), in no order.

    The chain of nearest neighbours (Murtagh, 1983): n² steps. Both linkages let it join clusters that are
    each other's nearest at once, whatever is joined elsewhere.
    """
    apart = dists.copy()
    np.fill_diagonal(apart, np.inf)
    members: list[tuple[int, ...]] = [(i,) for i in range(len(apart))]
    joins: list[tuple[float, tuple[int, ...]]] = []
    chain: list[int] = []
    while len(joins) < len(apart) - 1:
        if not chain:
            chain = [next(i for i, rows in enumerate(members) if rows)]
        here = chain[-1]
        near = int(apart[here].argmin())
        if len(chain) > 1 and apart[here, chain[-2]] <= apart[here, near]:
            near = chain[-2]
        if len(chain) < 2 or near != chain[-2]:
            chain.append(near)
            continue
        del chain[-2:]
        joins.append((float(apart[here, near]), members[here]))
        a, b = len(members[near]), len(members[here])
        both = np.minimum(apart[near], apart[here])
        if linkage == "average":
            both = (a * apart[near] + b * apart[here]) / (a + b)
        both[[near, here]] = np.inf
        apart[near], apart[:, near] = both, both
        apart[here], apart[:, here] = np.inf, np.inf
        members[near], members[here] = members[near] + members[here], ()
    return joins
