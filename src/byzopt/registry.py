"""One registry per room: recipe (a frozen dataclass) <-> plain data. Unknown names and keys are refused.

A recipe class carries its registered `name`. Plain data is a name (`"krum"`) or a table
(`{"name": "krum", "f": 3}`). A field whose type is the base class of another room is decoded by
that room's registry, so recipes nest. Names that no room knows are looked for in plugins. In the place of a
registered name may stand a part of the user's own: `file.py:Part`, or the class or function itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from inspect import isabstract, isfunction
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from byzopt.errors import InvalidInput, UnknownName, said, unknown
from byzopt.fields import checked
from byzopt.own_files import (
    KEY,
    PartSource,
    UserError,
    check_frozen,
    describe_error,
    given_as_object,
    is_private,
    is_reference,
    load_part,
    origin_of,
    place_of,
    record_origin,
    source_of,
)
from byzopt.plugins import load_plugins

T = TypeVar("T")
C = TypeVar("C", bound=type)
_ROOMS: dict[type, Registry[Any]] = {}
DEEPEST = 64  # levels of lists within one another; a table counts for two
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: ""}


class Registry(Generic[T]):
    """Named recipe classes of one kind. `base` is the abstract class that they extend."""

    def __init__(self, kind: str, base: type[T]) -> None:
        self.kind, self.base = kind, base
        self._adapt: Callable[[Any], type[T] | None] = lambda part: None
        self.adapted_from: type | None = None
        self._wanted = f"a class that extends {base.__name__}"
        self._adapted: dict[Any, type[T] | None] = {}
        self._one = f"{'An' if kind[0] in 'aeiou' else 'A'} {kind}"
        self._classes: dict[str, type[T]] = {}
        _ROOMS[base] = self

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator: file a frozen dataclass under `name`, and have its fields checked when built."""

        def file(cls: C) -> C:
            if name in self._classes:
                raise InvalidInput(
                    f"The {self.kind} name {name!r} is taken by {self._classes[name].__name__}."
                )
            checked(cls)
            cls.name = name  # type: ignore[attr-defined]
            if not is_private(cls):  # one in a user's file goes by the file's name
                self._classes[name] = cls
            return cls

        return file

    @contextmanager
    def temporarily(self, only: Iterable[str] | None = None) -> Iterator[None]:
        """What is registered in here is forgotten at the end: for tests and notebooks. With `only`, no other
        names than these are known meanwhile. Errors: `UnknownName`."""
        load_plugins()  # what they register stays
        before = self._classes
        self._classes = dict(before) if only is None else {name: self[name] for name in only}
        try:
            yield
        finally:
            self._classes = before

    def adapts(self, result: type, adapt: Callable[[Any], type[T] | None]) -> None:
        """Let `adapt` make a recipe's class of functions that return a `result`, and of classes that extend
        it; it gives None for all else."""
        self.adapted_from, self._adapt = result, adapt
        self._wanted += f" or {result.__name__}, or a function that returns a {result.__name__}"

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __contains__(self, name: object) -> bool:
        if is_reference(name):
            return self._recipe_class(load_part(str(name))[0]) is not None
        if is_part(name):
            return self._recipe_class(name) is not None
        if not any(name in room._classes for room in _ROOMS.values()):
            load_plugins()
        return name in self._classes

    def __getitem__(self, name: Any) -> type[T]:
        """The class of that name, or of a part of the user's own. Errors: `UnknownName`, `InvalidInput`."""
        if is_reference(name) or is_part(name):
            return self._own(name)
        if isinstance(name, str) and name.endswith(".py"):
            raise UnknownName(f"A file should be named with a part of it, as '{name}:NAME'. Found {name!r}.")
        if name not in self:
            raise unknown(self.kind, name, list(self._classes))
        return self._classes[name]

    def recipe(self, data: T | str | Mapping[str, Any]) -> T:
        """The recipe that is given, or that a name, a table, a class or a function describes."""
        if isinstance(data, self.base):
            if not hasattr(type(data), "name"):
                type(data).name = type(data).__qualname__  # type: ignore[attr-defined]
            return data
        if isinstance(data, (str, Mapping)) or is_part(data):
            return self.build(data)
        raise InvalidInput(
            f"{self._one} should be a name, a table with a `name`, or an instance of {self.base.__name__}. "
            f"Found {said(data)}."
        )

    def build(self, data: Any, **defaults: Any) -> T:
        """The recipe that `data` describes. `defaults` fill fields of those names where `data` is silent."""
        if isinstance(data, str) or is_part(data):
            data = {"name": data}
        name = data.get("name") if isinstance(data, Mapping) else None
        if not isinstance(name, str) and not is_part(name):
            raise InvalidInput(f"{self._one} should be a name or a table with a `name`. Found {said(data)}.")
        own = is_reference(name) or is_part(name) or _is_source(data.get(KEY))
        cls = self.class_of(data)
        given = {key: value for key, value in data.items() if key != "name" and (key, True) != (KEY, own)}
        return decode(cls, given, f"{self.kind} {getattr(cls, 'name', name)!r}", defaults)

    def class_of(self, data: Any) -> type[T]:
        """The class of the component that a name or a table describes, a user's own too."""
        name, source = (data.get("name"), data.get(KEY)) if isinstance(data, Mapping) else (data, None)
        recorded = _is_source(source) or (is_reference(name) and source is not None)
        return self._own(name, source) if recorded else self[name]

    def _own(self, name: Any, recorded: Any = None) -> type[T]:
        """The recipe's class that a reference or an object of the user's own stands for. `recorded` is what a
        stored table tells of its source. Errors: `InvalidInput`, `ChangedFile`, `UserError`."""
        known = given_as_object(name, recorded)
        if known is not None:
            return known
        part, source = load_part(name, recorded) if isinstance(name, str) else (name, None)
        cls = self._recipe_class(part)
        what = f"The {self.kind} {name if isinstance(name, str) else part.__qualname__!r}"
        if cls is None:
            raise InvalidInput(f"{what} should be {self._wanted}. Found {said(part)}.")
        if _registered(cls) is None and origin_of(cls) is None:
            check_frozen(cls, what)
            checked(cls)
            record_origin(cls, source or source_of(part))
        return cls

    def _recipe_class(self, part: Any) -> type[T] | None:
        """The recipe's class that a class or function is or stands for, if it is of this room."""
        if isinstance(part, type) and issubclass(part, self.base):
            return part
        if not is_part(part):
            return None
        if part not in self._adapted:
            self._adapted[part] = self._adapt(part)
        return self._adapted[part]


