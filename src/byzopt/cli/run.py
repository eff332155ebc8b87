"""`byzopt run`: a spec or preset to a table, curves and a stored record."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from byzopt.cli.again import same_command
from byzopt.cli.options import AXES, RUN_ENGINES, at_least, directory, one_of
from byzopt.cli.parameters import MoreSettings, Settings, SpecName
from byzopt.errors import require

if TYPE_CHECKING:
    from byzopt.experiments import Outcome, Result, Spec
    from byzopt.reports.curves import DrawnBound
    from byzopt.theory.promise import Promise

DEFAULT_ROOT = "byzopt-runs"
LABELS = {"gap": "Gap f(x) - f* of the honest loss"}
LONGEST = 200  # bytes of a spec's name in the default directory's
WIDTH = 120  # of the table where stdout is no terminal


def command(
    spec: SpecName,
    more: MoreSettings = None,
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=directory, metavar="DIR", help="Directory of the run. Default: NAME-ID in the store."
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            parser=directory, metavar="DIR", help=f"Directory of all runs. Default: {DEFAULT_ROOT}."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Final metrics as one JSON object on stdout.")
    ] = False,
    compare: Annotated[bool, typer.Option(help="Run the spec's variants beside it.")] = True,
    engine: Annotated[
        str,
        typer.Option(
            callback=one_of(*RUN_ENGINES),
            metavar="|".join(RUN_ENGINES),
            help="simulated: in this process; torchrun: over gloo processes, with equal iterates.",
        ),
    ] = "simulated",
    count: Annotated[
        int | None,
        typer.Option(
            "--processes", callback=at_least(1), help="With torchrun: how many. Default: one a worker."
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option(help="Start again where the directory holds this run.")] = False,
    bound: Annotated[bool, typer.Option(help="Draw what theory promises beside the measurement.")] = False,
    axis: Annotated[
        str,
        typer.Option(callback=one_of(*AXES), metavar="|".join(AXES), help="What curves are drawn against."),
    ] = "rounds",
) -> int:
    """Run a spec: live progress, a table, curves and a stored record.

    The same command continues a run that was interrupted, and shows one that is finished.
    """
    from byzopt.cli import FAILED
    from byzopt.cli.progress import Display, remark
    from byzopt.cli.stopping import INTERRUPTED, stop_on_signals
    from byzopt.experiments import load, run

    alone = engine == "simulated"
    require(
        count is None or not alone, "Option --processes", "go with --engine torchrun", f"--engine {engine}"
    )
    drawn = not bound or axis == "rounds"
    require(drawn, "Option --bound", "be drawn against rounds", f"--axis {axis}", "Leave out one of the two.")
    require(out is None or store is None, "Option --store", "go without --out", f"--out {out}")
    loaded = load(spec, [*(settings or ()), *(more or ())], compare)
    server = all(one.graph is None for one in loaded.variants().values())
    together = all(one.asynchrony is None for one in loaded.variants().values())
    remedy = "Leave it out, or let ranks be nodes: byzopt.distributed.GossipNode."
    require(alone or server, "A spec with --engine torchrun", "have a server", "a graph", remedy)
    what, rule = "A spec with --engine torchrun", "hear all workers in every round"
    remedy = "Leave it out, or serve ranks by byzopt.distributed.AsynchronousServer."
    require(alone or together, what, rule, "a table `asynchrony`", remedy)
    proved = _bound(loaded) if bound else None  # refused before the run, not after
    place = out or (store or Path(DEFAULT_ROOT)) / f"{_stem(spec)}-{loaded.id[:8]}"
    with ExitStack() as stack:
        link = None
        if not alone:
            from byzopt.experiments.trials.processes import worker_processes

            link = stack.enter_context(worker_processes(loaded, count))
            if link is None:
                return 0  # a rank other than 0, which has served
        remark(loaded.variants())
        display, stopped = stack.enter_context(Display(loaded)), stack.enter_context(stop_on_signals())

        def on_round(name: str, t: int) -> bool:
            display.on_round(name, t)
            return stopped()

        result = run(loaded, display.on_record, place, on_round, fresh, link, display.on_start)
    drawn = _report(result, place, as_json, proved, axis)
    if proved is not None and proved.key not in result.metrics:
        remedy = "set task.gap=true" if proved.key == "gap" else "take another task"
        print(
            f"byzopt: no bound drawn: it is on {proved.key!r}, which this task does not measure; {remedy}",
            file=sys.stderr,
        )
    if not result.interrupted:
        return 0 if drawn else FAILED
    print(f"byzopt: interrupted; go on with: {same_command(without=['--fresh'])}", file=sys.stderr)
    return INTERRUPTED


def _report(result: Result, place: Path, as_json: bool, bound: DrawnBound | None, axis: Any) -> bool:
    """Draw a result's curves and print it, also where there is no room for curves; whether there was."""
    plot = None if result.interrupted else _drawn(place, bound, axis)
    if as_json:
        print(json.dumps(result_data(result, place), allow_nan=False))
    else:
        from byzopt.cli import terminal
        from byzopt.reports import tables

        console = terminal.console(width=WIDTH)
        console.print(tables.outcome_table(result.spec, result.outcomes))
        for note in tables.outcome_notes(result.outcomes, result.spec.variants()):
            console.print(note, soft_wrap=True)
        if plot:
            print(f"Curves: {plot.resolve()}")
        if line := tables.last_line(result.outcomes):
            print(line)
    return result.interrupted or plot is not None


