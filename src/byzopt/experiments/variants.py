"""A spec's variants on their way: those that ended, the one that runs, those to come; and its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from byzopt.engines import Snapshot
from byzopt.errors import InvalidInput, Status, require
from byzopt.experiments.specs.plain_spec import most_records
from byzopt.experiments.store.outcomes import pack_outcome, pack_progress, unpack_outcome, unpack_progress
from byzopt.experiments.store.pace import CheckpointTimer
from byzopt.experiments.store.run_directory import CHECKPOINT, RunDirectory
from byzopt.experiments.trials.outcome import Outcome, Record, RunProgress, check_record_size
from byzopt.experiments.trials.prepared import PreparedRun
from byzopt.experiments.trials.trial import Trial

OnRecord = Callable[[str, Record], None]  # (variant, its newest record)
OnRound = Callable[[str, int], bool]  # (variant, finished round) -> whether to stop and keep a checkpoint
REMEDY = "Use --fresh to run again."


class VariantRunner:
    """Plays all variants in turn, and keeps a checkpoint in `store`, if there is one."""

    def __init__(
        self,
        ready: dict[str, PreparedRun],
        store: RunDirectory | None,
        on_record: OnRecord,
        on_round: OnRound,
    ) -> None:
        self.ready, self.store, self.on_record, self.on_round = ready, store, on_record, on_round
        self.progress = {name: RunProgress(one.start) for name, one in ready.items()}
        self.outcomes: dict[str, Outcome] = {}
        self.pace = CheckpointTimer()
        self.planned = sum(most_records(one.plan.rounds, one.plan.interval) for one in ready.values())

    def play(self) -> dict[str, Outcome]:
        """Run what is left; the last outcome is `INTERRUPTED` when `on_round` asked to stop."""
        for name in self.ready:
            if name not in self.outcomes:
                outcome = self._run(name)
                self.outcomes[name] = outcome
                if outcome.status is Status.INTERRUPTED:
                    break
        return self.outcomes

    def restore(self) -> None:
        """Continue from the store's checkpoint, if it holds one."""
        content = self.store.checkpoint() if self.store else None
        if self.store is None or content is None:
            return
        try:
            self._take(content)
        except InvalidInput as error:
            raise InvalidInput(f"In {self.store.path / CHECKPOINT}: {error} {REMEDY}") from None

    def _take(self, content: dict[str, Any]) -> None:
        shape = {"ended": dict, "current": str, "progress": tuple}
        whole = content.keys() == shape.keys() and all(type(content[k]) is shape[k] for k in shape)
        fits = whole and content["current"] in self.ready and content["ended"].keys() <= self.ready.keys()
        require(fits, "A checkpoint", "be one of this spec's runs", "something else")
        ended = {name: unpack_outcome(told) for name, told in content["ended"].items()}
        name = content["current"]
        one = self.ready[name]
        if not isinstance(one.first, Snapshot):
            raise InvalidInput("A checkpoint should be of a run whose first round works. Found none.")
        self.progress[name] = unpack_progress(content["progress"], one.first.state, one.plan.rounds)
        self.outcomes |= ended

    def _run(self, name: str) -> Outcome:
        def listen(t: int) -> bool:
            stop = self.on_round(name, t)
            if stop or self.pace.due:
                self._keep(name, trial.progress)
            return stop

        def hear(record: Record) -> None:
            check_record_size(self.planned, record)
            self.on_record(name, record)

        trial = Trial(self.ready[name], self.progress[name], hear)
        return trial.run(listen)

    def _keep(self, name: str, progress: RunProgress) -> None:
        with self.pace.keeping():
            if self.store:
                ended = {other: pack_outcome(outcome) for other, outcome in self.outcomes.items()}
                self.store.keep({"ended": ended, "current": name, "progress": pack_progress(progress)})