def registries() -> list[Registry[Any]]:
    """All registries that have been made: one for each room that was imported."""
    return list(_ROOMS.values())


def registry_of(recipe: Any) -> Registry[Any] | None:
    """The registry in which a recipe's class is filed under its name, or None."""
    for base, room in _ROOMS.items():
        if isinstance(recipe, base) and room._classes.get(getattr(recipe, "name", "")) is type(recipe):
            return room
    return None


def decode(cls: type[T], data: Mapping[str, Any], what: str, defaults: Mapping[str, Any] | None = None) -> T:
    """`data` as an instance of the dataclass `cls`: strict types, finite numbers, no unknown keys."""
    public = [f for f in fields(cls) if f.init]  # type: ignore[arg-type]
    names = [f.name for f in public]
    for key in data:
        if key not in names:
            raise UnknownName(f"In {what}: {unknown('key', key, names)}")
    values = {k: v for k, v in (defaults or {}).items() if k in names and k not in data} | dict(data)
    hints = _hints(cast("Hashable", cls))
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
    except Exception as error:
        if not (place := place_of(error)):
            raise
        raise UserError(f"In {what}: {place}: {describe_error(error)}") from error


@cache  # a sweep decodes the same few classes thousands of times
def _hints(cls: Any) -> dict[str, Any]:
    """The types of a recipe's fields. Errors: `InvalidInput` for names that only type checkers know."""
    try:
        return get_type_hints(cls)
    except NameError as error:
        raise InvalidInput(
            f"The types of {cls.__name__}'s fields should be importable when it is built. Found: {error}. "
            "Import them outside of `if TYPE_CHECKING:`."
        ) from None


def plain(recipe: Any) -> Any:
    """A recipe as plain data (tables, lists, strings, numbers): the inverse of `build` and `decode`."""
    if is_part(recipe):
        return _named(recipe)
    if is_dataclass(recipe) and not isinstance(recipe, type):
        named = _named(type(recipe))
        values = {f.name: (getattr(recipe, f.name), f.default) for f in fields(recipe) if f.init}
        # TOML has no null: a None that is the default is left out.
        return named | {k: plain(v) for k, (v, usual) in values.items() if v is not None or usual is not None}
    if isinstance(recipe, Mapping):
        own = _named(recipe["name"]) if is_part(recipe.get("name")) else {}
        return own | {key: plain(value) for key, value in recipe.items() if not own or key != "name"}
    if isinstance(recipe, (list, tuple)):
        return [plain(value) for value in recipe]
    return recipe


