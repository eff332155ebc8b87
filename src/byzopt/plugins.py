"""Components of other packages: modules that they name in the entry-point group `byzopt.plugins`.

Importing such a module registers what it holds. That is done when a name is asked for that nobody knows yet,
and for lists of all names; known names cost nothing.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from warnings import warn

GROUP = "byzopt.plugins"
_loaded: set[str] = set()


def load_plugins() -> None:
    """Import every installed plugin, once. One that cannot be imported is told of in a warning."""
    for point in entry_points(group=GROUP):
        if point.value in _loaded:
            continue
        _loaded.add(point.value)  # before: a plugin may itself ask for names
        try:
            point.load()
        except Exception as error:
            which = f"{point.name!r} ({point.value})"
            warn(f"The byzopt plugin {which} cannot be loaded: {error!r}.", stacklevel=2)
