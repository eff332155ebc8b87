"""`byzopt sweep`: a grid of runs, those of them that are not stored yet."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from byzopt.cli.again import same_command
from byzopt.cli.options import SWEEP_BACKENDS, directory, one_of, optional
from byzopt.cli.parameters import DEFAULT_STORE, AsJson, CheckpointEvery, DryRun, Jobs, Retry, StorePath

if TYPE_CHECKING:
    from byzopt.experiments.sweeps import SweepPlan, SweepResult
    from byzopt.experiments.sweeps.sinks import Sink

SHOWN = 20  # rows of a table for people; --json has all


def command(
    sweep: Annotated[str, typer.Argument(help="A TOML file, or a preset such as byz-nsgdm/digits-grid.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="For all runs, or other values of an axis. Repeatable."
        ),
    ] = None,
    store: StorePath = DEFAULT_STORE,
    dry_run: DryRun = False,
    jobs: Jobs = None,
    backend: Annotated[
        str,
        typer.Option(
            callback=one_of(*SWEEP_BACKENDS),
            metavar="|".join(SWEEP_BACKENDS),
            help="local: processes on this machine; ray: the cores of a Ray cluster.",
        ),
    ] = "local",
    engine: Annotated[
        str | None,
        typer.Option(callback=optional(one_of(*SWEEP_BACKENDS)), hidden=True, help="Former --backend."),
    ] = None,
    retry: Retry = False,
    checkpoint_every: CheckpointEvery = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(parser=directory, metavar="DIR", help="Write runs to this TensorBoard folder."),
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Write runs to the MLflow server at this address.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Run every run of a sweep that is not stored yet, on all cores.

    The same command goes on after an interruption of any kind. Runs that fail are stored with their reason
    and do not stop the others; then the exit status is 1.
    """
    from byzopt.cli.progress import remark
    from byzopt.experiments.specs.loading import path_exists
    from byzopt.experiments.store.directories import check_directory
    from byzopt.experiments.sweeps import load_sweep, plan_sweep
    from byzopt.experiments.sweeps.running import check_devices
    from byzopt.experiments.sweeps.runs import point_text
    from byzopt.own_files import within

    if engine is not None:
        backend = engine
        print(
            "byzopt: --engine of byzopt sweep is now --backend; it works until the next release",
            file=sys.stderr,
        )
    if not path_exists(store):
        check_directory(store, "--store")
    loaded = load_sweep(sweep, settings or ())
    with within(f"Sweep {sweep}"):
        plan = plan_sweep(loaded, store, retry)
    remark({point_text(intent.run.point): intent.run.spec for intent in plan.intents})
    if dry_run:
        if backend == "local":
            check_devices(plan)
        _preview(plan, as_json)
        return 0
    if plan.to_play:  # else there is nothing to write
        check_directory(store, "--store")
    if tensorboard:
        check_directory(tensorboard, "--tensorboard")
    swept = played(plan, jobs, backend, retry, checkpoint_every, _sinks(plan, tensorboard, mlflow))
    _told(swept, as_json)
    if swept.unnoted:
        print(
            f"byzopt: all runs are stored; what the sweep notes of itself is not: {swept.unnoted}",
            file=sys.stderr,
        )
    for line in swept.unsent[:SHOWN]:
        print(f"byzopt: not handed on, the same command does it again: {line}", file=sys.stderr)
    if not swept.finished:
        print(f"byzopt: interrupted; go on with: {same_command()}", file=sys.stderr)
        return 130
    return 1 if any(one.kind == "failed" for one in swept.stored.values()) else 0


def played(
    plan: SweepPlan, jobs: int | None, backend: Any, retry: bool, every: float | None, sinks: list[Sink]
) -> SweepResult:
    """Run a plan with progress on stderr; a signal stops it and keeps checkpoints."""
    from byzopt.cli.stopping import stop_on_signals
    from byzopt.cli.sweep_progress import SweepDisplay
    from byzopt.experiments.sweeps import run_sweep
    from byzopt.experiments.sweeps.cores import best_layout

    layout = best_layout() if jobs is None and plan.to_play else None
    with SweepDisplay(plan) as display, stop_on_signals() as stopped:
        return run_sweep(
            plan,
            jobs=layout.processes if layout else jobs or 0,
            threads=layout.threads if layout else 1,
            backend=backend,
            retry=retry,
            every=every,
            tell=display.hear,
            stopped=stopped,
            sinks=sinks,
        )


def _sinks(plan: SweepPlan, tensorboard: Path | None, mlflow: str | None) -> list[Sink]:
    from byzopt.experiments.sweeps.sinks import MLflow, TensorBoard

    chosen: list[Sink] = [TensorBoard(tensorboard)] if tensorboard else []
    return chosen + ([MLflow(mlflow, plan.sweep.name or "byzopt")] if mlflow else [])


def _preview(plan: SweepPlan, as_json: bool) -> None:
    from byzopt.experiments.sweeps.runs import point_text

    skipped = [{"point": one.point, "reason": one.reason} for one in plan.expansion.skipped]
    if as_json:
        runs = [
            {"id": i.run.id, "point": i.run.point, "run": i.play, "why": i.why, "state": i.stored.kind}
            for i in plan.intents
        ]
        batches = [list(batch.ids) for batch in plan.batches]
        print(json.dumps({"sweep": plan.sweep.id, "runs": runs, "batches": batches, "refused": skipped}))
        return
    for intent in plan.intents:
        word, run = "run " if intent.play else "keep", intent.run
        print(f"{word}  {run.id}  {point_text(run.point)}  [{intent.why}]")
    for one in plan.expansion.skipped:
        print(f"skip  {'':16}  {point_text(one.point)}  [{one.reason}]")
    print(f"{plan.to_play} of {len(plan.intents)} runs would run, in {len(plan.batches)} batches")


def _told(swept: SweepResult, as_json: bool) -> None:
    failed = {run: one.message for run, one in swept.stored.items() if one.kind == "failed"}
    risen = sum(one.risen for one in swept.stored.values())
    if as_json:
        about = {
            "sweep": swept.plan.sweep.id,
            "store": str(swept.plan.store.root),
            "folder": str(swept.folder),
        }
        counts = {"runs": len(swept.stored), "counts": dict(swept.counts), "failed": failed}
        counts["worse_than_start"] = risen
        print(json.dumps(about | counts | {"tuned": swept.tuned}, allow_nan=False))
        return
    line = ", ".join(f"{count} {name}" for name, count in sorted(swept.counts.items()))
    worse = f"; {risen} ended worse than they started" if risen else ""
    print(f"{len(swept.stored)} runs in {swept.plan.store.root}: {line}{worse}")
    for run, message in list(failed.items())[:SHOWN]:
        print(f"failed  {run}  {message}")
    if len(failed) > SHOWN:
        print(
            f"... and {len(failed) - SHOWN} more; byzopt query {swept.plan.store.root} --where status=error"
        )
    for cell in (swept.tuned or {}).get("cells", [])[:SHOWN]:
        from byzopt.experiments.sweeps.runs import point_text

        where = f"at {point_text(cell['cell'])}"
        if cell["chosen"] is None:
            print(f"chosen  nothing: every setting has a run that failed, {where}")
        else:
            print(f"chosen  {point_text(cell['chosen'])}  ({cell['score']:.4g})  {where}")
    if swept.tuned:
        place = "" if swept.unnoted else f": {swept.folder / 'tuned.json'}"
        print(f"Tuned by {swept.tuned['by']} of {swept.tuned['figure']}{place}")
