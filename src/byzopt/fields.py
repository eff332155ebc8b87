"""Fields of recipes, checked when a recipe is built: from a spec, by hand, or by `replace`."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import fields
from functools import cache, wraps
from math import isfinite
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from byzopt.errors import require, said

_UNSET = object()


class Kind(NamedTuple):
    """What a field may hold: a test, and the words for it."""

    fits: Callable[[Any], bool]
    words: str


def _number(value: Any, kind: type[Any]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


_SCALARS: dict[Any, Kind] = {
    int: Kind(lambda v: _number(v, Integral), "a whole number"),
    float: Kind(lambda v: _number(v, Real) and isfinite(v), "a finite number"),
    bool: Kind(lambda v: isinstance(v, bool), "True or False"),
    str: Kind(lambda v: isinstance(v, str), "text"),
    NoneType: Kind(lambda v: v is None, "None"),
}


def checked(cls: type[Any]) -> None:
    """Make the dataclass `cls` check its fields whenever one is built: their types, and that they are finite.

    Numbers of NumPy become Python's, so that recipes can be written down. Errors: `InvalidInput`.
    """
    build = cls.__init__

    @wraps(build)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            build(self, *args, **kwargs)
        except Exception:
            _look(self)  # a rule for numbers says less of what is no number than this does
            raise
        _look(self)

    cls.__init__ = init


def check_kind(what: str, value: Any, hint: Any) -> None:
    """Raise `InvalidInput` unless `value` is what the type `hint` says, as for fields of recipes."""
    kind = _kind(hint)
    if kind is not None:
        require(kind.fits(value), what, f"be {kind.words}", said(value))


def _look(recipe: Any) -> None:
    for name, kind in _kinds(cast("Hashable", type(recipe))):
        value: Any = getattr(recipe, name, _UNSET)
        if value is _UNSET:  # left out where it is required: Python's own error says so
            continue
        if not kind.fits(value):
            what = f"Parameter `{name}` of {type(recipe).__name__}"
            require(False, what, f"be {kind.words}", said(value))
        if type(value).__module__ == "numpy":
            object.__setattr__(recipe, name, value.item())


@cache
def _kinds(cls: Any) -> tuple[tuple[str, Kind], ...]:
    try:
        hints = get_type_hints(cls)
    except NameError:  # a plugin that imports its types for type checkers alone
        return ()
    found = ((field.name, _kind(hints[field.name])) for field in fields(cls) if field.init)
    return tuple((name, kind) for name, kind in found if kind is not None)


def _kind(hint: Any) -> Kind | None:
    """How to check a field with this type; None where nothing is known of it."""
    if hint is Any:
        return None
    if hint in _SCALARS:
        return _SCALARS[hint]
    if isinstance(hint, type):
        return Kind(lambda v: isinstance(v, hint), f"of type {hint.__name__}")
    if get_origin(hint) is tuple and get_args(hint)[1:] == (...,):
        each = _kind(get_args(hint)[0]) or Kind(lambda v: True, "anything")
        return Kind(
            lambda v: isinstance(v, (tuple, list)) and all(map(each.fits, v)),
            f"a tuple, each of it {each.words}",
        )
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        fits = {type(choice) for choice in choices}
        return Kind(lambda v: type(v) in fits and v in choices, f"one of {', '.join(map(repr, choices))}")
    if get_origin(hint) in (Union, UnionType):
        known = [part for part in map(_kind, get_args(hint)) if part is not None]
        if len(known) < len(get_args(hint)):
            return None
        return Kind(lambda v: any(part.fits(v) for part in known), " or ".join(part.words for part in known))
    return None