def _drawn(place: Path, bound: DrawnBound | None, axis: Any) -> Path | None:
    from byzopt.reports import curves

    try:
        return curves.draw_curves(place, bound, axis)
    except OSError as error:
        why = f"{place / curves.NAME}: {error.strerror or error}"
        remedy = "the result is stored, and the same command draws them"
        print(f"byzopt: no curves drawn: {why}; {remedy}", file=sys.stderr)
        return None


def _bound(spec: Spec) -> DrawnBound:
    """The spec's method's bound, round by round. Errors: no theorem gives one, with the reason."""
    from byzopt.certificates.promised import bound_curve, spec_constants
    from byzopt.cli.progress import StageProgress
    from byzopt.errors import InvalidInput
    from byzopt.reports.curves import DrawnBound

    with StageProgress() as tell:
        curve = bound_curve(spec, spec_constants(spec, tell), tell)
    if not curve.values:
        raise InvalidInput(
            f"Option --bound should have a theorem to draw. Found none: {_why(curve.promise)}."
        )
    label = LABELS.get(curve.key, curve.key)
    return DrawnBound(curve.key, label, tuple(curve.values), tuple(curve.values.values()), curve.least)


def _why(promise: Promise) -> str:
    """Why there is no bound to draw."""
    if promise.vacuous:
        return f"the bound is vacuous, {promise.bound:.4g} where the start has {promise.trivial:.4g}"
    return "; ".join(promise.missing) or f"{promise.theorem} bounds no figure of the records"


def result_data(result: Result, place: Path) -> dict[str, Any]:
    """The result as one flat object; variants under `compare`."""
    from byzopt.experiments import MAIN
    from byzopt.experiments.store.outcomes import outcome_summary

    specs = result.spec.variants()
    summaries = {
        name: outcome_summary(outcome) | _about_run(specs[name], outcome)
        for name, outcome in result.outcomes.items()
    }
    main = summaries.pop(MAIN)
    return {"id": result.spec.id, **main, "out": str(place), "compare": summaries}


def _about_run(spec: Spec, outcome: Outcome) -> dict[str, Any]:
    """Whether the start was better than the end; the round after which the figures were measured, which for
    an interrupted run is not its last one; and what bounds the aggregate's error."""
    from byzopt.certificates.certified import error_bound_sentence

    measured = int(outcome.records[-1]["t"]) if outcome.records else None
    about = {"figures_of_round": measured, "aggregate_error": error_bound_sentence(spec, outcome)}
    return {"worse_than_start": outcome.risen is not None} | about


def _stem(spec: str) -> str:
    """A spec's name in the name of a directory, which has not room for all that a file's may be."""
    from byzopt.experiments.specs.loading import path_exists

    stem = Path(spec).stem if path_exists(spec) else spec.removesuffix(".toml").replace("/", "-")
    return os.fsdecode(os.fsencode(stem)[:LONGEST])
