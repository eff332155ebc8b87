"""What a run over Flower gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flwr.serverapp.strategy import Result


@dataclass(repr=False)
class RobustResult(Result):
    """Flower's result, and who counted as faulty: `faults[t][node id]` is the reason.

    `nodes[i]` is the node id of row i, in `watch`, too.
    """

    faults: dict[int, dict[int, str]] = field(default_factory=dict)
    nodes: tuple[int, ...] = ()
    watch: Any = None
