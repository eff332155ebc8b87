"""Selection networks: which wires to compare, in which order, so that the wanted ranks come out.

Batcher's odd-even merge sort, cut down to the comparators that the wanted ranks need. Its halves are listed
one after the other (depth first), so that neighbouring comparators share wires: in registers or in cache that
is twice as fast as listing layer by layer. Made of arrays, in milliseconds for thousands of wires.
"""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

# Wires i < j, and whether the smaller (at i) and the larger (at j) are wanted afterwards.
Comparator = tuple[int, int, bool, bool]

Places: TypeAlias = "np.ndarray[Any, np.dtype[np.int32]]"


@lru_cache(maxsize=256)
def network(n: int, first: int, last: int) -> tuple[Comparator, ...]:
    """The comparators, in order, that put ranks first .. last - 1 of n values on their wires."""
    kept = np.hstack(pruned(n, first, last)).tolist()
    return tuple((i, j, bool(low), bool(high)) for i, j, low, high in kept)


def pruned(n: int, first: int, last: int) -> tuple[Places, Any]:
    """The comparators of `network` as arrays `[k, 2]`: their wires, and which of these are wanted."""
    pairs, layers = _sorter(1 << (n - 1).bit_length())
    needed = np.zeros(int(pairs.max(initial=0)) + 1, dtype=bool)
    needed[first:last] = True
    wanted = np.zeros(pairs.shape, dtype=bool)
    order = layers.argsort(kind="stable")
    ends = np.searchsorted(layers[order], np.arange(layers.max(initial=-1) + 2))
    for start, end in reversed(list(pairwise(ends))):
        here = order[start:end]  # a layer: no two of its comparators share a wire
        i, j = pairs[here].T
        # Wires beyond n are thought of as plus infinity: they never move.
        used = (needed[i] | needed[j]) & (j < n)
        wanted[here] = needed[pairs[here]] & used[:, None]
        needed[i[used]] = needed[j[used]] = True
    kept = wanted.any(axis=1)
    return pairs[kept], wanted[kept]


@cache
def _sorter(size: int) -> tuple[Places, Places]:
    """Comparators `[k, 2]` that sort `size` wires, a power of two, and the layer that each is in."""
    if size == 1:
        return np.empty((0, 2), dtype=np.int32), np.empty(0, dtype=np.int32)
    (pairs, layers), (merging, later) = _sorter(size // 2), _merger(size)
    later = later + layers.max(initial=-1) + 1
    return np.concatenate([pairs, pairs + size // 2, merging]), np.concatenate([layers, layers, later])


@cache
def _merger(size: int) -> tuple[Places, Places]:
    """As `_sorter`, for two halves that are sorted."""
    if size == 2:
        return np.array([[0, 1]], dtype=np.int32), np.zeros(1, dtype=np.int32)
    pairs, layers = _merger(size // 2)
    odd = np.arange(1, size - 1, 2, dtype=np.int32)
    last = np.stack([odd, odd + 1], axis=1)
    after = np.full(len(odd), layers.max() + 1, dtype=np.int32)
    return np.concatenate([2 * pairs, 2 * pairs + 1, last]), np.concatenate([layers, layers, after])
