"""Former names of what users import: they work for one release, with a `DeprecationWarning`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from warnings import warn


def former_names(module: str, present: Mapping[str, Any]) -> Callable[[str], Any]:
    """A `__getattr__` for the module of this name. `present` maps former names to what they were given to."""

    def find(name: str) -> Any:
        if name not in present:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        found = present[name]
        warn(f"{module}.{name} is now called {found.__name__}.", DeprecationWarning, stacklevel=2)
        return found

    return find
