"""One registry per room: recipe (a frozen dataclass) <-> plain data. Unknown names and keys are refused.

A recipe class carries its registered `name`. Plain data is a name (`"krum"`) or a table
(`{"name": "krum", "f": 3}`). A field whose type is the base class of another room is decoded by
that room's registry, so recipes nest. Names that no room knows are looked for in plugins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from math import isfinite
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec

from byzopt.errors import InvalidInput, UnknownName, unknown
from byzopt.plugins import load_plugins

T = TypeVar("T")
C = TypeVar("C", bound=type)
_ROOMS: dict[type, Registry[Any]] = {}


class Registry(Generic[T]):
    """Named recipe classes of one kind. `base` is the abstract class that they extend."""

    def __init__(self, kind: str, base: type[T]) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}
        _ROOMS[base] = self

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator: file a frozen dataclass under `name`."""

        def file(cls: C) -> C:
            if name in self._classes:
                raise InvalidInput(
                    f"The {self.kind} name {name!r} is taken by {self._classes[name].__name__}."
                )
            cls.name = name  # type: ignore[attr-defined]
            self._classes[name] = cls
            return cls

        return file

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __contains__(self, name: object) -> bool:
        if not any(name in room._classes for room in _ROOMS.values()):
            load_plugins()
        return name in self._classes

    def __getitem__(self, name: str) -> type[T]:
        if name not in self:
            raise unknown(self.kind, name, list(self._classes))
        return self._classes[name]

    def build(self, data: Any, **defaults: Any) -> T:
        """The recipe that `data` describes. `defaults` fill fields of those names where `data` is silent."""
        if isinstance(data, str):
            data = {"name": data}
        if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
            raise InvalidInput(f"A {self.kind} should be a name or a table with a `name`. Found {data!r}.")
        cls = self[data["name"]]
        given = {key: value for key, value in data.items() if key != "name"}
        return decode(cls, given, f"{self.kind} {data['name']!r}", defaults)


def decode(cls: type[T], data: Mapping[str, Any], what: str, defaults: Mapping[str, Any] | None = None) -> T:
    """`data` as an instance of the dataclass `cls`: strict types, finite numbers, no unknown keys."""
    public = [f for f in fields(cls) if f.init]  # type: ignore[arg-type]
    names = [f.name for f in public]
    for key in data:
        if key not in names:
            raise UnknownName(f"In {what}: {unknown('key', key, names)}")
    values = {k: v for k, v in (defaults or {}).items() if k in names and k not in data} | dict(data)
    hints = get_type_hints(cls)
    arguments = {}
    for field in public:
        if field.name in values:
            arguments[field.name] = _convert(values[field.name], hints[field.name], what, field.name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise InvalidInput(
                f"In {what}: key {field.name!r} is required. Found none. Add `{field.name} = ...`."
            )
    try:
        return cls(**arguments)
    except InvalidInput as error:
        raise type(error)(f"In {what}: {error}") from None


def plain(recipe: Any) -> Any:
    """A recipe as plain data (tables, lists, strings, numbers): the inverse of `build` and `decode`."""
    if is_dataclass(recipe) and not isinstance(recipe, type):
        named = {"name": recipe.name} if hasattr(recipe, "name") else {}
        values = {f.name: (getattr(recipe, f.name), f.default) for f in fields(recipe) if f.init}
        # TOML has no null: a None that is the default is left out.
        return named | {k: plain(v) for k, (v, usual) in values.items() if v is not None or usual is not None}
    if isinstance(recipe, Mapping):
        return {key: plain(value) for key, value in recipe.items()}
    if isinstance(recipe, (list, tuple)):
        return [plain(value) for value in recipe]
    return recipe


def _convert(value: Any, kind: Any, what: str, key: str) -> Any:
    if not _finite(value):
        raise InvalidInput(f"In {what}: `{key}` should be a finite number. Found {value}.")
    try:
        return msgspec.convert(value, type=kind, strict=True, dec_hook=_nested)
    except msgspec.ValidationError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, InvalidInput):
            raise cause from None
        raise InvalidInput(f"In {what}: `{key}` is not valid. {error}. Found {value!r}.") from None


def _finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_finite, value))
    return not isinstance(value, float) or isfinite(value)


def _nested(kind: type, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    if kind in _ROOMS:
        return _ROOMS[kind].build(value)
    raise InvalidInput(f"A value of type {kind.__name__} cannot be written as plain data. Found {value!r}.")
