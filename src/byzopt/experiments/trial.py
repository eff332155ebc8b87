"""One run on its way: rounds, records, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.core.certificate import Certificate
from byzopt.engines import LoopState, Snapshot, rounds
from byzopt.errors import InvalidInput, Status, TooManyFaults, require
from byzopt.experiments.each import each_worker
from byzopt.experiments.plain_spec import MOST_NUMBERS
from byzopt.experiments.ready import Ready, against, threads_for
from byzopt.experiments.spec import RISING

Record = dict[str, float]  # one measurement: `t`, then figures by name
# What a figure may not be called: in tables and summaries of runs something else is called so.
RESERVED = frozenset(
    {
        *("t", "run", "variant", "status", "message", "rounds", "rounds_run", "seconds", "expulsions"),
        *("task", "rule", "method", "attack", "n", "f", "attackers", "seed", "lr", "eval_every", "stop"),
        *("placement", "base", "compare"),
    }
)
LARGEST = 1e150  # figures beyond it are shown as they are, and no more is made of them
FAR = 1e8  # an iterate longer than this many times 1 + ‖x^0‖ has diverged


class Progress(NamedTuple):
    """What a checkpoint holds of a run: its state, its records, what the last round reported, time spent."""

    state: LoopState
    records: tuple[Record, ...] = ()
    report: Mapping[str, float] = MappingProxyType({})
    seconds: float = 0.0


def usable(value: float) -> bool:
    """Whether means, spreads and axes can be computed with a figure: finite, and its square too."""
    return abs(value) <= LARGEST  # false for NaN


def check_room(planned: int, record: Record) -> None:
    """Raise unless so many records with the figures of this one can be stored and read again."""
    if planned * (len(record) + 1) > MOST_NUMBERS:
        raise InvalidInput(
            f"A run should hold at most {MOST_NUMBERS:,} numbers. Found {planned:,} records of {len(record)} "
            "figures. Raise `eval_every`."
        )


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `metrics` are the last record's: those of the last finite iterate.

    `rounds` finished ones; `seconds` of training and measuring; `x` `[d]` the iterate that `metrics`
    describe, where it is still in memory; `message` says what went wrong; `expelled` are the workers that
    the server expelled for good: (worker, round, reason).
    """

    status: Status
    rounds: int
    seconds: float
    records: tuple[Record, ...]
    message: str = ""
    x: Tensor | None = None
    expelled: tuple[tuple[int, int, str], ...] = ()

    @property
    def metrics(self) -> Record:
        """The figures of the last record, without its round."""
        return {key: value for key, value in self.records[-1].items() if key != "t"} if self.records else {}


class Place(NamedTuple):
    """An iterate that may be measured: its round, itself, what the loop reports of that round, and what is
    certified of its aggregate."""

    t: int
    x: Tensor
    report: Callable[[], Mapping[str, float]]
    certificate: Certificate | None = None


class Trial:
    """A run on its way from `progress` to its outcome."""

    def __init__(
        self,
        ready: Ready,
        progress: Progress,
        on_record: Callable[[Record], None],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.ready, self.state, self.on_record = ready, progress.state, on_record
        self.records, self.earlier = list(progress.records), progress.seconds
        began = perf_counter()
        self.clock = clock or (lambda: perf_counter() - began)
        self.here = Place(self.state.t, ready.method.step.answer(self.state.step), lambda: progress.report)
        self.shown = self.here.x  # the iterate of the last record
        self.against = against(ready.task, ready.method, ready.plan)
        self.bound = FAR * (1 + float(linalg.norm(ready.task.start())))

    @property
    def progress(self) -> Progress:
        """Where the run stands, for a checkpoint."""
        return Progress(self.state, tuple(self.records), self.here.report(), self.seconds)

    @property
    def seconds(self) -> float:
        """Time spent, here and before the run was last continued."""
        return self.earlier + self.clock()

    def run(self, on_round: Callable[[int], bool]) -> Outcome:
        """Go on to the end, or until `on_round(t)`, called after every round, returns True."""
        with threads_for(self.ready.task):
            return self._run(on_round)

    def _run(self, on_round: Callable[[int], bool]) -> Outcome:
        status = self.begin()
        try:
            for snapshot in self._snapshots() if status is None else ():
                status = self.take(snapshot)
                if status is None and on_round(self.state.t) and self.state.t < self.ready.plan.rounds:
                    status = Status.INTERRUPTED
                if status is not None:
                    break
        except TooManyFaults as error:
            return self.lost(error)
        return self.outcome(status or Status.COMPLETED)

    def begin(self) -> Status | None:
        """Measure the starting point, unless that was done before. Its status, if the run ends with it."""
        return None if self.records else self._measure(self.here)

    def lost(self, error: TooManyFaults) -> Outcome:
        """The outcome of a run whose next round has no majority."""
        self._salvage(self.here)
        return self.outcome(Status.NO_MAJORITY, str(error))

    def outcome(self, status: Status, message: str = "") -> Outcome:
        """How the run ends, with this status."""
        message = message or (status.sentence if status.failed else "")
        told = self.ready.method.filter.expelled(self.state.filter)
        gone = tuple((one.worker, one.round, one.reason) for one in told)
        return Outcome(status, self.state.t, self.seconds, tuple(self.records), message, self.shown, gone)

    def _snapshots(self) -> Iterator[Snapshot]:
        state, first = self.state, self.ready.first
        if state.t == 0:
            if isinstance(first, TooManyFaults):
                raise first
            yield first
            state = first.state
        yield from rounds(self.ready.method, self.ready.engine, state, self.ready.plan.rounds, self.against)

    def take(
        self,
        snapshot: Snapshot,
        figures: Mapping[str, float] | None = None,
    ) -> Status | None:
        """Take in a finished round. Its status, if the run ends with it. `figures` if measured already."""
        self.state, plan = snapshot.state, self.ready.plan
        there = Place(self.state.t, snapshot.x, snapshot.report, snapshot.certificate)
        if not float(linalg.norm(there.x)) <= self.bound:
            self._salvage(there, self.here)
            return Status.DIVERGED if there.x.isfinite().all() else Status.NONFINITE
        status = None
        if plan.measures(there.t):
            status = self._measure(there, figures)
        if status is Status.NONFINITE:
            self._salvage(self.here)
        self.here = there
        return status

    def _measure(self, place: Place, figures: Mapping[str, float] | None = None) -> Status | None:
        """Record the figures of an iterate: converged or not, or not finite and then not recorded."""
        figures = figures or self.ready.task.measure(place.x)
        if not (place.x.isfinite().all() and isfinite(figures["loss"])):
            return Status.NONFINITE
        certified = place.certificate.figures() if place.certificate else {}
        own = each_worker(self.ready.task, place.x) if self.ready.plan.per_worker else {}
        record = {"t": place.t, **figures, **own, **place.report(), **certified}
        wrong = sorted(RESERVED & (record.keys() - {"t"} | figures.keys()))
        require(not wrong, "A figure", "have a name that is not in use for a run", ", ".join(wrong))
        self.records.append(record)
        self.shown = place.x
        self.on_record(record)
        reached = [
            figures[name] >= value if name in RISING else figures[name] <= value
            for name, value in self.ready.plan.stop.items()
        ]
        return Status.CONVERGED if reached and all(reached) else None

    def _salvage(self, *places: Place) -> None:
        """Record the first of these places whose figures are finite, unless a later one was recorded."""
        for place in places:
            last = self.records[-1]["t"] if self.records else -1
            if place.t <= last or self._measure(place) is not Status.NONFINITE:
                return
