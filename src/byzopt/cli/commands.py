"""The parser of the byzopt command. Torch and matplotlib are imported by the commands that need them."""

from __future__ import annotations

import typer

import byzopt.cli.audit as audit
import byzopt.cli.breaking as breaking
import byzopt.cli.doctor as doctor
import byzopt.cli.explain as explain
import byzopt.cli.listing as listing
import byzopt.cli.query as query
import byzopt.cli.report as report
import byzopt.cli.reproduce as reproduce
import byzopt.cli.run as run
import byzopt.cli.sweep as sweep

app = typer.Typer(
    name="byzopt",
    help="Training that converges while some of the workers lie.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(name="run")(run.command)
app.command(name="sweep")(sweep.command)
app.command(name="query")(query.command)
app.command(name="report")(report.command)
app.command(name="reproduce")(reproduce.command)
app.command(name="list")(listing.command)
app.command(name="doctor")(doctor.command)
app.command(name="break")(breaking.command)
app.command(name="audit")(audit.command)
app.command(name="explain")(explain.command)
