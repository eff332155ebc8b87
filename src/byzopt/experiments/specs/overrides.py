"""Overrides: `task.batch=32`, `rule=nnm >> krum`, and the tables of a spec's variants.

A component is a name or a table with a `name`. Another name drops the old table's other keys, because they
belong to another component. Values are read as TOML, else taken as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from byzopt.aggregators.core.spelling import stages_of
from byzopt.errors import InvalidInput, said
from byzopt.experiments.specs import toml
from byzopt.own_files import KEY, anchored, is_reference

COMPONENTS = ("task", "method", "attack", "rule", "engine")
USUAL = {"method": "byz_nsgdm", "attack": "none"}  # what a spec that does not name them has


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`: a table without a name (and not empty) changes single keys, others replace."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and value and "name" not in value:
            merged[key] = merge(_table(old, key), value)
        else:
            merged[key] = _renamed(old, value)
    return merged


def apply_settings(data: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """`data` with `key=value` settings; what names a component goes before what sets its keys."""
    return assign_settings(data, [parse_setting(text) for text in settings])


def assign_settings(data: Mapping[str, Any], pairs: Iterable[tuple[Sequence[str], Any]]) -> dict[str, Any]:
    """`data` with the values of `pairs` at their paths, in the order that `apply` says."""
    changed = USUAL | dict(data)
    for path, value in sorted(pairs, key=lambda pair: len(pair[0]) - (pair[0][-1] == "name")):
        changed = _set(changed, path, value)
    return changed


def parse_setting(text: str) -> tuple[list[str], Any]:
    """`key=value` as the path of a key and its value."""
    key, equals, value = text.partition("=")
    path = parse_path(key)
    if not equals or not path:
        raise InvalidInput(
            f"A setting should read `key=value`, for instance `attack.name=alie`. Found {text!r}."
        )
    return path, anchor(_value(value.strip(), path[-1] in (*COMPONENTS, "name")), Path())


def anchor(value: Any, folder: Path) -> Any:
    """Plain data whose names of users' files (`file.py:part`) no longer depend on where they are read: those
    that are relative start at `folder`."""
    if isinstance(value, Mapping):
        path = value.get("path")
        if "sha256" in value and isinstance(path, str) and path:
            return {**value, "path": str((folder / path).absolute())}
        known = isinstance(source := value.get(KEY), Mapping) and "sha256" in source  # says where it lies
        return {key: one if known and key == "name" else anchor(one, folder) for key, one in value.items()}
    if isinstance(value, list):
        return [anchor(one, folder) for one in value]
    if not isinstance(value, str) or ".py:" not in value:
        return value
    if is_reference(value) and ">>" not in value:
        return anchored(value, folder)
    try:
        return anchor(stages_of(value), folder)  # a rule in words
    except InvalidInput:
        return value


def parse_path(text: str) -> list[str]:
    """`task.partition.alpha` as its steps, of which one in quotes may hold dots; none for what is no key."""
    try:
        table: Any = toml.loads(f"{text} = 0", "The key of a setting")
    except toml.NoTOML:
        return []
    path = []
    while isinstance(table, dict) and len(table) == 1:
        ((step, table),) = table.items()
        path.append(step)
    return path if table == 0 else []


def _value(text: str, names_a_component: bool) -> Any:
    try:
        parsed = toml.loads(f"value = {text}", "The value of a setting")
    except toml.NoTOML:
        return text
    # An attack may be called nan or inf, which TOML reads as numbers.
    is_value = set(parsed) == {"value"} and not (names_a_component and isinstance(parsed["value"], float))
    return parsed["value"] if is_value else text


def _set(data: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    if rest in ([], ["name"]):
        return dict(data) | {first: _renamed(data.get(first), value)}
    return dict(data) | {first: _set(_table(data.get(first), first), rest, value)}


def _table(old: Any, key: str) -> Mapping[str, Any]:
    """What stands at `key`, as a table whose keys can be set."""
    if old is None:
        return {}
    if isinstance(old, str) and ">>" not in old:
        return {"name": old}
    if isinstance(old, Mapping):
        return old
    raise InvalidInput(f"`{key}` has no keys of its own to set. Found {said(old)}. Set `{key}` as a whole.")


def _renamed(old: Any, value: Any) -> Any:
    """`value` in place of `old`; the name that `old` already has leaves its other keys as they are."""
    if isinstance(value, str) and isinstance(old, Mapping) and old.get("name") == value:
        return old
    return value