def resolved(data: Any) -> Any:
    """A component's registered name, or the part of the user's own in its place."""
    name, source = (data.get("name"), data.get(KEY)) if isinstance(data, Mapping) else (data, None)
    known = given_as_object(name, source)
    if known is None and (is_reference(name) or _is_source(source)):
        return load_part(str(name), source)[0]
    return name if known is None else known


def kinds_of(part: Any) -> list[Registry[Any]]:
    """The rooms that a part of a user's own is for: those whose base it extends or says that it returns."""
    kind = get_type_hints(part).get("return") if isfunction(part) else part
    if not isinstance(kind, type) or (kind is part and isabstract(kind)):
        return []
    bases = [base for base in kind.__mro__ if base in _ROOMS]
    if bases:
        return [_ROOMS[bases[0]]]
    return [
        room
        for room in _ROOMS.values()
        if room.adapted_from is not None and issubclass(kind, room.adapted_from)
    ]


def is_part(value: Any) -> bool:
    """Whether a value may be a part of a user's own: a class or a function."""
    return isinstance(value, type) or isfunction(value)


def _named(part: Any) -> dict[str, Any]:
    """What a class's table says of the class itself: its registered name, or where it comes from."""
    if isinstance(part, type):
        source, room = origin_of(part), _registered(part)
        byzopts = part.__module__.partition(".")[0] == "byzopt" or not any(
            issubclass(part, base) for base in _ROOMS
        )
        if source is None and (room is not None or byzopts):
            return {"name": part.name} if hasattr(part, "name") else {}
        if source is None:
            record_origin(part, source_of(part))
        return cast("PartSource", origin_of(part)).data
    return source_of(part).data


def _registered(cls: type[Any]) -> Registry[Any] | None:
    """The room in which this very class is registered."""
    name = vars(cls).get("name")
    return next((room for room in _ROOMS.values() if room._classes.get(str(name)) is cls), None)


def _is_source(value: Any) -> bool:
    return isinstance(value, Mapping) and "sha256" in value


def _convert(value: Any, kind: Any, what: str, key: str) -> Any:
    for one in parts(value, f"In {what}: `{key}`"):
        flaw = _flaw(one)
        if flaw:
            raise InvalidInput(f"In {what}: `{key}` should {flaw}.")
    try:
        return msgspec.convert(value, type=kind, strict=True, dec_hook=_nested)
    except msgspec.ValidationError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, InvalidInput):
            raise cause from None
        raise InvalidInput(f"In {what}: `{key}` should be {_wanted(kind)}. Found {said(value)}.") from None


def parts(value: Any, what: str) -> list[Any]:
    """Plain data and everything in them. Errors: more than `DEEPEST` levels of tables and lists."""
    found, level = [value], [value]
    for _ in range(DEEPEST + 1):
        inside = [one.items() if isinstance(one, Mapping) else one for one in level if _holds(one)]
        level = [part for one in inside for part in one]
        found += level
        if not level:
            return found
    raise InvalidInput(f"{what} should nest at most {DEEPEST} levels deep. Found more.")


def _holds(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple))


def _flaw(value: Any) -> str:
    """The rule that a single value breaks, and what was found; empty where there is none."""
    if isinstance(value, float) and not isfinite(value):
        return f"be a finite number. Found {value}"
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return f"be a whole number of at most 64 bits. Found one of {value.bit_length() + 1}"
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"be text in Unicode. Found {said(value)}"
    return ""


def _wanted(kind: Any) -> str:
    """What a value of a type is, in words, with all values where there are only some."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(filter(None, map(_wanted, parts)))
    if origin is Literal:
        return f"{'one of ' if len(parts) > 1 else ''}{', '.join(map(repr, parts))}"
    if kind in _ROOMS:
        return f"a {_ROOMS[kind].kind}, which is a name or a table with a `name`"
    if origin in (tuple, list):
        inner = dict.fromkeys(_wanted(part) for part in parts if part is not ...)
        return f"a list, each of its values {' or '.join(inner)}"
    if isinstance(origin or kind, type) and issubclass(origin or kind, Mapping):
        return f"a table, each of its values {_wanted(parts[1])}" if len(parts) == 2 else "a table"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _nested(kind: type, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    if kind in _ROOMS:
        return _ROOMS[kind].build(value)
    raise InvalidInput(f"A value of type {kind.__name__} cannot be written as plain data. Found {value!r}.")
