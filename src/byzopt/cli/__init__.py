"""The byzopt command. Torch and matplotlib are imported by the commands that need them, not here."""

from __future__ import annotations

import os
import sys

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
from byzopt.errors import ByzoptError
from byzopt.waiting import WAITING

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

WRONG, INTERRUPTED = 2, 130  # exit statuses: the input was refused; a signal ended the run


def main() -> None:
    """Run the command; every error that was foreseen is one line on stderr."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.update(WAITING)
    sys.exit(_status())


def _status() -> int:
    try:
        return app(standalone_mode=False) or 0
    except ByzoptError as error:
        return _refused(str(error))
    except KeyboardInterrupt:
        print("byzopt: interrupted before the first round; nothing was kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # a reader such as `head` has gone: nothing to say, and nobody to say it to
        return 1
    except Exception as error:
        # The parser's own errors: their class is click's or typer's copy of it.
        if not hasattr(error, "format_message"):
            raise
        return _refused(error.format_message() or "a command is missing; try --help")


def _refused(message: str) -> int:
    print(f"byzopt: error: {' '.join(message.split())}", file=sys.stderr)
    return WRONG
