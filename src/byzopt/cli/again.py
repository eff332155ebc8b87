"""The command that was given, as it is typed again."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Collection

GIVEN = "BYZOPT_COMMAND"  # set by a script that became this command, such as scripts/demo


def same_command(without: Collection[str] = ()) -> str:
    """The command that was given, without some of its words, so that it works where the user is.

    A script that became this command says how it was called itself. Where no `byzopt` is on the path it is
    that of this Python.
    """
    if GIVEN in os.environ:
        words = shlex.split(os.environ[GIVEN])
    else:
        name = ["byzopt"] if shutil.which("byzopt") else [sys.executable, "-m", "byzopt"]
        words = [*name, *sys.argv[1:]]
    return shlex.join(word for word in words if word not in without)
