"""Memory of sums that nobody holds any more, used again for the sums of a later round.

States are never written to, so every round has new sums; and the first touch of new memory takes several
times as long as an addition. The memory lives as long as some sums of the run do.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMPY: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


def room_after(old: Tensor) -> Tensor:
    """Uninitialised memory of the shape and dtype of `old`, on the CPU: that of earlier sums that are gone.

    Each result knows the pile on which its memory is laid once nobody holds it: the pile of those after it.
    """
    pile: list[np.ndarray[Any, Any]] = getattr(old, "_spare", [])
    memory = pile.pop() if pile else np.empty(tuple(old.shape), dtype=_NUMPY[old.dtype])
    lent = memory.view()  # what the tensor holds on to: its end is the tensor's, and that of all views of it
    weakref.finalize(lent, pile.append, memory).atexit = False
    out = torch.from_numpy(lent)
    out._spare = pile  # type: ignore[attr-defined]
    return out
