"""Errors in users' files, told by file and line in one message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from byzopt.errors import ByzoptError, InvalidInput

_FILES: set[str] = set()  # whose code has been run


class UserError(InvalidInput):
    """The code of a user's file raised an error, or is no Python; the message says where."""


@contextmanager
def blamed(path: str) -> Iterator[None]:
    """Run code of the user's file `path`. Errors: `UserError` for those that come out of it, with the place;
    named errors that say nothing of the input (missing data, ...) stay as they are."""
    _FILES.add(path)
    try:
        yield
    except UserError:
        raise
    except SyntaxError as error:
        raise broken(path, error) from None
    except (Exception, SystemExit) as error:
        if isinstance(error, ByzoptError) and not isinstance(error, InvalidInput):
            raise
        raise UserError(f"{place_of(error) or f'File {path}'}: {describe_error(error)}") from error


@contextmanager
def within(where: str) -> Iterator[None]:
    """Let errors of input that come out of here begin with where the input is, as `In my.toml`; those of a
    user's code name their own file."""
    try:
        yield
    except UserError:
        raise
    except InvalidInput as error:
        text = str(error)
        told = f", in{text[2:]}" if text.startswith("In ") else f": {text}"
        raise type(error)(f"{where}{told}") from None


def place_of(error: BaseException) -> str:
    """`File my.py, line 7` of the innermost line of a user's file that an error went through, or nothing."""
    lines = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    lines_there = [(path, line) for path, line in lines if path in _FILES]
    return f"File {lines_there[-1][0]}, line {lines_there[-1][1]}" if lines_there else ""


def describe_error(error: BaseException) -> str:
    """What an error says, after its kind where that is not one of byzopt's."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ByzoptError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def broken(path: str, error: BaseException) -> UserError:
    """The error for a file that is no Python."""
    line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
    where = error.filename if isinstance(error, SyntaxError) and error.filename else path
    what = error.msg if isinstance(error, SyntaxError) else describe_error(error)
    return UserError(f"File {where}{line}: {type(error).__name__}: {what}")
