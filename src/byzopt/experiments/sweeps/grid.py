"""The points of a grid: a product of axes, each a list of values or several lists that walk together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

from byzopt.errors import InvalidInput, require, said
from byzopt.experiments.specs import overrides

MOST = 1_000_000  # points, whose specs are all held in memory
Point = dict[str, Any]  # a setting's path, as `attack.scale`, to its value


def grid_points(grid: Mapping[str, Any], zips: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Every point: the axes in the order given, the last one fastest.

    `grid` maps settings to lists (one axis each); every table of `zips` is one axis whose lists have equal
    lengths. Tables nest: `task = {batch = [8, 32]}` is `task.batch`. Errors: `InvalidInput`.
    """
    axes = [[{path: value} for value in values] for path, values in axis_values(grid, "grid").items()]
    axes += [_walked(axis_values(table, "zip")) for table in zips]
    size = prod(map(len, axes))
    require(size <= MOST, "A sweep", f"have at most {MOST:,} points", f"{size:,}", "Take axes apart.")
    points: list[Point] = []
    for choice in product(*axes):
        paths = [path for part in choice for path in part]
        twice = sorted({path for path in paths if paths.count(path) > 1})
        if twice:
            raise InvalidInput(f"A setting should be on one axis of a sweep. Found `{twice[0]}` on two.")
        points.append({path: value for part in choice for path, value in part.items()})
    return points


def axis_values(table: Mapping[str, Any], where: str) -> dict[str, list[Any]]:
    """A table's lists by path. Errors: what is no list, or an empty one."""
    axes: dict[str, list[Any]] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            axes |= {f"{key}.{rest}": values for rest, values in axis_values(value, f"{where}.{key}").items()}
        elif isinstance(value, (list, tuple)) and value:
            axes[key] = list(value)
        else:
            raise InvalidInput(
                f"`{where}.{key}` should be a list of one or more values. Found {said(value)}. "
                "Put what does not vary under `spec`."
            )
    return axes


@lru_cache(maxsize=1024)  # every point of a grid has the same paths
def setting_path(path: str) -> tuple[str, ...]:
    """The steps of a setting's path. Errors: what is none."""
    steps = overrides.parse_path(path)
    if not steps:
        raise InvalidInput(f"A setting should read as `attack.scale` does. Found {said(path)}.")
    return tuple(steps)


def _walked(lists: Mapping[str, list[Any]]) -> list[Point]:
    lengths = {path: len(values) for path, values in lists.items()}
    if not lists or len(set(lengths.values())) > 1:
        raise InvalidInput(f"A `zip` should hold lists of one length. Found {lengths or 'none'}.")
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
