"""The best n - f of n rows, by branch and bound: what MVA and SMEA share.

A cost gives its value on a subset, and a bound from below on all subsets that lie between the rows already
kept and the rows not yet removed. The search starts from the best of n neighbourhoods (the n - f rows nearest
to each row) and first gives up rows that no subset as good as that one can hold: those left are of one
size, which keeps eigenvalues exact beside rows of 1e30.

Around the right one of the honest rows H, Σ‖x_i - x_k‖² over a neighbourhood is at most that over H, which is
at most twice the variance of H (the mean over k in H is). So even the start has at most twice the least
variance, whatever f rows hold, and a search cut short is still a robust answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from math import ceil, comb, inf
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from threadpoolctl import ThreadpoolController

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"
Index: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.intp]]"

SAME = 1e-9  # subsets whose costs differ by less, relatively, are equally good
ROWS = 30  # of which a bound takes the time that a budget speaks of


class BestSubset(NamedTuple):
    """Indices `[size]`, ascending, and whether no subset costs less."""

    rows: Index
    proved: bool


class SubsetCost(ABC):
    """A cost of subsets of rows, all of size `size`."""

    def __init__(self, sq_dists: Array, size: int) -> None:
        self.sq_dists = sq_dists
        self.size = size

    @abstractmethod
    def value(self, chosen: Index) -> float:
        """The cost of the subset `chosen`."""

    def below(self, chosen: Index, limit: float) -> float:
        """The cost of the subset `chosen` where it is below `limit`; else any number that is not."""
        return self.value(chosen)

    @abstractmethod
    def least(self, kept: Index, free: Index, known: Any = None) -> tuple[float, int, Any]:
        """A bound from below on subsets that hold `kept` and fill up from `free`, whom to remove next, and
        what is then `known` of all these rows, wherever they are free or kept."""

    @abstractmethod
    def least_with(self, near: Array) -> Array:
        """For each row a bound from below on subsets that hold it; `near[i]` is Σ of the squared distances
        from row i to the size - 1 rows nearest to it."""


def best_subset(cost: SubsetCost, budget: int) -> BestSubset:
    """The subset of least cost, or after `budget` bounds the best one seen.

    Of more than 30 rows there are fewer bounds, by the cube: so much more does one take.
    """
    with _blas().limit(limits=1):
        best, least, free = _start(cost)
        stack: list[tuple[Index, Index, Any]] = [(free[:0], free, None)]
        for _ in range(_bounds(budget, len(cost.sq_dists))):
            if not stack:
                break
            kept, free, known = stack.pop()
            wanted = cost.size - len(kept)
            if wanted in (0, len(free)):
                chosen = np.sort(np.concatenate([kept, free[:wanted]]))
                value = cost.below(chosen, least * (1 - SAME))
                if value < least * (1 - SAME):
                    best, least = chosen, value
                continue
            bound, worst, known = cost.least(kept, free, known)
            if bound < least * (1 - SAME):
                rest = free[free != worst]
                stack += [(np.append(kept, worst), rest, known), (kept, rest, None)]
    return BestSubset(best, not stack)


def surely_ends(n: int, f: int, budget: int) -> bool:
    """Whether the search over the sets of n - f of n rows ends within `budget` bounds, whatever they hold."""
    return 2 * comb(n, f) - 1 <= _bounds(budget, n)


def _bounds(budget: int, n: int) -> int:
    return ceil(budget * min(1.0, (ROWS / n) ** 3))


@cache
def _blas() -> ThreadpoolController:
    """NumPy's threads, which take many times longer than one when problems are small and cores are shared."""
    return ThreadpoolController()


def _start(cost: SubsetCost) -> tuple[Index, float, Index]:
    """The best neighbourhood, its cost, and the rows that a subset as good may hold."""
    order = cost.sq_dists.argsort(axis=1, kind="stable")[:, : cost.size]
    near = np.take_along_axis(cost.sq_dists, order, axis=1).sum(axis=1)
    hoods = np.unique(np.sort(order, axis=1), axis=0)
    best, least = hoods[0], inf
    for hood in hoods:
        value = cost.below(hood, least)
        best, least = (hood, value) if value < least else (best, least)
    held = cost.least_with(near) <= least * (1 + SAME)
    held[best] = True  # whatever rounding says: rows may be equal but for it
    return best, least, np.flatnonzero(held)
