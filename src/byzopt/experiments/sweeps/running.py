"""Running a sweep: what is not stored yet, on the local cores or a cluster, then what its tuning chooses."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from byzopt.errors import require
from byzopt.experiments.specs.toml import dumps
from byzopt.experiments.store.run_store import RunStore, StoredRun, Unwritable
from byzopt.experiments.sweeps.batch_runner import OnEvent
from byzopt.experiments.sweeps.batches import RunBatch, plan_batches
from byzopt.experiments.sweeps.claims import claim_owner
from byzopt.experiments.sweeps.cluster import run_ray
from byzopt.experiments.sweeps.pool import run_local
from byzopt.experiments.sweeps.runs import Expansion, Run
from byzopt.experiments.sweeps.sinks import Sink
from byzopt.experiments.sweeps.sweep import Sweep, load_sweep
from byzopt.experiments.sweeps.tuning import NOTE
from byzopt.files import read
from byzopt.tasks.devices import device_of

EngineName = Literal["local", "ray"]
ENGINES = ("local", "ray")


class PlannedRun(NamedTuple):
    """What a sweep would do about one run, and why."""

    run: Run
    stored: StoredRun
    why: str
    play: bool


@dataclass(frozen=True)
class SweepPlan:
    """What is stored of a sweep and what is to be done."""

    sweep: Sweep
    shelf: RunStore
    expansion: Expansion
    intents: tuple[PlannedRun, ...]
    batches: tuple[RunBatch, ...]

    @property
    def folder(self) -> str:
        """The name of the sweep's own folder in the store."""
        return f"{self.sweep.name or 'sweep'}-{self.sweep.id[:8]}"

    @property
    def begun(self) -> bool:
        """Whether the sweep was run before, to an end or not."""
        return os.path.exists(self.shelf.root / "sweeps" / self.folder)

    @property
    def to_play(self) -> int:
        """How many runs are to be played."""
        return sum(intent.play for intent in self.intents)


@dataclass(frozen=True, repr=False)
class SweepResult:
    """What became of a sweep: what is stored of each run, by id, and what its tuning chose."""

    plan: SweepPlan
    stored: Mapping[str, StoredRun]
    folder: Path
    tuned: Mapping[str, Any] | None
    unsent: tuple[str, ...] = ()  # why a sink did not take a run; the next call hands it on again
    unnoted: str = ""  # why `folder` was not written

    @property
    def finished(self) -> bool:
        """Whether every run ended, be it in failure."""
        return all(one.kind in ("whole", "failed") for one in self.stored.values())

    @property
    def counts(self) -> Counter[str]:
        """How many runs ended how; "missing" are those that are left."""
        return Counter(str(one.status or "missing") for one in self.stored.values())

    def __repr__(self) -> str:
        """How many runs ended how, and where the sweep notes it."""
        counts = ", ".join(f"{count} {how}" for how, count in self.counts.items())
        return f"SweepResult({counts}, folder={str(self.folder)!r})"


def plan_sweep(sweep: Sweep | str | Path, store: str | Path, retry: bool = False) -> SweepPlan:
    """What a sweep would do, and why; nothing is written. `retry`: run again what failed."""
    sweep = sweep if isinstance(sweep, Sweep) else load_sweep(sweep)
    shelf, expansion = RunStore(Path(store)), sweep.expand()
    stored = {run.id: shelf.look(run.id) for run in expansion.runs}
    missing = {run for run, one in stored.items() if one.kind != "whole" and (retry or one.kind != "failed")}
    known = {run: one.batch for run, one in stored.items() if one.batch and run not in missing}
    to_play = plan_batches(expansion.runs, missing, known, sweep.together)
    begun = {run for batch in to_play if shelf.has_checkpoint(batch.id) for run in batch.ids}
    intents = tuple(
        PlannedRun(
            run,
            stored[run.id],
            _why(run.id, stored[run.id], run.id in begun, retry, shelf),
            run.id in missing,
        )
        for run in expansion.runs
    )
    return SweepPlan(sweep, shelf, expansion, intents, tuple(to_play))


