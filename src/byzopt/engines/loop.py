"""The one loop. Engines differ only in how they fetch rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.filters import At, Filter
from byzopt.engines.base import Engine
from byzopt.methods import Method
from byzopt.servers import Site


class LoopState(NamedTuple):
    """Everything that a run carries from round to round; a checkpoint is this tuple."""

    t: int
    step: Any
    filter: Any
    engine: Any | None
    gradients: int
    bits: float


class Snapshot(NamedTuple):
    """A finished round: the state after it, the point asked at, the aggregate, the iterate to answer."""

    state: LoopState
    asked: Tensor
    aggregate: Tensor
    x: Tensor
    method: Method

    def report(self) -> dict[str, float]:
        """Figures that need no task: norm of the aggregate, gradients and bits per worker so far, and what
        the server's step reports (for instance how often a zero aggregate gave no step)."""
        return self.method.step.report(self.state.step) | {
            "aggregate_norm": float(linalg.norm(self.aggregate)),
            "gradients": float(self.state.gradients),
            "bits": self.state.bits,
        }


def begin(method: Method, x0: Tensor, site: Site, n: int) -> LoopState:
    """The state before round 1. Errors: a rule that cannot work on n rows."""
    return LoopState(0, method.step.init(x0, site), method.filter.init(x0, n), None, 0, 0.0)


def rounds(method: Method, engine: Engine, state: LoopState, last: int) -> Iterator[Snapshot]:
    """Run rounds `state.t + 1 .. last`, one ask and one tell each.

    Errors: `TooManyFaults` when a round's rows hold more faulty ones than the rule tolerates.
    """
    for t in range(state.t + 1, last + 1):
        x = method.step.ask(state.step)
        at = At(t, x)
        defence = partial(_preview, method.filter, state.filter, at)
        seen, workers = engine.exchange(state.engine, x, t, defence)
        g, memory = method.filter.step(state.filter, seen.rows, at)
        step = method.step.tell(state.step, g)
        state = LoopState(t, step, memory, workers, state.gradients + seen.gradients, state.bits + seen.bits)
        yield Snapshot(state, x, g, method.step.answer(step), method)


def _preview(memory_of: Filter, memory: Any, at: At, rows: Tensor) -> Tensor:
    return memory_of.preview(memory, rows, at)
