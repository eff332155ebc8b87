"""Which recipe classes are users' own, and where each comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from byzopt.own_files.bundle import PREFIX
from byzopt.own_files.source import PartSource

_SOURCES: dict[type[Any], PartSource] = {}
_CLASSES: dict[tuple[str, str], type[Any]] = {}  # by label and hash


def record_origin(cls: type[Any], source: PartSource) -> None:
    """Note where a class comes from; from now on it goes by its label."""
    _SOURCES[cls] = source
    _CLASSES[source.label, source.sha256] = cls
    if "name" not in vars(cls) or is_private(cls):
        cls.name = source.label


def origin_of(cls: type[Any]) -> PartSource | None:
    """Where a class comes from, if it is known to be a user's own."""
    return _SOURCES.get(cls)


def given_as_object(name: object, recorded: object) -> type[Any] | None:
    """The class that this program was given as an object, and that a stored table tells of."""
    if not isinstance(recorded, Mapping) or recorded.get("path") != "":
        return None
    return _CLASSES.get((str(name), str(recorded.get("sha256"))))


def is_private(part: Any) -> bool:
    """Whether a class or function was defined while a user's file was loaded."""
    return str(getattr(part, "__module__", "")).startswith(PREFIX)
