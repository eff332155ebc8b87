"""What a run over Flower gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flwr.serverapp.strategy import Result


@dataclass(repr=False)
class RobustResult(Result):
    """Flower's result, and who counted as faulty: `faults[t][node id]` is the reason.

    `nodes[i]` is the node id of row i, in `watch`, too.

    Args:
        arrays: The model.
        train_metrics_clientapp: Metrics of training, by round.
        evaluate_metrics_clientapp: Metrics of the clients' evaluation, by round.
        evaluate_metrics_serverapp: Metrics of the server's evaluation, by round.
        faults: Reasons by round and node id.
        nodes: The node id of each row.
        watch: What watched the rounds.

    Examples:
        >>> from byzopt.flower import RobustResult
        >>> RobustResult(faults={1: {42: "no reply in time"}}).faults[1]
        {42: 'no reply in time'}
    """

    faults: dict[int, dict[int, str]] = field(default_factory=dict)
    nodes: tuple[int, ...] = ()
    watch: Any = None
