"""How tests call the command in their own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from byzopt.cli import main


class Said(NamedTuple):
    """A command's exit status, and what it said on standard output and standard error."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]


def command(capture: pytest.CaptureFixture[str]) -> Command:
    """`byzopt` as a function of its words."""

    def call(*words: str) -> Said:
        capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        return Said(int(ended.value.code or 0), *capture.readouterr())

    return call
