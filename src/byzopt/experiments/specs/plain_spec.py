"""A spec as the plain data that is stored with a run. Reading one needs no recipes, so that a store can be
shown where the plugin of a run is not installed, or where a component has another name by now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any

import msgspec

from byzopt.errors import InvalidInput, require
from byzopt.experiments.specs.overrides import merge
from byzopt.own_files import without_paths

MAIN = "main"  # what records call the spec itself, beside its variants
# What a spec's run may hold with its variants, and so what is read of one.
MOST_RECORDS = 1_000_000
MOST_NUMBERS = 1 << 24  # figures in all its records
SPARE = 3  # records beside those at intervals: the start, the end, the last finite iterate of a failed run
DEEP = 30  # tables within tables
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Above = Annotated[int, msgspec.Meta(ge=1)]


class _Shape(msgspec.Struct):
    """What is asked of a spec's data whatever its recipes are."""

    task: dict[str, Any]
    rule: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    n: _Above
    f: _Count
    rounds: _Above
    eval_every: _Above
    lr: float
    seed: int
    method: dict[str, Any]
    attack: dict[str, Any]
    attackers: _Count | list[_Count] | None = None
    stop: dict[str, float] = {}  # msgspec copies it
    placement: str = "free"
    base: str = "own"


@dataclass(frozen=True)
class PlainSpec:
    """A spec's canonical data, as `Spec.data` gives them, and what can be said of them without recipes.

    Errors: `InvalidInput` for data of another shape.
    """

    data: Mapping[str, Any]

    def __post_init__(self) -> None:
        require(_plain(self.data, DEEP), "A stored spec", "be plain data", "dates, or too deep tables")
        try:
            shape = msgspec.convert({k: v for k, v in self.data.items() if k != "compare"}, _Shape)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"A stored spec should be as byzopt wrote it. Found: {error}.") from None
        named = {"task": shape.task, "method": shape.method, "attack": shape.attack}
        named |= {f"stage {i} of the rule": stage for i, stage in enumerate(shape.rule)}
        for what, part in named.items():
            name = part.get("name")
            require(isinstance(name, str), f"The {what} of a stored spec", "have a name", repr(name)[:99])
        _ = self.variants

    @property
    def id(self) -> str:
        """The spec's id: a hash of its data."""
        return content_hash(self.data)

    @property
    def planned(self) -> int:
        """How many records a run of this spec has at most."""
        return most_records(self.data["rounds"], self.data["eval_every"])

    @cached_property
    def variants(self) -> dict[str, PlainSpec]:
        """This spec and those beside it, by name."""
        compare = self.data.get("compare", {})
        require(isinstance(compare, Mapping), "`compare` of a stored spec", "be a table", repr(compare)[:99])
        main = {key: value for key, value in self.data.items() if key != "compare"}
        found = {MAIN: self if main == self.data else PlainSpec(main)}
        for name, changes in compare.items():
            good = isinstance(changes, Mapping) and "compare" not in changes and name != MAIN
            require(good, f"Variant {name!r} of a stored spec", "be a table of overrides", repr(changes)[:99])
            found[name] = PlainSpec(merge(main, changes))
        return found


def most_records(rounds: int, every: int) -> int:
    """How many records a run has at most that measures `every` so many rounds."""
    return rounds // every + SPARE


def content_hash(data: Mapping[str, Any]) -> str:
    """A hash of a spec's canonical data: equal for equal specs on every machine, wherever files lie that they
    name: those count by their content."""
    text = json.dumps(without_paths(data), sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any, deep: int) -> bool:
    """Whether this is what a spec holds: tables, lists, texts and finite numbers, not too deep."""
    if isinstance(value, Mapping):
        return deep > 0 and all(_plain(one, deep - 1) for one in value.values())
    if isinstance(value, list):
        return deep > 0 and all(_plain(one, deep - 1) for one in value)
    return isinstance(value, (str, int)) or (isinstance(value, float) and abs(value) < float("inf"))
