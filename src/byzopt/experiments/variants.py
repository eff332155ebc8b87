"""A spec's variants, run in turn, with a checkpoint on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from byzopt.errors import InvalidInput, Status
from byzopt.experiments.specs.plain_spec import most_records
from byzopt.experiments.store.checkpoint import Checkpoint
from byzopt.experiments.store.checkpoint_timer import CheckpointTimer
from byzopt.experiments.store.run_directory import CHECKPOINT, RunDirectory
from byzopt.experiments.trials.outcome import Outcome, Record, RunProgress, check_record_size
from byzopt.experiments.trials.prepared import PreparedRun
from byzopt.experiments.trials.trial import Trial

OnRecord = Callable[[str, Record], None]  # (variant, its newest record)
OnRound = Callable[[str, int], bool]  # (variant, finished round) -> whether to stop and keep a checkpoint
REMEDY = "Use --fresh to run again."


class VariantRunner:
    """Runs all variants in turn, and keeps a checkpoint in `store`, if there is one. `content` is what the
    files hold that they read."""

    def __init__(
        self,
        ready: dict[str, PreparedRun],
        store: RunDirectory | None,
        on_record: OnRecord,
        on_round: OnRound,
        content: Mapping[str, str],
    ) -> None:
        self.ready, self.store, self.on_record, self.on_round = ready, store, on_record, on_round
        self.progress = {name: RunProgress(one.start) for name, one in ready.items()}
        self.outcomes: dict[str, Outcome] = {}
        self.content = content
        self.timer = CheckpointTimer()
        self.planned = sum(most_records(one.settings.rounds, one.settings.interval) for one in ready.values())

    def run(self) -> dict[str, Outcome]:
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
        content = self.store.load_checkpoint() if self.store else None
        if self.store is None or content is None:
            return
        try:
            known = Checkpoint.of(content, self.ready.keys(), self.ready)
        except InvalidInput as error:
            raise InvalidInput(f"In {self.store.path / CHECKPOINT}: {error} {REMEDY}") from None
        self.store.check_content(known.content, self.content)
        self.outcomes |= known.ended
        self.progress |= known.running

    def _run(self, name: str) -> Outcome:
        def after_round(t: int) -> bool:
            stop = self.on_round(name, t)
            if stop or self.timer.due:
                self._save(name, trial.progress)
            return stop

        def after_record(record: Record) -> None:
            check_record_size(self.planned, record)
            self.on_record(name, record)

        trial = Trial(self.ready[name], self.progress[name], after_record)
        return trial.run(after_round)

    def _save(self, name: str, progress: RunProgress) -> None:
        with self.timer.keeping():
            if self.store:
                self.store.save_checkpoint(Checkpoint(self.outcomes, {name: progress}, {}, self.content).data)
