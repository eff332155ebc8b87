"""Small deterministic clusterings of n workers: largest mean-shift mode, first linked majority, two clusters
by agglomeration."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.numerics.distances import Array

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
    order = np.lexsort(points.numpy().T[::-1])
    return _largest_mode(points[order], quantile)[order.argsort()]


def _largest_mode(points: Tensor, quantile: float) -> Tensor:
    n = len(points)
    radii = _apart(points, points).sort(dim=1).values
    radius = float(radii[:, max(1, int(n * quantile)) - 1].mean()) + _SLACK
    modes = points
    for _ in range(SHIFTS):
        near = (_apart(modes, points) <= radius).to(points)
        moved = near @ points / near.sum(dim=1, keepdim=True)
        still = float((moved - modes).abs().max()) <= _SLACK
        modes = moved
        if still:
            break
    apart, centres = _apart(modes, modes), list[int]()
    for i in near.sum(dim=1).argsort(descending=True, stable=True).tolist():
        if not centres or float(apart[i, centres].min()) > radius:
            centres.append(i)
    label = _apart(points, modes[centres]).argmin(dim=1)
    return label == label.bincount().argmax()


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Distances without the Gram trick: equal points must be at distance 0."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def linked_majority(dists: Tensor) -> Tensor:
    """The component of {d_ij <= t} that holds more than half of the rows, for the least such t: `[n]` bool.

    Components are those of a minimum spanning tree cut at t, so n^2 work is enough.
    """
    n = len(dists)
    group, limit = torch.arange(n, device="cpu"), float("inf") if n > 1 else 0.0
    for length, i, j in sorted(_spanning_tree(dists)):
        if length > limit:
            break
        group[group == group[j]] = int(group[i])
        if limit == float("inf") and int((group == group[i]).sum()) > n // 2:
            limit = length + _TIE
    return group == group.bincount().argmax()


def _spanning_tree(dists: Tensor) -> list[tuple[float, int, int]]:
    """A minimum spanning tree by Prim's algorithm, as (length, i, j)."""
    n = len(dists)
    edges = []
    best, parent = dists[0].clone(), torch.zeros(n, dtype=torch.long, device="cpu")
    outside = torch.ones(n, dtype=torch.bool, device="cpu")
    outside[0] = False
    for _ in range(n - 1):
        j = int(best.masked_fill(~outside, float("inf")).argmin())
        edges.append((float(best[j]), int(parent[j]), j))
        outside[j] = False
        closer = dists[j] < best
        best, parent = torch.where(closer, dists[j], best), torch.where(closer, j, parent)
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
