"""What every recipe promises: frozen, comparable, and equal to what its own plain data builds."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from functools import partial
from typing import Any, cast

from byzopt.errors import InvalidInput
from byzopt.registry import Registry, plain, registry_of
from byzopt.testing.checks import Requirement, holds, refuses


def fields_are_frozen(recipe: Any) -> None:
    """A recipe is a frozen dataclass, which can be compared and hashed."""
    holds(is_dataclass(recipe), f"{type(recipe).__name__}, which is no dataclass")
    for field in fields(recipe):
        refuses(partial(setattr, recipe, field.name, None), (FrozenInstanceError,), f"a new `{field.name}`")
    twin = replace(cast(Any, recipe))
    holds(twin == recipe and hash(twin) == hash(recipe), "a copy that is not equal to it")


def says_what_it_is(recipe: Any) -> None:
    """A recipe has a docstring of its own, which says what it is."""
    doc = type(recipe).__doc__ or ""
    holds(bool(doc) and not doc.startswith(f"{type(recipe).__name__}("), repr(doc[:60]))


def is_what_its_plain_data_builds(recipe: Any) -> None:
    """A registered recipe, written down as plain data and read back, is equal to itself."""
    data = plain(recipe)
    again = _registry(recipe).build(data)
    holds(again == recipe, f"{again!r} from {data!r}")


def refuses_unknown_keys(recipe: Any) -> None:
    """A spec with a key that the recipe does not have is refused."""
    data = plain(recipe) | {"no_such_key": 1}
    refuses(lambda: _registry(recipe).build(data), (InvalidInput,), "the key `no_such_key`")


def refuses_values_that_are_no_numbers(recipe: Any) -> None:
    """NaN for a number, and an arbitrary object for any field, are refused however a recipe is built."""
    for field in fields(recipe):
        if field.init:
            values: list[Any] = [object()]
            values += [float("nan")] if isinstance(getattr(recipe, field.name), float) else []
            for value in values:
                changed = partial(replace, recipe, **{field.name: value})
                refuses(changed, (InvalidInput,), f"`{field.name}` = {value!r}")


def _registry(recipe: Any) -> Registry[Any]:
    return cast("Registry[Any]", registry_of(recipe))


def _registered(recipe: Any) -> str:
    found = registry_of(recipe)
    return "" if found is not None else "It is not registered under a name."


PROMISES = (
    Requirement(fields_are_frozen),
    Requirement(says_what_it_is),
    Requirement(is_what_its_plain_data_builds, _registered),
    Requirement(refuses_unknown_keys, _registered),
    Requirement(refuses_values_that_are_no_numbers, _registered),
)
