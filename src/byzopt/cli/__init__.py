"""The byzopt command: how it begins and how it ends. Its parts are imported once signals are heard."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from byzopt.cli.stopping import INTERRUPTED, say_interrupted, signals_heard
from byzopt.waiting import WAITING

LONGEST = 2000  # letters of an error, whose middle may be a value of any length
FAILED, WRONG = 1, 2  # exit statuses: a part failed, as the output says; the input was refused


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run the command that these `words` behind `byzopt` are, or the command line; end with its exit status.

    Every error that was foreseen is one line on stderr. Raises `SystemExit`, always.
    """
    before = sys.argv
    if words is not None:
        sys.argv = ["byzopt", *words]
    try:
        sys.exit(_heard())
    finally:
        sys.argv = before


def _heard() -> int:
    with signals_heard() as interrupted:
        try:
            if "OMP_WAIT_POLICY" not in os.environ:
                os.environ.update(WAITING)
            status = _status()
        except BaseException as error:
            # An interrupt may come out of other people's code as an error of theirs.
            if not isinstance(error, KeyboardInterrupt) and not interrupted():
                raise
            say_interrupted()
            return INTERRUPTED
        if interrupted() and status == INTERRUPTED:  # the parser took the exception, and says nothing
            say_interrupted()
        return status


def _status() -> int:
    from byzopt.cli import terminal
    from byzopt.cli.commands import parser

    with terminal.harmless_streams(), terminal.doubts_as_notes():
        try:
            os.getcwd()  # where it is gone, libraries end the process when they are loaded
            alone = not sys.argv[1:]  # without a word, the help page, and the status of a missing command
            found: int = parser()(["--help"] if alone else None, standalone_mode=False) or 0
            status = found or (WRONG if alone else 0)
            sys.stdout.flush()
        except terminal.Unprintable as error:
            return _refused(str(error), FAILED)
        except Exception as error:
            if not (message := _in_a_users_file(error)):
                return _foreseen(error)
            return _refused(message)
        return status


def _in_a_users_file(error: Exception) -> str:
    """The message for an error that came out of a file of the user's own, with its place; else nothing."""
    module = sys.modules.get("byzopt.own_files")
    place = module.place_of(error) if module and not isinstance(error, module.UserError) else ""
    return f"{place}: {module.describe_error(error)}" if module and place else ""


def _foreseen(error: Exception) -> int:
    """The exit status for an error that was foreseen, told in one line; the others are raised again."""
    from byzopt.errors import ByzoptError

    if isinstance(error, ByzoptError):
        return _refused(str(error))
    if isinstance(error, BrokenPipeError):
        return FAILED  # a reader such as `head` has gone: nothing to say, and nobody to say it to
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else "the working directory or a stream: "
        return _refused(f"{where}{error.strerror or error}.")
    # torch says so in an error of another kind.
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    ):
        return _refused(f"This takes more memory than there is. {error}")
    # The parser's own errors: their class is click's or typer's copy of it.
    if not hasattr(error, "format_message"):
        raise error
    reason = error.format_message() or "a command is missing; try --help"
    return _refused(f"{reason}{_setting(error)}")


def _setting(error: Any) -> str:
    """The setting that was meant by an option that the command does not have, if it takes settings."""
    from byzopt.cli.options import as_setting

    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if not option or context is None or all("--set" not in one.opts for one in context.command.params):
        return ""
    meant = as_setting(option, sys.argv[1:])
    return f". {meant}" if meant else ""


def _refused(message: str, status: int = WRONG) -> int:
    line = " ".join(message.split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
    print(f"byzopt: error: {line}", file=sys.stderr)
    return status
