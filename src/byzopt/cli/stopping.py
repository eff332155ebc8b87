"""Signals that ask a command to end, from its first moment to its last."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

INTERRUPTED = 130  # the exit status


class Interrupted(KeyboardInterrupt):
    """A signal asked to end. Not `KeyboardInterrupt` itself: once that has passed through `exec`, as of
    dataclasses, Python ends by SIGINT whatever becomes of it."""


ASKING = (signal.SIGINT, signal.SIGTERM)
_Handler = Callable[[int, FrameType | None], None]


@contextmanager
def signals_heard() -> Iterator[Callable[[], bool]]:
    """In here SIGINT and SIGTERM raise `KeyboardInterrupt`; yields a function that tells whether one came.

    A module that is being imported cannot be left in good order, and has nothing to keep: there the process
    ends at once, with the same words and exit status.
    """
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if _importing(frame):
            say_interrupted()
            os._exit(INTERRUPTED)
        raise Interrupted

    with _handled(stop):
        yield lambda: bool(came)
    atexit.register(_deaf)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGINT or SIGTERM came; a second one ends the command at once."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            raise Interrupted
        came.append(number)

    with _handled(note):
        yield lambda: bool(came)


def say_interrupted() -> None:
    """Say on stderr, whatever state Python is in, that a signal ended the command."""
    with suppress(OSError):
        os.write(2, b"byzopt: interrupted; what was stored is kept\n")


@contextmanager
def _handled(handler: _Handler) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in ASKING}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _deaf() -> None:
    """The status is decided: nothing may change it while the interpreter takes itself down."""
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)