def run_sweep(
    sweep: Sweep | str | Path | SweepPlan,
    store: str | Path = "byzopt-store",
    *,
    jobs: int = 1,
    threads: int = 1,
    engine: EngineName = "local",
    retry: bool = False,
    every: float | None = None,
    tell: OnEvent = lambda kind, content: None,
    stopped: Callable[[], bool] = lambda: False,
    sinks: Sequence[Sink] = (),
) -> SweepResult:
    """Run what is not stored yet of a sweep (or its file or preset), and choose what it says to choose.

    `jobs` worker processes (0: in this one) of `threads` threads each, or `engine="ray"`: the cores of a Ray
    cluster. A sweep keeps to the threads with which it began, so that it ends on the same bits. `every`
    seconds between checkpoints (None: by what one costs). `tell(kind, content)` hears of progress; after
    `stopped()` checkpoints are kept and the call returns. `sinks` are told of every run of the sweep that is
    stored, once each. A store that holds all runs need not be writable.

    Errors: `InvalidInput` before any work; `Unwritable` when the store's disk is full. What goes wrong in a
    run is its outcome and does not stop the others.
    """
    require(engine in ENGINES, "The engine", f"be one of {', '.join(ENGINES)}", repr(engine))
    require(jobs >= 0, "The number of processes `jobs`", "be at least 0", jobs)
    require(threads >= 1, "The number of `threads` of a process", "be at least 1", threads)
    require(every is None or every > 0, "The time between checkpoints", "be above 0", every)
    plan = sweep if isinstance(sweep, SweepPlan) else plan_sweep(sweep, store, retry)
    shelf = plan.shelf
    if not plan.to_play:
        return _told(plan, _Sinks(sinks, plan, tell))
    if engine == "local":  # a cluster's machines have devices of their own
        for device in {
            getattr(intent.run.spec.task, "device", "cpu") for intent in plan.intents if intent.play
        }:
            device_of(device)
    shelf.note(plan.folder, _about(plan))
    threads = _kept(shelf, plan.folder, threads)
    for intent in plan.intents:
        if intent.play and intent.stored.kind == "failed":
            shelf.remove(intent.run.id)
    told = _Sinks(sinks, plan, tell)
    if engine == "ray":
        run_ray(plan.batches, shelf, told, stopped, every)
    else:
        run_local(plan.batches, shelf, told, stopped, every, jobs, threads)
    return _told(plan, told)


def _told(plan: SweepPlan, sinks: _Sinks) -> SweepResult:
    """What became of a sweep, noted in the store; one that had nothing left to do is told of from a store
    that cannot be written, too."""
    shelf, runs = plan.shelf, plan.expansion.runs
    stored = {run.id: shelf.look(run.id) for run in runs}
    place = shelf.root / "sweeps" / plan.folder
    swept = SweepResult(plan, stored, place, None, tuple(sinks.unsent))
    files = _about(plan)
    if swept.finished and plan.sweep.tune is not None:
        swept = replace(
            swept, tuned=plan.sweep.tune.pick({run.id: shelf.outcome(run.id) for run in runs}, runs)
        )
        files[NOTE] = json.dumps(swept.tuned, indent=1, allow_nan=False)
    try:
        shelf.note(plan.folder, files)
    except Unwritable as error:
        if plan.to_play:
            raise
        swept = replace(swept, unnoted=str(error))
    return swept


class _Sinks:
    """Hands stored runs on to sinks, those first that were stored before; then tells whoever listens."""

    def __init__(self, sinks: Sequence[Sink], plan: SweepPlan, tell: OnEvent) -> None:
        self.sinks, self.shelf, self.listener = sinks, plan.shelf, tell
        self.runs = {run.id: run for run in plan.expansion.runs}
        self.unsent: list[str] = []
        for intent in plan.intents if sinks else ():
            if intent.stored.kind == "whole":
                self._hand(intent.run)

    def __call__(self, kind: str, content: Any) -> None:
        if kind == "ended" and self.sinks:
            self._hand(self.runs[content[0]])
        self.listener(kind, content)

    def _hand(self, run: Run) -> None:
        outcome = self.shelf.outcome(run.id)
        for sink in self.sinks:
            try:
                sink.write(run, outcome)
            except Exception as error:  # a server that is down costs no run: the next call hands it on again
                self.unsent.append(f"{type(sink).__name__}: run {run.id}: {' '.join(str(error).split())}")


def _kept(shelf: RunStore, folder: str, threads: int) -> int:
    """The number of threads with which the sweep in this folder began."""
    note = shelf.root / "sweeps" / folder / "threads.txt"
    if not note.exists():
        shelf.note(folder, {note.name: f"{threads}\n"})
    found = ""
    with suppress(OSError, ValueError):
        found = read(note, 100).decode().strip()
    good = re.fullmatch("[1-9][0-9]{0,3}", found) is not None
    remedy = "Write the number with which the sweep began, or remove the file to go on with another."
    require(good, f"File {note}", "hold the number of threads of the sweep's processes", repr(found), remedy)
    return int(found)


def _about(plan: SweepPlan) -> dict[str, str]:
    runs = [{"id": run.id, "point": run.point} for run in plan.expansion.runs]
    skipped = [one._asdict() for one in plan.expansion.skipped]
    listed = json.dumps({"sweep": plan.sweep.id, "runs": runs, "refused": skipped}, indent=1)
    return {"sweep.toml": dumps(plan.sweep.data), "runs.json": listed}


def _why(run: str, stored: StoredRun, begun: bool, retry: bool, shelf: RunStore) -> str:
    if stored.kind == "whole":
        return f"stored: {stored.status}"
    if stored.kind == "failed":
        return f"failed: {stored.message}" + ("" if retry else " (--retry runs it again)")
    if (who := claim_owner(shelf.claims, run)) is not None:
        return f"under way: process {who.get('pid', '?')} on {who.get('host', '?')}"
    if stored.kind == "damaged":
        return f"damaged: {stored.message}"
    return "unfinished: goes on from its checkpoint" if begun else "new: nothing is stored"
