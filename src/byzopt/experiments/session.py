"""A spec's variants on their way: those that ended, the one that runs, those to come; and its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from byzopt.engines import Snapshot
from byzopt.engines.checkpoint import freeze, thaw
from byzopt.errors import InvalidInput, Status
from byzopt.experiments.ready import Ready
from byzopt.experiments.store import Store
from byzopt.experiments.trial import Outcome, Progress, Record, Trial

OnRecord = Callable[[str, Record], None]  # (variant, its newest record)
OnRound = Callable[[str, int], bool]  # (variant, finished round) -> whether to stop and keep a checkpoint
EVERY = 10.0  # seconds between two checkpoints


class Session:
    """Plays all variants in turn, and keeps a checkpoint in `store`, if there is one."""

    def __init__(
        self, ready: dict[str, Ready], store: Store | None, on_record: OnRecord, on_round: OnRound
    ) -> None:
        self.ready, self.store, self.on_record, self.on_round = ready, store, on_record, on_round
        self.progress = {name: Progress(one.start) for name, one in ready.items()}
        self.outcomes: dict[str, Outcome] = {}
        self.kept = monotonic()

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
        if content is None:
            return
        for name, ended in content["ended"].items():
            self.outcomes[name] = Outcome(Status(ended["status"]), **ended["rest"])
        name = content["current"]
        first = self.ready[name].first
        if not isinstance(first, Snapshot):
            raise InvalidInput(
                "A checkpoint should be of a run whose first round works. Found none. Use --fresh."
            )
        state = thaw(content["state"], first.state)
        self.progress[name] = Progress(state, *content["progress"])

    def _run(self, name: str) -> Outcome:
        def listen(t: int) -> bool:
            stop = self.on_round(name, t)
            if stop or monotonic() - self.kept > EVERY:
                self._keep(name, trial.progress)
            return stop

        trial = Trial(self.ready[name], self.progress[name], lambda record: self.on_record(name, record))
        return trial.run(listen)

    def _keep(self, name: str, progress: Progress) -> None:
        if self.store:
            ended = {other: _plain(outcome) for other, outcome in self.outcomes.items()}
            state, *rest = progress
            self.store.keep(
                {"ended": ended, "current": name, "state": freeze(state), "progress": tuple(rest)}
            )
        self.kept = monotonic()


def _plain(outcome: Outcome) -> dict[str, Any]:
    rest = {"rounds": outcome.rounds, "seconds": outcome.seconds, "message": outcome.message}
    rest |= {"expelled": outcome.expelled}
    return {"status": str(outcome.status), "rest": rest | {"records": outcome.records, "x": outcome.x}}
