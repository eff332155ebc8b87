"""One run: its rounds, its records, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from numbers import Real
from time import perf_counter
from typing import Any

from torch import Tensor

from byzopt import accelerator, linalg
from byzopt.errors import Status, TooManyFaults, require
from byzopt.experiments.specs.spec import RISING
from byzopt.experiments.trials.outcome import RESERVED, Outcome, Record, RunProgress
from byzopt.experiments.trials.per_worker import worker_figures
from byzopt.experiments.trials.prepared import AnySnapshot, PreparedRun, certify_against, threads_for
from byzopt.tasks import Task

FAR = 1e8  # an iterate longer than this many times 1 + ‖x^0‖ has diverged


class Trial:
    """A run, from `progress` to its outcome."""

    def __init__(
        self,
        ready: PreparedRun,
        progress: RunProgress,
        on_record: Callable[[Record], None],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.ready, self.state, self.on_record = ready, progress.state, on_record
        self.records, self.earlier = list(progress.records), progress.seconds
        began = perf_counter()
        self.clock = clock or (lambda: perf_counter() - began)
        self.latest: AnySnapshot | None = None  # the last finished round, if it was played here
        self.begun = self.state.t  # the round after which it began here
        self.begun_at = ready.answer(self.state), progress.report
        self.shown = self.x  # the iterate of the last record
        self.against = certify_against(ready.task, ready.method, ready.settings)
        self.bound = FAR * (1 + float(linalg.norm(ready.task.start())))

    @property
    def x(self) -> Tensor:
        """The iterate `[d]` where the run stands."""
        return self.latest.x if self.latest else self.begun_at[0]

    def report(self) -> Mapping[str, float]:
        """What the loop reports of the last finished round."""
        return self.latest.report() if self.latest else self.begun_at[1]

    @property
    def progress(self) -> RunProgress:
        """Where the run stands, for a checkpoint."""
        return RunProgress(self.state, tuple(self.records), self.report(), self.seconds)

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
                if status is None and on_round(self.state.t) and self.state.t < self.ready.settings.rounds:
                    status = Status.INTERRUPTED
                if status is not None:
                    break
        except TooManyFaults as error:
            return self.lost(error)
        return self.outcome(status or Status.COMPLETED)

    def begin(self) -> Status | None:
        """Measure the starting point, unless that was done before. Its status, if the run ends with it."""
        return None if self.records else self._measure()

    def lost(self, error: TooManyFaults) -> Outcome:
        """The outcome of a run whose next round has no majority, or whose iterate has run away before."""
        self._salvage()
        status = self._run_away(self.latest) if self.latest else None
        return self.outcome(status or Status.NO_MAJORITY, "" if status else str(error))

    def outcome(self, status: Status, message: str = "") -> Outcome:
        """How the run ends, with this status."""
        message = message or (status.sentence if status.failed else "")
        server = self.ready.settings.graph is None
        expulsions = self.ready.method.filter.expelled(self.state.filter) if server else ()
        gone = tuple((one.worker, one.round, one.reason) for one in expulsions)
        return Outcome(status, self.state.t, self.seconds, tuple(self.records), message, self.shown, gone)

    def _snapshots(self) -> Iterator[AnySnapshot]:
        state, first = self.state, self.ready.first
        if state.t == 0:
            if isinstance(first, TooManyFaults):
                raise first
            yield first
            state = first.state
        yield from self.ready.rounds(state, self.ready.settings.rounds, self.against)

    def take(
        self,
        snapshot: AnySnapshot,
        figures: Mapping[str, float] | None = None,
    ) -> Status | None:
        """Take in a finished round. Its status, if the run ends with it. `figures` if measured already."""
        self.state = snapshot.state
        measures = self.ready.settings.measures(snapshot.state.t)
        # Elsewhere than on a CPU a look makes the host wait, and is taken only where there are others.
        status = self._run_away(snapshot) if measures or not accelerator.holds(snapshot.x) else None
        if status is not None:
            self._salvage(snapshot)
            return status
        if measures:
            status = self._measure(snapshot, figures)
        if status is Status.NONFINITE:
            self._salvage()
        self.latest = snapshot
        return status

    def _run_away(self, snapshot: AnySnapshot) -> Status | None:
        """The status of a run whose iterate is too far away to go on, or no longer finite."""
        if snapshot.reach <= self.bound:
            return None
        return Status.DIVERGED if snapshot.x.isfinite().all() else Status.NONFINITE

    def _measure(
        self, snapshot: AnySnapshot | None = None, figures: Mapping[str, float] | None = None
    ) -> Status | None:
        """Record the figures of a finished round's iterate (None: of where the run stands): converged or not,
        or not finite and then not recorded."""
        snapshot = snapshot or self.latest
        x, report = (snapshot.x, snapshot.report) if snapshot else (self.x, self.report)
        figures = figures or self.ready.task.measure(x)
        check_figures(self.ready.task, figures)
        if not (x.isfinite().all() and isfinite(figures["loss"])):
            return Status.NONFINITE
        certificate = snapshot.certificate if snapshot else None
        certified = certificate.figures() if certificate else {}
        by_worker = worker_figures(self.ready.task, x) if self.ready.settings.per_worker else {}
        t = snapshot.state.t if snapshot else self.begun
        honest = getattr(snapshot, "honest", {})  # those of graphs and clocks have none
        record = {"t": t, **figures, **by_worker, **report(), **certified, **honest}
        wrong = sorted(RESERVED & (record.keys() - {"t"} | figures.keys()))
        require(not wrong, "A figure", "have a name that is not in use for a run", ", ".join(wrong))
        self.records.append(record)
        self.shown = x
        self.on_record(record)
        reached = [
            figures[name] >= value if name in RISING else figures[name] <= value
            for name, value in self.ready.settings.stop.items()
        ]
        return Status.CONVERGED if reached and all(reached) else None

    def _salvage(self, *newest: AnySnapshot) -> None:
        """Record the first whose figures are finite, of these and of where the run stands, unless a later one
        was recorded."""
        for snapshot in (*newest, self.latest):
            last = self.records[-1]["t"] if self.records else -1
            t = snapshot.state.t if snapshot else self.begun
            if t <= last or self._measure(snapshot) is not Status.NONFINITE:
                return


def check_figures(task: Task, figures: Any) -> None:
    """Raise `InvalidInput` unless a task's figures are a table by name, with a `loss` in it."""
    what, rule = (
        f"The figures that `measure` of {type(task).__name__} returns",
        "be a table by name",
    )
    require(isinstance(figures, Mapping), what, rule, figures)
    require("loss" in figures, what, "have a `loss`", ", ".join(map(str, figures)) or "none")
    loss = figures["loss"]
    require(isinstance(loss, Real), f"`loss` in the figures of {type(task).__name__}", "be a float", loss)
