"""The loop of a server that hears one worker at a time, beside that of a synchronous one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isinf
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from byzopt import linalg
from byzopt.engines.loop import LEDGER, LoopState, added
from byzopt.engines.on_clock import OnClock
from byzopt.errors import TooManyFaults
from byzopt.methods.serving import ServerState


class ClockState(NamedTuple):
    """The time; what each worker is at: when it answers, whether it waits for a point, whether its row is
    computed, how many jobs it began; everybody's latest row; the lies, which of them were told, and how often
    the attack was asked since the last step; what workers, attack and server remember."""

    now: float
    due: tuple[float, ...]
    idle: tuple[bool, ...]
    done: tuple[bool, ...]
    begun: tuple[int, ...]
    rows: tuple[Tensor, ...]
    lies: tuple[Tensor, ...]
    told: tuple[bool, ...]
    asked: int
    worker: Any
    attack: Any
    server: ServerState


@dataclass(frozen=True, eq=False)
class ClockSnapshot:
    """A finished server step: the state after it, the aggregate and the iterate.

    Args:
        state: The state after the step.
        aggregate: What the server stepped along, `[d]`.
        x: The iterate, `[d]`.
        run: The parts of the run.

    Examples:
        >>> from byzopt.engines import ClockSnapshot
        >>> list(ClockSnapshot.__dataclass_fields__)[:4]
        ['state', 'aggregate', 'x', 'run']
    """

    state: LoopState
    aggregate: Tensor
    x: Tensor
    run: OnClock

    certificate: ClassVar[None] = None  # nothing of an intake is certified

    @property
    def reach(self) -> float:
        """The length of the iterate."""
        return float(linalg.norm(self.x))

    def report(self) -> dict[str, float]:
        """`clock` the time; `arrivals`, `staleness`, `staleness_max`, `unsound_rows` (`Serving.report`);
        `arrivals_of_liars` the share of rows that came from Byzantine workers; what step, rule, intake,
        workers and attack report; the norm of the aggregate; the ledger, of the average worker."""
        inside: ClockState = self.state.engine  # type: ignore[assignment]
        server = whole(self.state)
        counts = server.arrivals
        figures = self.run.serving.report(server) | {
            "clock": inside.now,
            "arrivals_of_liars": sum(counts[i] for i in self.run.liars) / max(sum(counts), 1),
            "aggregate_norm": float(linalg.norm(self.aggregate)),
        }
        figures |= self.run.method.worker.report(inside.worker) if inside.worker is not None else {}
        figures |= self.run.adversary.attack.report(inside.attack)
        return figures | dict(zip(LEDGER, self.state.ledger, strict=True))


def rounds_on_clock(run: OnClock, state: LoopState, last: int) -> Iterator[ClockSnapshot]:
    """Run server steps `state.t + 1 .. last`: rows come in order of time, until the intake gives a step.

    Of workers that answer at one time the lower number is heard first, and all are sent a point after all
    were heard. Rows are computed when the first of them is needed, all that are in flight on one sample in
    one call; a lie is made up when it arrives, by an attack that sees everybody's latest computed row.

    Args:
        run: The parts of the run.
        state: What `OnClock.begin` gave, or the state of an earlier snapshot.
        last: The last step.

    Raises:
        TooManyFaults: The rows of a step hold more faulty ones than the rule tolerates, or the intake gives
            no step however many rows come.

    Examples:
        >>> from byzopt import Adversary, Cohort, Quadratic, RobustGD, rule_from
        >>> from byzopt.attacks import Flooding
        >>> from byzopt.engines import Asynchrony, OnClock, rounds_on_clock
        >>> from byzopt.intakes import Unique
        >>> cohort = Cohort.of(10, byzantine=2)
        >>> task = Quadratic().build(cohort, seed=0)
        >>> method = RobustGD().build(rule_from("median", f=2), lr=0.1)
        >>> parts = (Asynchrony(intake=Unique(size=8)), Adversary(Flooding(), cohort, 2))
        >>> run = OnClock(task, method, *parts, f=2, seed=0)
        >>> [snapshot.state.t for snapshot in rounds_on_clock(run, run.begin(), last=3)]
        [1, 2, 3]
    """
    for t in range(state.t + 1, last + 1):
        moment = _Moment(run, state)
        aggregate = moment.until_step()
        after, cost = moment.packed(), added(state.ledger, moment.cost)
        server = after.server
        bare = after._replace(server=server._replace(step=(), filter=()))  # those are the loop's
        ledger = (cost[0], cost[1], cost[2], cost[3], cost[4])
        state = LoopState(t, server.step, server.filter, bare, *ledger, aggregate)
        yield ClockSnapshot(state, aggregate, run.method.step.answer(server.step), run)


def whole(state: LoopState) -> ServerState:
    """The server's state of a finished step, with its step and rule."""
    server: ServerState = state.engine.server  # type: ignore[union-attr]
    return server._replace(step=state.step, filter=state.filter)


