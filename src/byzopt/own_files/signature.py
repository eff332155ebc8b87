"""Recipes made of callables: a function's parameters become the fields."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import MISSING, field, fields, make_dataclass
from typing import Any, TypeVar, cast, get_type_hints

import msgspec

from byzopt.errors import InvalidInput, require
from byzopt.own_files.blame import blamed

T = TypeVar("T")


def recipe_from(call: Callable[..., Any], base: type[T], filled: Collection[str], build: Any) -> type[T]:
    """A frozen dataclass that extends `base`, with a field for each parameter of `call` but those that are
    `filled` when it is called (`called`). `build` is its method of that name.

    Errors: `InvalidInput` for parameters that a table cannot name.
    """
    what = f"`{call.__name__}`"
    hints, made = _hints(call), []
    for name, one in inspect.signature(call).parameters.items():
        if name in filled:
            continue
        named = one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        require(named, f"Parameters of {what}", "each have a name, for a table to set", str(one))
        free = name not in ("name", "source") and not hasattr(base, name)
        require(free, f"A parameter of {what}", "not be called as what every recipe has", f"`{name}`")
        made.append((name, hints.get(name, Any), _field(one.default)))
    methods = {"build": build, "call": staticmethod(call), "filled": frozenset(filled), "__hash__": _hash}
    methods |= {"__doc__": inspect.getdoc(call) or f"What {what} makes."}
    cls = make_dataclass(call.__name__, made, bases=(base,), namespace=methods, frozen=True, kw_only=True)
    cls.__module__ = call.__module__
    return cls


def called(recipe: Any, known: Mapping[str, Any]) -> Any:
    """What the callable of a recipe gives for the recipe's fields, and for those that are `known` and among
    its parameters. Errors: `UserError` for errors in it."""
    wanted = inspect.signature(recipe.call).parameters.keys() & known.keys()
    given = {one.name: deepcopy(getattr(recipe, one.name)) for one in fields(recipe)}
    with blamed(inspect.getsourcefile(recipe.call) or ""):
        return recipe.call(**given, **{name: known[name] for name in wanted})


def check_frozen(cls: type[Any], what: str) -> None:
    """Raise `InvalidInput` unless a recipe's class is a frozen dataclass of its own, and whole."""
    options = vars(cls).get("__dataclass_params__")
    remedy = "Write @dataclass(frozen=True) above the class."
    require(options is not None and options.frozen, what, "be a frozen dataclass", cls.__name__, remedy)
    left = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
    require(not left, what, "write what its base class leaves open", f"{cls.__name__} without {left}")


def _hash(recipe: Any) -> int:
    """Lists and tables may be among the values."""
    values = {one.name: getattr(recipe, one.name) for one in fields(recipe)}
    return hash((type(recipe).__qualname__, json.dumps(values, sort_keys=True, default=repr)))


def _field(default: Any) -> Any:
    if default is inspect.Parameter.empty:
        return field()
    if type(default).__hash__ is None:
        return field(default_factory=lambda: deepcopy(default))
    return field(default=default)


def _hints(call: Callable[..., Any]) -> dict[str, Any]:
    """The types of parameters, as far as plain data can be checked against them."""
    try:
        hints = get_type_hints(vars(call)["__init__"] if isinstance(call, type) else call)
    except Exception:  # names that are there for type checkers alone
        return {}
    return {name: hint for name, hint in hints.items() if _convertible(hint)}


def _convertible(hint: Any) -> bool:
    try:
        msgspec.convert(MISSING, type=hint, strict=True, dec_hook=lambda kind, value: cast(Any, value))
    except (msgspec.ValidationError, InvalidInput):
        return True
    except TypeError:  # no type of plain data
        return False
    return True
