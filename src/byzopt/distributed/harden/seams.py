"""What `harden` uses of torch without being promised it: a release that lacks it is refused at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import torch

from byzopt.errors import require

Seam: TypeAlias = tuple[str, Any, tuple[str, ...]]  # what it is of, the thing itself, what it has to have

ENGINE: Any = getattr(torch.autograd.Variable, "_execution_engine", None)
AUTOGRAD: tuple[Seam, ...] = (
    ("torch._C", torch._C, ("_current_graph_task_id",)),
    ("the engine of autograd", ENGINE, ("queue_callback",)),
    ("torch.autograd.grad_mode", torch.autograd.grad_mode, ("_unsafe_preserve_version_counter",)),
)


def require_seams(seams: Iterable[Seam]) -> None:
    """Raise `InvalidInput`, which names what is missing."""
    missing = [
        f"{name!r} of {owner}" for owner, thing, names in seams for name in names if _lacks(thing, name)
    ]
    require(
        not missing,
        "A release of torch",
        "have what harden is built on",
        f"torch {torch.__version__} without {', '.join(missing)}",
        "Use a release that this version of byzopt knows, or a later byzopt.",
    )


def _lacks(thing: Any, name: str) -> bool:
    """Properties may be of no use yet: it is enough that the class has them."""
    return not hasattr(type(thing), name) and not hasattr(thing, name)