class _Moment:
    """A run on its way to the next server step."""

    def __init__(self, run: OnClock, state: LoopState) -> None:
        self.run, self.n, self.cost = run, run.task.n, [0.0] * len(LEDGER)
        x0, n = run.task.start(), run.task.n
        if state.engine is None:
            server = run.serving.begin(x0, run.site)
            nothing = ((False,) * n, (0,) * n, (x0,) * n, (x0,) * n, (True,) * n)
            attack = run.adversary.start(x0)
            state = state._replace(
                engine=ClockState(0.0, (inf,) * n, (True,) * n, *nothing, 0, None, attack, server)
            )
        else:
            server = whole(state)
        inside: ClockState = state.engine  # type: ignore[assignment]
        self.now, self.server, self.worker, self.attack = inside.now, server, inside.worker, inside.attack
        self.due, self.idle, self.done = list(inside.due), list(inside.idle), list(inside.done)
        self.begun, self.told, self.asked = list(inside.begun), list(inside.told), inside.asked
        self.rows, self.lies = inside.rows, inside.lies

    def packed(self) -> ClockState:
        """The state to go on from."""
        lists = (tuple(self.due), tuple(self.idle), tuple(self.done), tuple(self.begun))
        lies = (self.lies, tuple(self.told), self.asked)
        return ClockState(self.now, *lists, self.rows, *lies, self.worker, self.attack, self.server)

    def until_step(self) -> Tensor:
        """Hear workers until the server has taken a step: the aggregate `[d]`."""
        while True:
            worker = self._next()
            row = self._row(worker)
            self.due[worker], self.idle[worker] = inf, True
            self._charge(bits=32.0 * len(row) / self.n, coordinates=len(row) / self.n)
            self.server, g, restart = self.run.serving.hear(self.server, worker, row, self.run.site.proxy)
            if restart:
                self.due, self.idle = [inf] * self.n, [True] * self.n
            if g is not None:
                # What the attack has made up is of the step before.
                self.told, self.asked = [True] * self.n, 0
                return g
            if self.run.serving.held_up(self.server, self.run.asynchrony.patience, len(self._gone())):
                raise self._stalled()

    def _next(self) -> int:
        """Who answers next; the clock moves on where nobody is left who answers now."""
        if self.now not in self.due:
            waiting = [i for i in range(self.n) if self.idle[i]]
            self.server = self.run.serving.send(self.server, waiting)
            for i in waiting:
                self.begun[i] += 1
                self.due[i] = self.now + self.run.service(i, self.begun[i])
                self.idle[i] = self.done[i] = False
            d = self.run.task.layout.d
            self._charge(
                bits_down=32.0 * d * len(waiting) / self.n, coordinates_down=d * len(waiting) / self.n
            )
            self.now = min(self.due)
            if isinf(self.now):
                raise self._stalled()
        return self.due.index(self.now)

    def _row(self, worker: int) -> Tensor:
        """What a worker sends."""
        liar = worker in self.run.liars
        if not self.done[worker] and not (liar and self.run.blind):
            sample = self.server.samples[worker]
            jobs = [i for i in range(self.n) if self._open(i) and self.server.samples[i] == sample]
            self.rows, self.worker, gradients = self.run.computed(self.worker, self.server, self.rows, jobs)
            for i in jobs:
                self.done[i] = True
            self._charge(gradients=gradients)
        if not liar:
            return self.rows[worker]
        if self.told[worker]:
            self.lies, self.attack = self.run.lies(self.attack, self.server, self.rows, self.asked)
            self.told, self.asked = [False] * self.n, self.asked + 1
        self.told[worker] = True
        return self.lies[worker]

    def _open(self, worker: int) -> bool:
        """Whether a worker is at a job whose row is not computed yet."""
        return not (self.done[worker] or self.idle[worker])

    def _charge(self, **costs: float) -> None:
        for name, cost in costs.items():
            self.cost[LEDGER.index(name)] += cost

    def _gone(self) -> tuple[int, ...]:
        """Who never answers."""
        return tuple(i for i in range(self.n) if isinf(self.due[i]) and not self.idle[i])

    def _stalled(self) -> TooManyFaults:
        gone, since = self._gone(), sum(self.server.since)
        name = self.run.asynchrony.intake.name
        silent = f", and no answer from workers {list(gone)} ever" if gone else ""
        return TooManyFaults(
            f"Intake {name!r} should give step {self.server.t + 1}. Found {since} rows without one{silent}. "
            "Let it need fewer workers, or raise `patience`.",
            gone,
        )
