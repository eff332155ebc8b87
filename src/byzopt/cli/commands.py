"""The parser of the byzopt command. Torch and matplotlib are imported by the commands that need them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import typer

import byzopt.cli.audit as audit
import byzopt.cli.benchmark as benchmark
import byzopt.cli.breaking as breaking
import byzopt.cli.doctor as doctor
import byzopt.cli.explain as explain
import byzopt.cli.listing as listing
import byzopt.cli.query as query
import byzopt.cli.report as report
import byzopt.cli.reproduce as reproduce
import byzopt.cli.run as run
import byzopt.cli.stress as stress
import byzopt.cli.sweep as sweep
from byzopt import __version__

app = typer.Typer(
    name="byzopt",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@cache
def parser() -> Callable[..., Any]:
    """The commands as a parser: from words to an exit status. Made once, which takes a while."""
    return typer.main.get_command(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"byzopt {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Training that converges while some of the workers lie."""


app.command(name="run")(run.command)
app.command(name="stress")(stress.command)
app.add_typer(benchmark.app, name="benchmark")
app.command(name="sweep")(sweep.command)
app.command(name="query")(query.command)
app.command(name="report")(report.command)
app.command(name="reproduce")(reproduce.command)
app.command(name="list")(listing.command)
app.command(name="doctor")(doctor.command)
app.command(name="break")(breaking.command)
app.command(name="audit")(audit.command)
app.command(name="explain")(explain.command)
