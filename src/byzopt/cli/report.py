"""`byzopt report`: what a store's runs say together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from byzopt.cli.options import directory
from byzopt.cli.options import target as a_target


def command(
    store: Annotated[
        Path, typer.Argument(parser=directory, help="A store, or the directory of what `byzopt run` made.")
    ],
    html: Annotated[bool, typer.Option("--html", help="One self-contained page besides.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(parser=directory, metavar="DIR", help="Where to write. Default: STORE/report."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="FIGURE=VALUE", callback=a_target, help="For costs to a target, as accuracy=0.9."
        ),
    ] = None,
    bound: Annotated[bool, typer.Option("--bound", help="With what theory promises of each run.")] = False,
) -> int:
    """Draw curves, heat maps and tables of a store's runs, each as PNG, SVG, PDF, CSV and LaTeX."""
    from byzopt.cli import terminal
    from byzopt.cli.progress import StageProgress
    from byzopt.experiments.store.directories import check_directory, explain_refused_writes
    from byzopt.reports.study import make_report, save_study

    place = out or store / "report"
    if out or store.is_dir():  # else the store itself is what is wrong
        check_directory(place, "--out")
    with StageProgress() as tell:
        report = make_report(store, _target(target), bound, tell)
    terminal.print_sheets(report.sheets)
    with explain_refused_writes(place, "Choose another --out."):
        made = save_study(report, place, html)
    for name, reason in report.study.damaged.items():
        print(f"byzopt: damaged and left out: {name}: {reason}", file=sys.stderr)
    for name, other in report.study.repeated.items():
        print(f"byzopt: counted once: {name} is the same run as {other}", file=sys.stderr)
    for name, reason in report.study.unbounded.items():
        print(f"byzopt: no bound for {name}: {reason}", file=sys.stderr)
    count = len(report.study.cases)
    summary = f"{count} {'run' if count == 1 else 'runs'}; {len(made)} files in {place}"
    print(f"{summary}\nPage: {(place / 'index.html').resolve()}" if html else summary)
    return 0


def _target(text: str | None) -> tuple[str, float] | None:
    if text is None:
        return None
    name, _, value = text.partition("=")
    return name.strip(), float(value)
