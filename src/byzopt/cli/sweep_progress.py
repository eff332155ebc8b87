"""Live progress of a sweep on stderr: runs, rounds, failures, time left; lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from byzopt.cli.progress import TimeLeftColumn, time_left, time_left_text
from byzopt.cli.terminal import console

if TYPE_CHECKING:
    from byzopt.experiments.sweeps import SweepPlan

EVERY = 5.0  # seconds between two lines where stderr is no terminal


class SweepDisplay:
    """One bar for the whole sweep. It counts rounds, so that time left is right if lengths differ."""

    def __init__(self, plan: SweepPlan, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self.console = console(stderr=True)
        self.left = {intent.run.id: intent.run.spec.rounds for intent in plan.intents if intent.play}
        self.total, self.runs = sum(self.left.values()), len(plan.intents)
        self.stored = self.runs - len(self.left)
        self.batches: dict[str, int] = {}  # rounds of batches under way
        self.of = {run: batch.id for batch in plan.batches for run in batch.ids}
        self.done = self.failed = 0
        self.early = 0  # rounds of batches when they were first heard of: from checkpoints, most of them
        self.said = clock()
        self.begun: float | None = (
            None  # when rounds were first heard of: what came before loads and compiles
        )
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%", markup=False),
            TimeElapsedColumn(),
            TextColumn("left", markup=False),
            TimeLeftColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.bar = self.progress.add_task(self._counts(), total=max(1, self.total), known=False)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def hear(self, kind: str, content: Any) -> None:
        """Take in what a sweep tells: rounds of a batch, or a run that ended."""
        if kind == "rounds":
            batch, done = content
            self.begun = self.clock() if self.begun is None else self.begun
            self.early += 0 if batch in self.batches else done
            self.batches[batch] = done
        elif kind == "ended":
            run, status, message = content
            if run in self.left:
                rounds = self.left.pop(run)
                self.done += rounds
                batch = self.of.get(run, run)
                self.batches[batch] = max(0, self.batches.get(batch, 0) - rounds)
                self.stored += 1
            if status == "error":
                self.failed += 1
                self.console.print(f"failed  {run}  {message}", soft_wrap=True)
        now = min(self.total, self.done + sum(self.batches.values()))
        since = 0.0 if self.begun is None else self.clock() - self.begun
        rest = time_left(since, now - self.early, self.total - now)
        self.progress.update(self.bar, completed=now, description=self._counts(), known=rest is not None)
        if not self.console.is_terminal and (self.clock() - self.said > EVERY or not self.left):
            self.said = self.clock()
            line = f"{self._counts()}  {now}/{self.total} rounds{time_left_text(rest)}"
            self.console.print(line, soft_wrap=True)

    def _counts(self) -> str:
        bad = f", {self.failed} failed" if self.failed else ""
        return f"{self.stored}/{self.runs} runs{bad}"
