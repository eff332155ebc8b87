"""Which parameters of an attack are searched, and over which values: read off the fields of its recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from byzopt.attacks import Attack
from byzopt.errors import InvalidInput

SIZES = tuple(10.0**k for k in range(-2, 4))
FLOATS = (*SIZES, *(-size for size in SIZES), 0.0)
COUNTS = (0, 1, 2, 5)


@dataclass(frozen=True)
class Axis:
    """A field of a recipe and its coarse values. Between floats the search goes on."""

    name: str
    values: tuple[Any, ...]
    choice: bool = False  # a few named alternatives, of which every combination is tried


@cache
def search_axes(attack: type[Attack]) -> tuple[Axis, ...]:
    """Choices have all their values, floats a log grid of both signs, counts a few small ones.

    Seeds and nested recipes stay as they are.
    """
    hints = get_type_hints(attack)
    names = [field.name for field in fields(cast(Any, attack)) if field.init and field.name != "seed"]
    found = (Axis(name, _values(hints[name]), _named(hints[name])) for name in names)
    return tuple(axis for axis in found if axis.values)


def vary_one_parameter(attack: Attack, axis: Axis) -> Iterator[Attack]:
    """`attack` with every coarse value of one parameter that it accepts, its own left out."""
    here = getattr(attack, axis.name)
    for value in axis.values:
        moved = with_parameter(attack, axis.name, value) if value != here else None
        if moved is not None:
            yield moved


def coarse_grid(attack: Attack) -> list[Attack]:
    """`attack` with every combination of its choices, and what differs from these in one other parameter."""
    combined = [attack]
    for axis in search_axes(type(attack)):
        if axis.choice:
            combined += [moved for one in combined for moved in vary_one_parameter(one, axis)]
    others = [axis for axis in search_axes(type(attack)) if not axis.choice]
    return combined + [
        moved for one in combined for axis in others for moved in vary_one_parameter(one, axis)
    ]


def with_parameter(attack: Attack, name: str, value: Any) -> Attack | None:
    """`attack` with another value of one parameter, or None where it refuses that."""
    try:
        return cast(Attack, replace(cast(Any, attack), **{name: value}))
    except InvalidInput:
        return None


def _named(kind: Any) -> bool:
    return get_origin(kind) is Literal or kind is bool


def _values(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return tuple(value for part in get_args(kind) for value in _values(part))
    return {float: FLOATS, int: COUNTS, bool: (False, True), type(None): (None,)}.get(kind, ())
