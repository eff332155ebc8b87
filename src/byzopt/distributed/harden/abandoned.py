"""Ranks that leave a round while others wait: what of it is told to whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
import torch.distributed as dist

from byzopt.distributed.harden.seams import ENGINE
from byzopt.errors import ByzoptError


class Sentinel:
    """Is given to autograd as what to call when a pass is over. Where it is let go of without having been
    called the pass has raised, and `hook.abandon()` is called."""

    def __init__(self, hook: Any) -> None:
        self._hook, self._over = ref(hook), False

    def __call__(self) -> None:
        self._over = True

    def __del__(self) -> None:
        hook = self._hook()
        if not self._over and hook is not None:
            hook.abandon()


def named(error: Exception) -> Exception:
    """`error`, in our words where the process group says with it that a rank is gone."""
    lost = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    if not lost:
        return error
    told = ByzoptError(
        f"All ranks should live through a round. Found one gone, or silent for as long as the process group "
        f"waits: {error} Start all ranks again, or say harden(..., deadline=seconds): then the others go on."
    )
    told.__cause__ = error
    return told


def raise_behind(error: Exception) -> None:
    """Raise from `backward`, when DDP has finished with it; at once where there is no backward."""

    def tell() -> None:
        raise error

    if torch._C._current_graph_task_id() == -1:
        raise error
    run_behind(tell)


def run_behind(what: Callable[[], None]) -> None:
    """Call it when DDP has finished with the pass."""
    # DDP's own callback may be queued behind this one; behind it comes what this one queues.
    ENGINE.queue_callback(lambda: ENGINE.queue_callback(what))
