"""What a sweep would do about each of its runs, and why; nothing is written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from byzopt.errors import InvalidInput
from byzopt.experiments.store.content import check_content, known_content
from byzopt.experiments.store.run_store import RunStore, StoredRun
from byzopt.experiments.sweeps.batches import RunBatch, plan_batches
from byzopt.experiments.sweeps.claims import claim_owner
from byzopt.experiments.sweeps.runs import Expansion, Run
from byzopt.experiments.sweeps.sweep import Sweep, load_sweep


class PlannedRun(NamedTuple):
    """What a sweep would do about one run, and why."""

    run: Run
    stored: StoredRun
    why: str
    play: bool


@dataclass(frozen=True)
class SweepPlan:
    """What is stored of a sweep and what is left to run."""

    sweep: Sweep
    store: RunStore
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
        return os.path.exists(self.store.root / "sweeps" / self.folder)

    @property
    def to_play(self) -> int:
        """How many runs are to be computed."""
        return sum(intent.play for intent in self.intents)


def plan_sweep(sweep: Sweep | str | Path, store: str | Path, retry: bool = False) -> SweepPlan:
    """What a sweep would do, and why; nothing is written. `retry`: run again what failed."""
    sweep = sweep if isinstance(sweep, Sweep) else load_sweep(sweep)
    run_store, expansion = RunStore(Path(store)), sweep.expand()
    stored = {run.id: run_store.inspect(run.id) for run in expansion.runs}
    missing = {run for run, one in stored.items() if one.kind != "whole" and (retry or one.kind != "failed")}
    known = {run: one.batch for run, one in stored.items() if one.batch and run not in missing}
    to_play = plan_batches(expansion.runs, missing, known, sweep.together)
    _check_content(run_store, stored, expansion.runs, to_play)
    begun = {run for batch in to_play if run_store.has_checkpoint(batch.id) for run in batch.ids}
    intents = tuple(
        PlannedRun(
            run,
            stored[run.id],
            _why(run.id, stored[run.id], run.id in begun, retry, run_store),
            run.id in missing,
        )
        for run in expansion.runs
    )
    return SweepPlan(sweep, run_store, expansion, intents, tuple(to_play))


def _check_content(
    store: RunStore, stored: Mapping[str, StoredRun], runs: Sequence[Run], to_play: Sequence[RunBatch]
) -> None:
    """Raise `ChangedFile` where runs of the sweep are stored, or under way, that read other data than the
    files of the same names hold now."""
    remedy = "Put the old content back, or choose another --store."
    now = {task: known_content(spec) for task, spec in {run.spec.task: run.spec for run in runs}.items()}
    for run in runs:
        what = f"Run {run.id} in the store {store.root}"
        check_content(stored[run.id].content, now[run.spec.task], what, remedy)
    for batch in to_play:
        told = {name: said for run in batch.runs for name, said in now[run.spec.task].items()}
        if told and store.has_checkpoint(batch.id):
            try:
                then = (store.load_checkpoint(batch.id) or {}).get("content", {})
            except InvalidInput:
                continue  # damaged: its runs start again
            check_content(then, told, f"The checkpoint {batch.id} in the store {store.root}", remedy)


def _why(run: str, stored: StoredRun, begun: bool, retry: bool, store: RunStore) -> str:
    if stored.kind == "whole":
        return f"stored: {stored.status}"
    if stored.kind == "failed":
        return f"failed: {stored.message}" + ("" if retry else " (--retry runs it again)")
    if (who := claim_owner(store.claims, run)) is not None:
        return f"under way: process {who.get('pid', '?')} on {who.get('host', '?')}"
    if stored.kind == "damaged":
        return f"damaged: {stored.message}"
    return "unfinished: goes on from its checkpoint" if begun else "new: nothing is stored"
