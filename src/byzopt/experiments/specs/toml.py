"""Plain data as TOML text (the standard library only reads it), and text read with care."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from byzopt.errors import InvalidInput
from byzopt.registry import DEEPEST, parts

_NO_KEY = re.compile(r"[,=\n\[\]{}#]")
_STEP = re.compile(r"[^.\s][ \t]*\.")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class NoTOML(InvalidInput):
    """Text that is not TOML at all."""


def loads(text: str, what: str) -> dict[str, Any]:
    """The data of a TOML text. Errors: `NoTOML`; `InvalidInput` where it nests too deep, and for whole
    numbers that TOML does not have."""
    long = f"{what} should hold whole numbers of at most 64 bits. Found a longer one."
    deep = f"{what} should nest at most {DEEPEST} levels deep. Found more."
    # Of the standard library's reader, whose time grows with the square of a dotted key's steps.
    if any(len(_STEP.findall(part)) > 2 * DEEPEST for part in _NO_KEY.split(text)):
        raise InvalidInput(deep)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NoTOML(f"{what} should be valid TOML. Found: {error}.") from None
    except RecursionError:
        raise InvalidInput(deep) from None
    except ValueError:  # of Python, which reads no number of so many digits
        raise InvalidInput(long) from None
    if any(isinstance(one, int) and not -(1 << 63) <= one < 1 << 63 for one in parts(data, what)):
        raise InvalidInput(long)
    return data


def dumps(data: Mapping[str, Any]) -> str:
    """`data` as TOML: scalars and lists first, then one section for each table, deeper tables inline."""
    tables = {key: value for key, value in data.items() if isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in data.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{_key(name)}]"]
        lines += [f"{_key(key)} = {_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return _text(value) if isinstance(value, str) else repr(value)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
