"""`byzopt reproduce`: a paper's table and figures, ours beside the printed ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from byzopt.cli.again import same_command
from byzopt.cli.options import directory
from byzopt.cli.options import seed_list as some_seeds
from byzopt.cli.parameters import DEFAULT_STORE, AsJson, CheckpointEvery, DryRun, Jobs, Retry, StorePath

if TYPE_CHECKING:
    from byzopt.experiments.sweeps import SweepPlan
    from byzopt.reproductions.reproduction import Reproduction
    from byzopt.reproductions.running import ReproducedTables


def command(
    name: Annotated[
        str | None, typer.Argument(help="As byz-nsgdm/table1, or a TOML file. Default: list all.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Minutes: fewer cells, seeds and rounds.")] = False,
    seeds: Annotated[
        str | None, typer.Option(callback=some_seeds, help="Seeds, separated by commas.")
    ] = None,
    cells: Annotated[
        list[str] | None,
        typer.Option(help="Labels that a cell must all have, as quartic,BF,as-released. May be repeated."),
    ] = None,
    dry_run: DryRun = False,
    stored: Annotated[
        bool, typer.Option("--stored", help="Run nothing: tables and page from what is stored.")
    ] = False,
    store: StorePath = DEFAULT_STORE,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=directory, metavar="DIR", help="Where the page and figures go. Default: in the store."
        ),
    ] = None,
    jobs: Jobs = None,
    retry: Retry = False,
    checkpoint_every: CheckpointEvery = None,
    device: Annotated[
        str | None,
        typer.Option(help="Where models train. Default: a GPU if there is one."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Run a paper's experiment and print its table beside ours, with the verdict of every cell.

    What is stored is not run again: the same command goes on after an interruption. With --quick it says
    what is left out.
    """
    from byzopt.experiments.specs.loading import path_exists
    from byzopt.experiments.store.directories import check_directory
    from byzopt.reproductions.devices import on_device
    from byzopt.reproductions.loading import load_reproduction, reproductions
    from byzopt.reproductions.running import collect_tables, plan_parts
    from byzopt.tasks.devices import device_of

    if name is None:
        shipped = reproductions()
        print(json.dumps(shipped) if as_json else "\n".join(f"{k:32}{v}" for k, v in shipped.items()))
        return 0
    if device is not None and not stored:
        device_of(device)
    whole = load_reproduction(name)
    place = out or store / "reproductions" / whole.name.replace("/", "-")
    if not path_exists(store):
        check_directory(store, "--store")
    if not dry_run:
        check_directory(place, "--out")
    it = on_device(whole.chosen(cells or (), _numbers(seeds), quick), device)
    whole = whole.chosen(cells or (), _numbers(seeds))
    todo = [] if stored else plan_parts(it, store, retry)
    if not dry_run and any(plan.to_play for plan in todo):
        check_directory(store, "--store")
    if quick:
        _left_out(whole, it)
    if dry_run:
        _estimate(todo)
        return 0
    began = monotonic()
    finished = _played(todo, jobs, retry, checkpoint_every)
    if any(plan.to_play for plan in todo):
        _say(f"{'all runs took' if finished else 'interrupted after'} {_time(monotonic() - began)}")
    if not finished:
        print(f"byzopt: interrupted; go on with: {same_command()}", file=sys.stderr)
        return 130
    return _told(collect_tables(it, store), place, as_json)


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()


def _left_out(whole: Reproduction, it: Reproduction) -> None:
    """What --quick does not do."""
    kept = {(part.name, part.protocol): part for part in it.parts}
    for part in whole.parts:
        short = kept.get((part.name, part.protocol))
        where = f"{part.name} {part.protocol}"
        if short is None:
            _say(f"--quick leaves out {where} ({len(part.cells)} cells)")
            continue
        parts = [
            f"{len(short.cells)} of {len(part.cells)} cells",
            f"{len(short.seeds)} of {len(part.seeds)} seeds",
        ]
        if short.shortened:
            what = "only its first rounds are" if short.unchanged else "nothing is"
            parts.append(f"other settings, so that {what} compared: " + json.dumps(dict(part.quick.spec)))
        _say(f"--quick runs {where} with {', '.join(parts)}")


def _estimate(todo: list[SweepPlan]) -> None:
    """Say about how long each part takes, and all of them."""
    total = 0.0
    for plan in todo:
        seconds, words = _timed(plan)
        total += seconds
        _say(f"{_left(plan)}{words}")
    if total:
        _say(f"in all at most about {_time(total)} of one core; runs that advance together take less")


def _played(todo: list[SweepPlan], jobs: int | None, retry: bool, every: float | None) -> bool:
    """Play part by part. All parts are timed before the first begins, and none when the command goes on: one
    that is killed again and again shall not spend its time on that."""
    from byzopt.cli.sweep import played

    if not any(plan.begun for plan in todo):
        _estimate(todo)
    for plan in todo:
        _say(_left(plan))
        if plan.to_play and not played(plan, jobs, "local", retry, every, []).finished:
            return False
    return True


def _left(plan: SweepPlan) -> str:
    return f"{plan.sweep.name}: {plan.to_play} of {len(plan.intents)} runs to come"


def _timed(plan: SweepPlan) -> tuple[float, str]:
    """About how long a part takes on one core, in seconds and in words."""
    from byzopt.reproductions.running import seconds_left

    seconds = seconds_left(plan)
    return seconds, f", {_time(seconds)} on one core"


def _told(account: ReproducedTables, out: Path, as_json: bool) -> int:
    from byzopt.experiments.store.directories import explain_refused_writes
    from byzopt.reports.reproduction import results, save_reproduction
    from byzopt.reports.reproduction_page import (
        attacks_of,
        cell_columns,
        cell_row,
        drop_empty,
        fit_columns,
        fit_row,
        part_title,
        verdict_counts,
    )

    with explain_refused_writes(out, "Choose another --out."):
        made = save_reproduction(account, out)
    if as_json:
        print(json.dumps(results(account) | {"files": [str(path) for path in made]}, allow_nan=False))
    else:
        for part in account.reproduction.parts:
            lines = drop_empty([line for line in account.lines if line.part is part])
            fits = [one for one in account.fitted if one.part is part]
            print(f"\n{part_title(part)}")
            if attacks := attacks_of(account, part):
                print(attacks)
            if fits:
                _table([fit_columns(part), *map(fit_row, fits)])
                print(verdict_counts(fits) + "\n")
            _table([cell_columns(part), *map(cell_row, lines)])
            print(verdict_counts(lines))
        ended = [one.outcome for runs in account.found.values() for one in runs]
        print(f"\n{len(ended)} runs, {_time(sum(one.seconds for one in ended))} of computing in all")
        print(f"{len(made)} files in {out}")
    return 1 if any(one.outcome.status == "error" for runs in account.found.values() for one in runs) else 0


def _table(body: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    for texts in body:
        padded = [text.ljust(width) for text, width in zip(texts, widths, strict=True)]
        print("  ".join(padded).rstrip())


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
