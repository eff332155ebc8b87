"""Running a sweep: what is not stored yet, on the local cores or a cluster, then what its tuning chooses."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from warnings import warn

from byzopt.errors import require
from byzopt.experiments.specs.remarks import doubts, warn_of
from byzopt.experiments.specs.toml import dumps
from byzopt.experiments.store.run_store import RunStore, StoredRun, Unwritable
from byzopt.experiments.sweeps.batch_runner import OnEvent
from byzopt.experiments.sweeps.cluster import run_ray
from byzopt.experiments.sweeps.planning import SweepPlan, plan_sweep
from byzopt.experiments.sweeps.pool import run_local
from byzopt.experiments.sweeps.runs import Run, point_text
from byzopt.experiments.sweeps.sinks import Sink
from byzopt.experiments.sweeps.sweep import Sweep
from byzopt.experiments.sweeps.tuning import NOTE
from byzopt.files import read
from byzopt.own_files import objects_in
from byzopt.tasks.devices import device_of

BackendName = Literal["local", "ray"]
BACKENDS = ("local", "ray")
DOUBTS = 5  # sentences on doubtful runs that a sweep says; all are in the runs' logs


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


def run_sweep(
    sweep: Sweep | str | Path | SweepPlan,
    store: str | Path = "byzopt-store",
    *,
    jobs: int = 1,
    threads: int = 1,
    backend: BackendName = "local",
    retry: bool = False,
    every: float | None = None,
    tell: OnEvent = lambda kind, content: None,
    stopped: Callable[[], bool] = lambda: False,
    sinks: Sequence[Sink] = (),
    engine: BackendName | None = None,
) -> SweepResult:
    """Run what is not stored yet of a sweep (or its file or preset), and choose what it says to choose.

    `jobs` worker processes (0: in this one) of `threads` threads each, or `backend="ray"`: the cores of a Ray
    cluster. A sweep keeps to the threads with which it began, so that it ends on the same bits. `every`
    seconds between checkpoints (None: by what one costs). `tell(kind, content)` hears of progress; after
    `stopped()` checkpoints are kept and the call returns. `sinks` are told of every run of the sweep that is
    stored, once each. A store that holds all runs need not be writable.

    Errors: `InvalidInput` before any work; `Unwritable` when the store's disk is full. What goes wrong in a
    run is its outcome and does not stop the others.
    """
    if engine is not None:
        warn("`engine` of run_sweep is now called `backend`.", DeprecationWarning, stacklevel=2)
        backend = engine
    require(backend in BACKENDS, "The backend", f"be one of {', '.join(BACKENDS)}", repr(backend))
    require(jobs >= 0, "The number of processes `jobs`", "be at least 0", jobs)
    require(threads >= 1, "The number of `threads` of a process", "be at least 1", threads)
    require(every is None or every > 0, "The time between checkpoints", "be above 0", every)
    plan = sweep if isinstance(sweep, SweepPlan) else plan_sweep(sweep, store, retry)
    run_store = plan.store
    warn_of(doubts({point_text(intent.run.point): intent.run.spec for intent in plan.intents}))
    if not plan.to_play:
        return _told(plan, _Sinks(sinks, plan, tell))
    if backend == "ray" or jobs:
        _check_found_again(plan)
    if backend == "local":  # a cluster's machines have devices of their own
        check_devices(plan)
    run_store.write_sweep_files(plan.folder, _about(plan))
    threads = _kept(run_store, plan.folder, threads)
    for intent in plan.intents:
        if intent.play and intent.stored.kind == "failed":
            run_store.remove(intent.run.id)
    listener = _Sinks(sinks, plan, tell)
    if backend == "ray":
        run_ray(plan.batches, run_store, listener, stopped, every)
    else:
        run_local(plan.batches, run_store, listener, stopped, every, jobs, threads)
    return _told(plan, listener)


def check_devices(plan: SweepPlan) -> None:
    """Raise `InvalidInput` where a run that is to be played wants a device that this machine has not got."""
    for device in {getattr(intent.run.spec.task, "device", "cpu") for intent in plan.intents if intent.play}:
        device_of(device)


def _check_found_again(plan: SweepPlan) -> None:
    """Raise `InvalidInput` where worker processes could not find a part that was given as an object."""
    for intent in plan.intents:
        lost = objects_in(intent.run.spec.data) if intent.play else []
        what, rule = "Parts that worker processes play", "be defined at the top of a file"
        require(not lost, what, rule, ", ".join(lost), "Move them there, or play in this process: jobs=0.")


def _told(plan: SweepPlan, sinks: _Sinks) -> SweepResult:
    """What became of a sweep, noted in the store; one that had nothing left to do is told of from a store
    that cannot be written, too."""
    store, runs = plan.store, plan.expansion.runs
    stored = {run.id: store.inspect(run.id) for run in runs}
    place = store.root / "sweeps" / plan.folder
    swept = SweepResult(plan, stored, place, None, tuple(sinks.unsent))
    files = _about(plan)
    if swept.finished and plan.sweep.tune is not None:
        swept = replace(
            swept, tuned=plan.sweep.tune.pick({run.id: store.read_outcome(run.id) for run in runs}, runs)
        )
        files[NOTE] = json.dumps(swept.tuned, indent=1, allow_nan=False)
    try:
        store.write_sweep_files(plan.folder, files)
    except Unwritable as error:
        if plan.to_play:
            raise
        swept = replace(swept, unnoted=str(error))
    return swept


class _Sinks:
    """Hands stored runs on to sinks, those first that were stored before; warns of doubtful settings; then
    tells whoever listens."""

    def __init__(self, sinks: Sequence[Sink], plan: SweepPlan, tell: OnEvent) -> None:
        self.sinks, self.store, self.listener = sinks, plan.store, tell
        self.runs = {run.id: run for run in plan.expansion.runs}
        self.unsent: list[str] = []
        self.doubts: dict[str, None] = {}
        for intent in plan.intents if sinks else ():
            if intent.stored.kind == "whole":
                self._hand(intent.run)

    def __call__(self, kind: str, content: Any) -> None:
        if kind == "ended" and self.sinks:
            self._hand(self.runs[content[0]])
        if kind == "doubt":
            self._warn(content)
        self.listener(kind, content)

    def _warn(self, doubt: str) -> None:
        """Warn of what is said of runs once their tasks are built: each sentence once, and not too many."""
        if doubt in self.doubts:
            return
        self.doubts[doubt] = None
        if len(self.doubts) <= DOUBTS:
            warn_of([doubt])
        elif len(self.doubts) == DOUBTS + 1:
            warn_of(["More runs of the sweep are doubtful. Their logs say why."])

    def _hand(self, run: Run) -> None:
        outcome = self.store.read_outcome(run.id)
        for sink in self.sinks:
            try:
                sink.write(run, outcome)
            except Exception as error:  # a server that is down costs no run: the next call hands it on again
                self.unsent.append(f"{type(sink).__name__}: run {run.id}: {' '.join(str(error).split())}")


def _kept(store: RunStore, folder: str, threads: int) -> int:
    """The number of threads with which the sweep in this folder began."""
    note = store.root / "sweeps" / folder / "threads.txt"
    if not note.exists():
        store.write_sweep_files(folder, {note.name: f"{threads}\n"})
    text = ""
    with suppress(OSError, ValueError):
        text = read(note, 100).decode().strip()
    good = re.fullmatch("[1-9][0-9]{0,3}", text) is not None
    remedy = "Write the number with which the sweep began, or remove the file to go on with another."
    require(good, f"File {note}", "hold the number of threads of the sweep's processes", repr(text), remedy)
    return int(text)


def _about(plan: SweepPlan) -> dict[str, str]:
    runs = [{"id": run.id, "point": run.point} for run in plan.expansion.runs]
    skipped = [one._asdict() for one in plan.expansion.skipped]
    listed = json.dumps({"sweep": plan.sweep.id, "runs": runs, "refused": skipped}, indent=1)
    return {"sweep.toml": dumps(plan.sweep.data), "runs.json": listed}
