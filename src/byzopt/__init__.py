"""byzopt: training that converges while some of the workers lie.

All public names of the rooms can be imported from here: `from byzopt import NNM, Krum, ModuleTask, simulate`.
They are loaded when first used, so that `import byzopt` alone costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from byzopt.aggregators import *  # noqa: F403
    from byzopt.attacks import *  # noqa: F403
    from byzopt.cohort import *  # noqa: F403
    from byzopt.distributed.harden import *  # noqa: F403
    from byzopt.errors import *  # noqa: F403
    from byzopt.experiments import *  # noqa: F403
    from byzopt.methods import *  # noqa: F403
    from byzopt.tasks import *  # noqa: F403

_ROOMS = (
    "errors",
    "cohort",
    "aggregators",
    "attacks",
    "methods",
    "distributed.harden",
    "tasks",
    "experiments",
)


def __getattr__(name: str) -> Any:
    if name == "__all__":  # asked for by `from byzopt import *`, which loads every room
        return _public()
    # A room is asked for here too before it is loaded (`from byzopt import linalg`), and is no public name.
    if not name.startswith("_") and find_spec(f"byzopt.{name}") is None:
        for room in _ROOMS:
            module = import_module(f"byzopt.{room}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module 'byzopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    public = _public()  # first: what it loads becomes a global
    own = (name for name, value in globals().items() if name[:2] == "__" or isinstance(value, ModuleType))
    return sorted({*public, *own, "__all__"})


def _public() -> list[str]:
    """The public names of all rooms."""
    return sorted({name for room in _ROOMS for name in import_module(f"byzopt.{room}").__all__})
