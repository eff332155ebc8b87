"""What every registered recipe promises: frozen, comparable, and equal to what its own plain data builds."""

from __future__ import annotations

import json
import tomllib
from dataclasses import MISSING, FrozenInstanceError, fields, replace
from typing import Any, get_type_hints

import pytest

import byzopt.engines
import byzopt.methods  # noqa: F401  (with the engines, imports every room)
from byzopt.aggregators import Median
from byzopt.errors import InvalidInput
from byzopt.registry import _ROOMS, Registry, plain

# The fields that may lack a default, and what stands in for them here.
REQUIRED = {
    "f": 3,
    "lr": 0.1,
    "rule": Median(),
    "weights": (1.0, 2.0, 1.0),
    "pairs": ((0, 1), (1, 2)),
    "rounds": ((0, 1), (2,)),
    "times": (1.0, 2.0),
    "order": (0, 1, 0),
}
ROOMS = [registry for base, registry in _ROOMS.items() if base.__module__.startswith("byzopt.")]
EVERY = [(registry, name) for registry in ROOMS for name in registry]
IDS = [f"{registry.kind}-{name}" for registry, name in EVERY]


def default_of(registry: Registry[Any], name: str) -> Any:
    cls = registry[name]
    missing = [f.name for f in fields(cls) if f.init and f.default is f.default_factory is MISSING]
    return cls(**{key: REQUIRED[key] for key in missing})


def toml(value: Any) -> str:
    """Plain data as an inline TOML value."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def test_all_rooms_are_here():
    kinds = {registry.kind for registry in ROOMS}
    assert kinds >= {
        "rule",
        "pre-aggregator",
        "attack",
        "estimator",
        "channel",
        "task",
        "step",
        "norm",
        "method",
        "schedule",
    }
    assert len(EVERY) > 20


@pytest.mark.parametrize("registry, name", EVERY, ids=IDS)
def test_build_undoes_plain(registry, name):
    recipe = default_of(registry, name)
    assert registry.build(plain(recipe)) == recipe


@pytest.mark.parametrize("registry, name", EVERY, ids=IDS)
def test_plain_data_survives_toml(registry, name):
    data = plain(default_of(registry, name))
    assert tomllib.loads(f"recipe = {toml(data)}")["recipe"] == data
    assert data["name"] == name


@pytest.mark.parametrize("registry, name", EVERY, ids=IDS)
def test_unknown_keys_are_refused(registry, name):
    data = plain(default_of(registry, name))
    with pytest.raises(InvalidInput, match="no_such_key"):
        registry.build(data | {"no_such_key": 1})


@pytest.mark.parametrize("registry, name", EVERY, ids=IDS)
def test_nan_is_refused_for_every_number(registry, name):
    data = plain(default_of(registry, name))
    for key, value in data.items():
        if isinstance(value, float):
            with pytest.raises(InvalidInput, match=key):
                registry.build(data | {key: float("nan")})


WRONG = {int: (1.5, True, "1", None), float: (float("nan"), float("inf"), "1", True, None), bool: (1, "yes")}
FIELDS = [(registry, name) for registry, name in EVERY if any(f.init for f in fields(registry[name]))]


@pytest.mark.parametrize("registry, name", FIELDS, ids=[f"{r.kind}-{name}" for r, name in FIELDS])
def test_fields_are_checked_however_a_recipe_is_built(registry, name):
    recipe, hints = default_of(registry, name), get_type_hints(registry[name])
    for field in fields(recipe):
        if field.init:
            for value in (object(), *WRONG.get(hints[field.name], ())):
                with pytest.raises(InvalidInput):
                    replace(recipe, **{field.name: value})


@pytest.mark.parametrize("registry, name", EVERY, ids=IDS)
def test_recipes_are_frozen_hashable_and_equal_to_their_twins(registry, name):
    recipe, twin = default_of(registry, name), default_of(registry, name)
    assert recipe == twin
    assert hash(recipe) == hash(twin)
    for field in fields(recipe):
        with pytest.raises(FrozenInstanceError):
            setattr(recipe, field.name, getattr(recipe, field.name))


@pytest.mark.parametrize("registry, name", EVERY, ids=IDS)
def test_docstring_says_what_it_is(registry, name):
    doc = registry[name].__doc__
    assert doc
    assert not doc.startswith(registry[name].__name__ + "(")  # the one that dataclass makes up
