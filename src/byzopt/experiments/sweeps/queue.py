"""The batches of a sweep that are left: waiting, busy elsewhere, or crashed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from time import monotonic

from byzopt.errors import Status
from byzopt.experiments.store.content import known_content
from byzopt.experiments.store.run_store import RunStore
from byzopt.experiments.sweeps.batch_runner import BatchStatus, OnEvent
from byzopt.experiments.sweeps.batches import RunBatch
from byzopt.experiments.sweeps.claims import Claims
from byzopt.experiments.trials.outcome import Outcome

AGAIN = 0.3  # seconds until a batch that somebody else works on is looked at again


class BatchQueue:
    """A queue of batches.

    A batch whose process died is tried once more as it is; then its runs one by one, each twice; a run whose
    process died both times has failed. A batch may be in the queue twice, first with little patience; while
    it is under way its second place waits.
    """

    def __init__(self, batches: Sequence[RunBatch], store: RunStore, tell: OnEvent) -> None:
        self.waiting, self.store, self.tell = deque(batches), store, tell
        self.later: deque[tuple[float, RunBatch]] = deque()
        self.under_way: set[str] = set()  # ids
        self.crashes: Counter[str] = Counter()

    @property
    def left(self) -> bool:
        """Whether anything is waiting or under way."""
        return bool(self.waiting or self.later or self.under_way)

    def next(self) -> RunBatch | None:
        """A batch to run now, if there is one."""
        while self.later and self.later[0][0] <= monotonic():
            self.waiting.append(self.later.popleft()[1])
        for place, batch in enumerate(self.waiting):
            if batch.id not in self.under_way:
                del self.waiting[place]
                self.under_way.add(batch.id)
                return batch
        return None

    def ended(self, batch: RunBatch, played: BatchStatus) -> None:
        """Note how the work on a batch ended."""
        self.under_way.discard(batch.id)
        if played is BatchStatus.BUSY:
            self.later.append((monotonic() + AGAIN, batch))

    def crashed(self, batch: RunBatch, reason: str) -> None:
        """The process that played a batch is gone."""
        self.under_way.discard(batch.id)
        self.crashes[batch.id] += 1
        if self.crashes[batch.id] == 1:
            self.waiting.appendleft(batch)
        elif len(batch.runs) > 1:
            self.waiting.extendleft(batch._replace(runs=(run,)) for run in reversed(batch.runs))
        else:
            self._fail(batch, reason)

    def _fail(self, batch: RunBatch, reason: str) -> None:
        (run,) = batch.runs
        message = f"Its process ended twice: {reason}."
        with Claims(self.store.claims) as claims:
            if claims.take(batch.ids) and self.store.inspect(run.id).kind != "whole":
                outcome = Outcome(Status.ERROR, 0, 0.0, (), message)
                self.store.save_run(run.id, run.spec, outcome, [message], batch.ids, known_content(run.spec))
                self.tell("ended", (run.id, str(Status.ERROR), message))
        self.store.remove_checkpoint(batch.id)
