"""What a method's estimator remembers of each client, kept at the server: ClientApps know nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.flower.members import Faults
from byzopt.workers import Estimator, Oracle


class ClientMomentum:
    """An estimator over the rows that clients sent; one that is not heard in a round keeps its memory.

    Memory: the estimator's state for each client that was ever heard, d numbers each for a momentum.
    Errors: `InvalidInput` for an estimator that asks for gradients at points of its own.
    """

    def __init__(self, estimator: Estimator) -> None:
        what, rule = "The estimator of a method behind RobustFedAvg", "use one row of each client in a round"
        remedy = "Take a method with plain rows or momentum, or RobustStrategy with client_app."
        require(not estimator.needs, what, rule, f"one that needs {sorted(estimator.needs)}", remedy)
        self.estimator = estimator
        self.states: dict[int, Any] = {}

    def messages(
        self, rows: Mapping[int, Tensor], x: Tensor, t: int
    ) -> tuple[dict[int, Tensor], dict[int, Any], Faults]:
        """The rows `[d]` that go to the rule, the states after them, and whose momentum has overflowed.

        Nothing is remembered before `remember` is called with these states.
        """
        messages: dict[int, Tensor] = {}
        states: dict[int, Any] = {}
        faults: Faults = {}
        for node, row in rows.items():
            oracle = _one_row(row, x, t)
            with torch.no_grad():
                if node in self.states:
                    message, state = self.estimator.step(self.states[node], x, oracle)
                else:
                    message, state = self.estimator.init(x, oracle)
            if message.isfinite().all():
                messages[node], states[node] = message[0], state
            else:
                faults[node] = "its momentum is NaN or Inf"
        return messages, states, faults

    def remember(self, states: Mapping[int, Any]) -> None:
        """Keep these states."""
        self.states |= states


def _one_row(row: Tensor, x: Tensor, t: int) -> Oracle:
    def answer(point: Tensor) -> Tensor:
        what, rule = "An estimator behind RobustFedAvg", "ask at the point that was sent to clients"
        require(point is x, what, rule, "another point", "Use RobustStrategy with client_app.")
        return row.unsqueeze(0)

    return Oracle(t, answer, answer)
