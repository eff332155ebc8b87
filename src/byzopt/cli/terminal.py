"""Standard output and standard error of the command: the one place where text reaches a terminal.

Whatever is printed while `opened` lasts, by whomever, passes `visible`: names and messages of files that
others wrote cannot move the cursor, colour or hide text. Tables and bars with colours of our own go through
`console`.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from byzopt.errors import ByzoptError, DoubtfulSetting
from byzopt.escaping import visible


class Unprintable(ByzoptError):
    """Standard output does not take what is printed: its disk is full, for instance."""


class Raw:
    """A standard stream. One that fails ends the command (`Unprintable`, `BrokenPipeError`), unless it only
    tells how far the command is: then nothing more is told."""

    def __init__(self, stream: TextIO, needed: bool) -> None:
        self.stream, self.needed = stream, needed

    def write(self, text: str) -> int:
        """Write `text` as it is."""
        with self._failing():
            self.stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write all `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._failing():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with suppress(OSError):  # what is still in its buffers would fail once more at the end
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            if self.needed and isinstance(error, BrokenPipeError):
                raise
            if self.needed:
                raise Unprintable(f"Standard output should be writable. Found: {error.strerror}.") from None


class Visible(Raw):
    """A standard stream through which only `visible` text goes."""

    def write(self, text: str) -> int:
        return super().write(visible(text))


class _Console(Console):
    """A console for which text is never markup. Its own colours are the only control characters it sends."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)


def console(stderr: bool = False, width: int | None = None) -> Console:
    """The console for tables and progress; `width` where the stream is no terminal."""
    stream: Any = sys.stderr if stderr else sys.stdout
    if isinstance(stream, Visible):
        stream = Raw(stream.stream, stream.needed)
    fixed = None if stream.isatty() else width
    return _Console(file=stream, width=fixed, markup=False, emoji=False, highlight=False)


def print_sheets(sheets: Iterable[Any]) -> None:
    """Print a report's tables, each with its title and caption."""
    from rich.table import Table

    wide = console(width=160)
    for sheet in sheets:
        table = Table(title=sheet.title, title_justify="left", title_style="bold", box=None)
        head, rows, numeric = sheet.joined
        for name, number in zip(head, numeric, strict=True):
            table.add_column(name, overflow="fold", justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        wide.print(table)
        wide.print(sheet.caption, style="dim")
        wide.print()


def words(text: str, style: str = "") -> Text:
    """Text in a style, for a cell or a line of a console."""
    return Text(visible(text), style)


@contextmanager
def doubts_as_notes() -> Iterator[None]:
    """In here warnings of doubtful settings are notes on standard error, each once."""
    told = set[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("always", DoubtfulSetting)
        before = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, DoubtfulSetting):
                before(message, category, *place, **more)
            elif str(message) not in told:
                told.add(str(message))
                print(f"byzopt: note: {message}", file=sys.stderr)

        warnings.showwarning = cast(Any, show)
        yield


@contextmanager
def harmless_streams() -> Iterator[None]:
    """Standard streams that take every text: one that was closed takes it nowhere, and what an encoding lacks
    is spelled out."""
    before = sys.stdout, sys.stderr
    out, err = (stream or open(os.devnull, "w", encoding="utf-8") for stream in before)  # noqa: SIM115
    for stream in (out, err):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = Visible(out, needed=True), Visible(err, needed=False)
    try:
        yield
    finally:
        with suppress(BrokenPipeError, Unprintable):  # of what was printed before an error that matters more
            sys.stdout.flush()
        sys.stdout, sys.stderr = before
