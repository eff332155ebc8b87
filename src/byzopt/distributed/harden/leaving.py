"""A rank whose script has ended in an error while its process lives on: the others are told, in the round
that they are in or begin next.

Nothing is asked of the script where nobody catches the error (`sys.excepthook`). Where somebody does, such as
a debugger or a notebook, `with guard:` says where the training ends.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Event, Thread, get_ident
from types import TracebackType
from typing import Any
from weakref import WeakSet

_PATIENCE = 5.0  # seconds in which others may be told before the script goes on
_watched: WeakSet[Any] = WeakSet()


class Farewell:
    """Calls `play()`, a round without a row, in a thread of its own, until that says that nobody is left."""

    def __init__(self, play: Callable[[], bool]) -> None:
        self._told = Event()
        self._thread = Thread(target=self._run, args=(play,), daemon=True, name="harden, leaving")
        self._thread.start()

    def is_here(self) -> bool:
        """Whether it is this thread that asks."""
        return get_ident() == self._thread.ident

    def wait(self) -> None:
        """Until the others have been told, or have not come to a round for a while."""
        self._told.wait(_PATIENCE)

    def _run(self, play: Callable[[], bool]) -> None:
        try:
            while play():
                self._told.set()
        finally:
            self._told.set()


def mark(error: Exception | None) -> None:
    """Remember of an error that a round ends in it: the other ranks have met it, too, or are gone."""
    if error is not None:
        error.__dict__["_of_a_round"] = True


def is_marked(error: BaseException) -> bool:
    """Whether a round has ended in this error."""
    return "_of_a_round" in error.__dict__


def watch(guard: Any) -> None:
    """Have `guard.leave(error)` called when an error that nobody catches ends the script."""
    global _before
    _watched.add(guard)
    if sys.excepthook is not _last_words:
        _before, sys.excepthook = sys.excepthook, _last_words


def _last_words(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _before(kind, error, trace)
    if isinstance(error, Exception):
        for guard in list(_watched):
            guard.leave(error)


_before: Callable[[type[BaseException], BaseException, TracebackType | None], Any] = sys.excepthook
