"""Products of parametrised tests, of which the quick set plays a part that meets every value."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest


def sampled(*axes: Iterable[Any], times: int = 1) -> list[Any]:
    """All combinations of the axes, of which `times` diagonals are quick and the others have the mark slow.

    A diagonal goes along the longest axis and round and round along the others, so that every value is met.
    The second begins one place further on the second axis, two on the third, and so on.

        >>> [one.values for one in sampled("abc", "xy") if not one.marks]
        [('a', 'x'), ('b', 'y'), ('c', 'x')]
    """
    values = [list(axis) for axis in axes]
    longest = max(map(len, values))
    places = [range(len(axis)) for axis in values]
    quick = {
        tuple((i + start * j) % len(axis) for j, axis in enumerate(values))
        for start in range(times)
        for i in range(longest)
    }
    return [
        pytest.param(
            *(axis[i] for axis, i in zip(values, at, strict=True)),
            marks=() if at in quick else pytest.mark.slow,
        )
        for at in product(*places)
    ]
