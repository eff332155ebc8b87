"""Running a batch from its checkpoint, or from the start, to its end: outcomes, logs, failures."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic
from typing import Any

from byzopt.errors import DoubtfulSetting, InvalidInput, Status
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.specs.plain_spec import most_records
from byzopt.experiments.store.checkpoint import Checkpoint
from byzopt.experiments.store.checkpoint_timer import CheckpointTimer
from byzopt.experiments.store.content import check_content, known_content
from byzopt.experiments.store.run_store import RunStore, Unwritable
from byzopt.experiments.sweeps.batches import RunBatch
from byzopt.experiments.sweeps.runs import Run
from byzopt.experiments.trials.batched import BatchedTrials
from byzopt.experiments.trials.outcome import Outcome, Record, RunProgress, check_record_size
from byzopt.experiments.trials.prepared import PreparedRun
from byzopt.own_files import UserError, describe_error, place_of
from byzopt.tasks import Task

TELL = 0.2  # seconds between two messages on how far the batch has come
# ("rounds", (batch, done)), ("ended", (run, status, message)) or ("doubt", sentence)
OnEvent = Callable[[str, Any], None]


class BatchStatus(StrEnum):
    """How the work on a batch ended."""

    DONE = "done"
    BUSY = "busy"  # somebody else works on a run of it
    STOPPED = "stopped"


class _Stop(Exception):
    """Somebody asked to stop while a run was played alone."""


class BatchRunner:
    """Runs a batch. The caller holds claims on all runs that it will store."""

    def __init__(
        self,
        batch: RunBatch,
        store: RunStore,
        wanted: list[str],
        tell: OnEvent,
        stop: Callable[[], bool],
        every: float | None,
    ) -> None:
        self.batch, self.store, self.wanted = batch, store, set(wanted)
        self.tell, self.stop, self.timer = tell, stop, CheckpointTimer(every)
        self.outcomes: dict[str, Outcome] = {}
        self.log: dict[str, list[str]] = {run: [] for run in batch.ids}
        self.describe_error = monotonic()
        self.content = {run.id: known_content(run.spec) for run in batch.runs}

    def play(self) -> BatchStatus:
        with self._noting():
            ready, progress = self._ready()
        with self._noting():
            try:
                stopped = not self._together(ready, progress)
            except _Stop:
                stopped = True
        if stopped:
            return BatchStatus.STOPPED
        self._put()
        self.store.remove_checkpoint(self.batch.id)
        return BatchStatus.DONE

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """In here warnings go into the logs of the runs that are wanted, once; whoever listens is told of
        doubtful settings."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for text in dict.fromkeys(str(one.message) for one in caught):
            new = [run for run in self.wanted if not any(text in line for line in self.log[run])]
            self._note(f"warning: {text}", *new)
        for one in caught:
            if issubclass(one.category, DoubtfulSetting):
                self.tell("doubt", str(one.message))

    def _ready(self) -> tuple[dict[str, PreparedRun], dict[str, RunProgress]]:
        """Runs that have not ended, built, and where they stand; those that cannot be built have ended."""
        ready = self._built()
        try:
            left, progress = self._restored(ready)
        except InvalidInput as error:
            left, progress = ready, {run: RunProgress(one.start) for run, one in ready.items()}
            self._note(f"starts again: {_said(error)}", *ready)
        rounds = {where.state.t for where in progress.values()} or {0}
        self._note(f"goes on after round {max(rounds)}, {len(left)} runs together", *left)
        return left, progress

    def _restored(
        self, ready: dict[str, PreparedRun]
    ) -> tuple[dict[str, PreparedRun], dict[str, RunProgress]]:
        """What the batch's checkpoint says, all of it or none. Errors: `InvalidInput` for damage."""
        content = self.store.load_checkpoint(self.batch.id)
        known = Checkpoint() if content is None else Checkpoint.of(content, self.log.keys(), ready)
        check_content(known.content, self._all_content, "A checkpoint", "It starts again.")
        self.outcomes |= known.ended
        self.log |= known.log
        left = {run: one for run, one in ready.items() if run not in known.ended}
        start = {run: RunProgress(one.start) for run, one in left.items()}
        return left, start | dict(known.running)

    def _built(self) -> dict[str, PreparedRun]:
        ready: dict[str, PreparedRun] = {}
        tasks: dict[Any, Task] = {}
        for run in self.batch.runs:
            try:
                ready[run.id] = prepare_spec(run.spec, tasks)
            except Exception as error:
                self._fail(run, error)
        return ready

    def _together(self, ready: dict[str, PreparedRun], progress: dict[str, RunProgress]) -> bool:
        """Run all to their ends. False if somebody asked to stop before."""
        names = list(ready)
        together = BatchedTrials([ready[n] for n in names], [progress[n] for n in names], self._heard(ready))

        def on_round(t: int) -> bool:
            ended = {
                n: o for n, o in zip(names, together.outcomes, strict=True) if o and n not in self.outcomes
            }
            stop = self.stop()
            if ended or stop or self.timer.due:
                for name, outcome in ended.items():
                    self._end(name, outcome)
                self._keep(dict(zip(names, together.progress, strict=True)))
                self._put()
            self._tell(t * sum(name not in self.outcomes for name in names))
            return stop

        try:
            outcomes = together.run(on_round)
        except Unwritable:
            raise
        except Exception as error:
            self._alone(ready, error)
            return True
        for name, outcome in zip(names, outcomes, strict=True):
            if outcome.status is not Status.INTERRUPTED and name not in self.outcomes:
                self._end(name, outcome)
        if len(self.outcomes) < len(self.batch.runs):
            return False
        if len(self.batch.runs) > 1:
            self._keep({})
        return True

    def _heard(self, ready: dict[str, PreparedRun]) -> Callable[[int, Record], None]:
        plans = [most_records(one.settings.rounds, one.settings.interval) for one in ready.values()]
        return lambda i, record: check_record_size(plans[i], record)

    def _alone(self, ready: dict[str, PreparedRun], error: Exception) -> None:
        """One of the runs raised an error: find out which, by playing each from its start on its own."""
        runs = {run.id: run for run in self.batch.runs}
        left = [name for name in ready if name not in self.outcomes and name in self.wanted]
        if len(ready) == 1:
            for name in left:
                self._fail(runs[name], error)
            return
        self._note(f"an error ended the batch, each run goes on alone: {_said(error)}", *left)
        for name in left:
            try:
                alone = BatchedTrials([ready[name]], None, self._heard({name: ready[name]}))
                (outcome,) = alone.run(lambda t: self.stop())
            except Exception as own:
                self._fail(runs[name], own)
                continue
            if outcome.status is Status.INTERRUPTED:
                raise _Stop
            self._end(name, outcome)
            self._put(whole=False)

    def _fail(self, run: Run, error: Exception) -> None:
        self._note("".join(traceback.format_exception(error)).rstrip(), run.id)
        self._end(run.id, Outcome(Status.ERROR, 0, 0.0, (), _said(error)))

    def _end(self, run: str, outcome: Outcome) -> None:
        self.outcomes[run] = outcome
        self._note(f"{outcome.status} after round {outcome.rounds}. {outcome.message}".rstrip(), run)

    def _keep(self, progress: dict[str, RunProgress]) -> None:
        """Keep a checkpoint. It comes before any run of the batch is stored, and says who is in the batch."""
        running = {run: where for run, where in progress.items() if run not in self.outcomes}
        ended = {run: replace(outcome, x=None) for run, outcome in self.outcomes.items()}
        with self.timer.keeping():
            self.store.save_checkpoint(
                self.batch.id, Checkpoint(ended, running, self.log, self._all_content).data
            )

    def _put(self, whole: bool = True) -> None:
        """Store what has ended. `whole`: it was computed in the whole batch."""
        for run in self.batch.runs:
            if run.id in self.outcomes and run.id in self.wanted:
                outcome = self.outcomes[run.id]
                batch = self.batch.ids if whole else (run.id,)
                self.store.save_run(run.id, run.spec, outcome, self.log[run.id], batch, self.content[run.id])
                self.wanted.remove(run.id)
                self.tell("ended", (run.id, str(outcome.status), outcome.message))

    @property
    def _all_content(self) -> dict[str, str]:
        return {name: told for one in self.content.values() for name, told in one.items()}

    def _tell(self, done: int) -> None:
        if monotonic() - self.describe_error > TELL:
            self.describe_error = monotonic()
            self.tell("rounds", (self.batch.id, done))

    def _note(self, text: str, *runs: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for run in runs:
            self.log[run].append(f"{now} {text}")


def _said(error: Exception) -> str:
    place = "" if isinstance(error, UserError) else place_of(error)  # in a user's file, if it came out of one
    return f"{place}: {describe_error(error)}" if place else describe_error(error)
