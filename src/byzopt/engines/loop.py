"""The one loop. Engines differ only in how they fetch rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.core.certificate import Certificate
from byzopt.aggregators.core.defence import Defence
from byzopt.aggregators.core.expulsion import Expulsion
from byzopt.engines.base import Engine, check_rows
from byzopt.engines.honest_rows import Honest, honest_figures, nobody
from byzopt.methods import Method
from byzopt.servers import ServerContext

Against = Callable[[int], int | None]
LEDGER = ("gradients", "bits", "coordinates", "bits_down", "coordinates_down")


class LoopState(NamedTuple):
    """Everything that a run carries from round to round; a checkpoint is this tuple.

    The ledger, per worker since the start: gradients, bits and coordinates up, the same down.

    Args:
        t: Finished rounds.
        step: State of the server's step.
        filter: State of the server's rule.
        engine: State of the workers and the wire; None before round 1.
        gradients: Minibatch gradients of a worker so far.
        bits: Bits that a worker sent so far.
        coordinates: Coordinates that a worker sent so far.
        bits_down: Bits that a worker received so far.
        coordinates_down: Coordinates that a worker received so far.
        aggregate: Of the last round, `[d]`; None before round 1.

    Examples:
        >>> from byzopt.engines import LoopState
        >>> LoopState(0, None, None, None, 0.0, 0.0).ledger
        (0.0, 0.0, 0.0, 0.0, 0.0)
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
    what was certified of the aggregate and measured of the honest rows, if that was asked for.

    Args:
        state: The state after the round.
        asked: The point at which workers evaluated, `[d]`.
        aggregate: The server's aggregate, `[d]`.
        x: The iterate to answer, `[d]`.
        method: What is run.
        engine: Who asked the workers.
        certificate: What was certified of the aggregate; None: nothing was asked.
        honest: Figures of the honest rows (`honest_rows.honest_figures`); empty: nothing was asked.

    Examples:
        >>> from byzopt import Adversary, Cohort, NoAttack, Quartic, RobustGD, rule_from
        >>> from byzopt.engines import InProcess, begin, rounds
        >>> from byzopt.servers import ServerContext
        >>> cohort = Cohort.of(4)
        >>> task = Quartic().build(cohort, seed=0)
        >>> method = RobustGD().build(rule_from("median", f=1), lr=0.01)
        >>> engine = InProcess().build(task, method, Adversary(NoAttack(), cohort, f=1), seed=0)
        >>> state = begin(method, task.start(), ServerContext(task.layout), task.n)
        >>> (snapshot,) = rounds(method, engine, state, last=1)
        >>> snapshot.report()["gradients"]
        1.0
    """

    state: LoopState
    asked: Tensor
    aggregate: Tensor
    x: Tensor
    method: Method
    engine: Engine
    certificate: Certificate | None = None
    honest: Mapping[str, float] = MappingProxyType({})

    @property
    def reach(self) -> float:
        """The length of the iterate."""
        return float(linalg.norm(self.x))

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


def begin(method: Method, x0: Tensor, site: ServerContext, n: int) -> LoopState:
    """The state before round 1. Errors: a rule that cannot work on n rows.

    Args:
        method: What is run.
        x0: The starting point, `[d]`.
        site: Names of the coordinates, and the server's loss if it owns one.
        n: Number of workers.

    Raises:
        InvalidInput: A rule that cannot work on n rows, and a site that lacks what the step needs.

    Examples:
        >>> from byzopt import Cohort, Quartic, RobustGD, rule_from
        >>> from byzopt.engines import begin
        >>> from byzopt.servers import ServerContext
        >>> task = Quartic().build(Cohort.of(10), seed=0)
        >>> method = RobustGD().build(rule_from("median", f=2), lr=0.01)
        >>> begin(method, task.start(), ServerContext(task.layout), task.n).t
        0
    """
    return LoopState(0, method.step.init(x0, site), method.filter.begin(x0, n, site.proxy), None, 0.0, 0.0)


def never(t: int) -> int | None:
    """No round's aggregate is certified."""
    return None


def rounds(
    method: Method,
    engine: Engine,
    state: LoopState,
    last: int,
    against: Against = never,
    honest: Honest = nobody,
) -> Iterator[Snapshot]:
    """Run rounds `state.t + 1 .. last`, one ask and one tell each.

    `against(t)` says for how many faulty rows the aggregate of round t is to be certified; None: not at all.
    `honest(t)` says whose rows of round t are to be summarised; empty: nobody's.

    Errors: `TooManyFaults` when a round's rows hold more faulty ones than the rule tolerates.

    Args:
        method: What is run.
        engine: Who asks the workers.
        state: What `begin` gave, or the state of an earlier snapshot.
        last: The last round.
        against: For how many faulty rows the aggregate of a round is certified; None: not at all.
        honest: Whose rows of a round are summarised; empty: nobody's.

    Raises:
        TooManyFaults: A round's rows hold more faulty ones than the rule tolerates.

    Examples:
        >>> from byzopt import Adversary, Cohort, Quartic, RobustGD, SignFlip, rule_from
        >>> from byzopt.engines import InProcess, begin, rounds
        >>> from byzopt.servers import ServerContext
        >>> cohort = Cohort.of(10, byzantine=2)
        >>> task = Quartic().build(cohort, seed=0)
        >>> method = RobustGD().build(rule_from("median", f=2), lr=0.01)
        >>> engine = InProcess().build(task, method, Adversary(SignFlip(), cohort, f=2), seed=0)
        >>> state = begin(method, task.start(), ServerContext(task.layout), task.n)
        >>> [snapshot.state.t for snapshot in rounds(method, engine, state, last=3)]
        [1, 2, 3]
    """
    for t in range(state.t + 1, last + 1):
        x = method.step.ask(state.step)
        at = engine.context(t, x)
        defence = Defence(method.filter, state.filter, at)
        seen, workers = engine.exchange(state.engine, x, t, defence, state.aggregate)
        check_rows(f"The rows of engine {type(engine).__name__}", seen.rows, engine.n, x)
        f, certificates = against(t), list[Certificate]()
        if f is None:
            g, memory = method.filter.step(state.filter, seen.rows, at)
        else:
            g, memory, certificates = method.filter.certified_step(state.filter, seen.rows, at, f)
        step = method.step.tell(state.step, g)
        cost = added(state.ledger, seen[1:])
        state = LoopState(t, step, memory, workers, cost[0], cost[1], cost[2], cost[3], cost[4], g)
        x_after, certificate = method.step.answer(step), next(iter(certificates), None)
        figures = honest_figures(seen.rows, honest(t), at.present)
        yield Snapshot(state, x, g, x_after, method, engine, certificate, figures)


def added(before: Sequence[float], cost: Sequence[float]) -> tuple[float, ...]:
    """A ledger after one more round."""
    return tuple(a + b for a, b in zip(before, cost, strict=True))
