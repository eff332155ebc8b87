"""The runs that a sweep expands to, their ids, and how a point of the grid reads in a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from byzopt.experiments.specs.plain_spec import content_hash
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.store.environment import version_of
from byzopt.experiments.sweeps.grid import Point
from byzopt.own_files import KEY

# Packages whose versions decide a run's result. Without llvmlite sums are taken in another order.
DECIDING = ("byzopt", "torch", "numpy", "scikit-learn", "llvmlite")


class Run(NamedTuple):
    """One run of a sweep: its id, its spec, and its point, the settings in which it differs."""

    id: str
    spec: Spec
    point: Point


class SkippedPoint(NamedTuple):
    """A point at which there is no valid spec, and why."""

    point: Point
    reason: str


class Expansion(NamedTuple):
    """A sweep's runs, each once, and the points that were skipped as incompatible."""

    runs: tuple[Run, ...]
    skipped: tuple[SkippedPoint, ...]


def run_id(spec: Spec, versions: Mapping[str, str] | None = None) -> str:
    """A hash of a canonical spec and of the `versions` of the packages that decide its result, by default of
    those that are installed."""
    decided = deciding_versions() if versions is None else dict(versions)
    return content_hash({"spec": spec.data, "versions": decided})


def point_text(point: Mapping[str, Any]) -> str:
    """A point in a line: `rule = krum, seed = 3`."""
    return ", ".join(f"{path} = {value_text(value)}" for path, value in point.items()) or "the only point"


def value_text(value: Any) -> str:
    """A setting's value as people write it."""
    if isinstance(value, Mapping) and "name" in value:
        rest = ", ".join(f"{key}={value_text(v)}" for key, v in value.items() if key not in ("name", KEY))
        return f"{value['name']}({rest})" if rest else str(value["name"])
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={value_text(v)}" for key, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(value_text, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


@cache
def deciding_versions() -> dict[str, str]:
    """The versions of the packages that decide a run's result, as they are installed."""
    return {name: version_of(name) for name in DECIDING}
