"""The one loop. Engines differ only in how they fetch rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.core.certificate import Certificate
from byzopt.aggregators.core.expulsion import Expulsion
from byzopt.aggregators.core.filters import At, Defence
from byzopt.engines.base import Engine
from byzopt.errors import require
from byzopt.methods import Method
from byzopt.servers import Site

Against = Callable[[int], int | None]
LEDGER = ("gradients", "bits", "coordinates", "bits_down", "coordinates_down")


class LoopState(NamedTuple):
    """Everything that a run carries from round to round; a checkpoint is this tuple.

    The ledger, per worker since the start: gradients, bits and coordinates up, the same down.
    """

    t: int
    step: Any
    filter: Any
    engine: Any | None
    gradients: float
    bits: float
    coordinates: float = 0.0
    bits_down: float = 0.0
    coordinates_down: float = 0.0
    aggregate: Tensor | None = None

    @property
    def ledger(self) -> tuple[float, ...]:
        """The figures of `LEDGER`."""
        return self[4:9]


class Snapshot(NamedTuple):
    """A finished round: the state after it, the point asked at, the aggregate, the iterate to answer, and
    what was certified of the aggregate, if that was asked for."""

    state: LoopState
    asked: Tensor
    aggregate: Tensor
    x: Tensor
    method: Method
    engine: Engine
    certificate: Certificate | None = None

    def report(self) -> dict[str, float]:
        """Figures that need no task: norm of the aggregate, the ledger (`LEDGER`, per worker so far), and
        what the server's step, rule and engine report (for instance how often a zero aggregate gave no step,
        or how many messages were malformed)."""
        parts = self.method.step.report(self.state.step) | self.method.filter.report(self.state.filter)
        return (parts | self.engine.report(self.state.engine)) | {
            "aggregate_norm": float(linalg.norm(self.aggregate)),
            **dict(zip(LEDGER, self.state.ledger, strict=True)),
        }

    @property
    def expelled(self) -> tuple[Expulsion, ...]:
        """Workers that the server has expelled for good, with round and reason."""
        return self.method.filter.expelled(self.state.filter)


def begin(method: Method, x0: Tensor, site: Site, n: int) -> LoopState:
    """The state before round 1. Errors: a rule that cannot work on n rows."""
    return LoopState(0, method.step.init(x0, site), method.filter.init(x0, n), None, 0.0, 0.0)


def never(t: int) -> int | None:
    """No round's aggregate is certified."""
    return None


def rounds(
    method: Method, engine: Engine, state: LoopState, last: int, against: Against = never
) -> Iterator[Snapshot]:
    """Run rounds `state.t + 1 .. last`, one ask and one tell each.

    `against(t)` says for how many faulty rows the aggregate of round t is to be certified; None: not at all.

    Errors: `TooManyFaults` when a round's rows hold more faulty ones than the rule tolerates.
    """
    for t in range(state.t + 1, last + 1):
        x = method.step.ask(state.step)
        at = At(t, x)
        defence = Defence(method.filter, state.filter, at)
        seen, workers = engine.exchange(state.engine, x, t, defence, state.aggregate)
        check_rows(engine, seen.rows, x)
        f, told = against(t), list[Certificate]()
        if f is None:
            g, memory = method.filter.step(state.filter, seen.rows, at)
        else:
            g, memory, told = method.filter.judged(state.filter, seen.rows, at, f)
        step = method.step.tell(state.step, g)
        cost = added(state.ledger, seen[1:])
        state = LoopState(t, step, memory, workers, cost[0], cost[1], cost[2], cost[3], cost[4], g)
        yield Snapshot(state, x, g, method.step.answer(step), method, engine, next(iter(told), None))


def check_rows(engine: Engine, rows: Tensor, x: Tensor) -> None:
    """Raise `InvalidInput` unless an engine gave one row for each worker, of the dtype and device of `x`."""
    wanted = (engine.n, *x.shape), x.dtype, x.device
    if (rows.shape, rows.dtype, rows.device) != wanted:
        shape, dtype, device = wanted
        require(
            False,
            f"The rows of engine {type(engine).__name__}",
            f"have shape {list(shape)}, {dtype} on {device}, row i from worker i",
            f"shape {list(rows.shape)}, {rows.dtype} on {rows.device}",
        )


def added(before: Sequence[float], cost: Sequence[float]) -> tuple[float, ...]:
    """A ledger after one more round."""
    return tuple(a + b for a, b in zip(before, cost, strict=True))
