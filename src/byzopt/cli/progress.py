"""Live progress on stderr: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from byzopt.cli.terminal import console
from byzopt.experiments import Record, Spec

SHOWN = ("loss", "accuracy", "perplexity", "grad_norm")
EVERY = 5.0  # seconds between two lines where stderr is no terminal
SHARE = 100  # time left is told once so small a part of the rounds was heard after the first report


def time_left(seconds: float, heard: int, rest: int) -> float | None:
    """Seconds that `rest` rounds take at the pace of `heard` ones; None while those are too few to say."""
    if rest == 0:
        return 0.0
    return seconds / heard * rest if heard > 0 and heard * SHARE >= heard + rest else None


def time_left_text(seconds: float | None) -> str:
    """Time left as the end of a line; nothing where it is not known."""
    return "" if seconds is None else f"  {seconds:.0f} s left"


def remark(specs: Mapping[str, Spec]) -> None:
    """Say on stderr what is worth saying of these specs before anything is built, unless that was said."""
    from byzopt.experiments.specs.remarks import doubts, warn_of

    warn_of(doubts(specs))


class TimeLeftColumn(TimeRemainingColumn):
    """Time left, of tasks whose field `known` says that there is an estimate."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields["known"] else Text("-:--:--")


class StageProgress:
    """One line for work in several stretches: `(what, done, total)` shows how far the present one is."""

    def __init__(self) -> None:
        self.console = console(stderr=True)
        self.told = monotonic()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            TextColumn("{task.completed}/{task.total}", markup=False),
        )
        self.progress = Progress(
            *columns, console=self.console, disable=not self.console.is_terminal, transient=True
        )
        self.bar = self.progress.add_task("", total=None)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        self.progress.update(self.bar, description=what, completed=done, total=total)
        if not self.console.is_terminal and monotonic() - self.told > EVERY:
            self.told = monotonic()
            self.console.print(f"{what} {done}/{total}")


class Display:
    """A bar for every variant of a spec: rounds, loss, accuracy, time left."""

    def __init__(self, spec: Spec, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self.console = console(stderr=True)
        self.rounds = {name: variant.rounds for name, variant in spec.variants().items()}
        self.bars: dict[str, TaskID] = {}
        self.first: dict[str, tuple[float, int]] = {}
        self.told = clock()
        self.figures = ""
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}", markup=False),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeLeftColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def on_start(self, name: str) -> None:
        """Say that a variant's first round is being computed."""
        self._show(name, 0)
        if not self.console.is_terminal and self.clock() - self.told > EVERY:
            self.told = self.clock()
            self.console.print(f"{name}: computing its first round", soft_wrap=True)

    def on_record(self, name: str, record: Record) -> None:
        """Show a variant's newest figures."""
        self.figures = "  ".join(f"{key} {record[key]:.4g}" for key in SHOWN if key in record)
        self._show(name, int(record["t"]))

    def on_round(self, name: str, t: int) -> None:
        """Show how far a variant has come."""
        self.first.setdefault(name, (self.clock(), t))  # what came before it loads and compiles
        self._show(name, t)
        if not self.console.is_terminal and (self.clock() - self.told > EVERY or t == self.rounds[name]):
            self.told = self.clock()
            line = (
                f"{name}: round {t}/{self.rounds[name]}  {self.figures}{time_left_text(self._left(name, t))}"
            )
            self.console.print(line, soft_wrap=True)

    def _show(self, name: str, t: int) -> None:
        if name not in self.bars:
            self.bars[name] = self.progress.add_task(name, total=self.rounds[name], figures="", known=False)
        known = name in self.first and self._left(name, t) is not None
        self.progress.update(self.bars[name], completed=t, figures=self.figures, known=known)

    def _left(self, name: str, t: int) -> float | None:
        began, start = self.first[name]
        return time_left(self.clock() - began, t - start, self.rounds[name] - t)
