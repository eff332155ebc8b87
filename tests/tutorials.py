"""How tests follow a tutorial: files saved, commands typed, Python run, in the order of the page."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from byzopt.cli import main

PAGES = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Alone on a port of its own: other tests start ranks at the same time.
MODULES = {"torchrun": ("torch.distributed.run", "--standalone")}


def follow(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Do what a tutorial says in a directory; what the commands of other programs said."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    names: dict[str, object] = {"__name__": "__main__"}
    said: list[str] = []
    for language, text in BLOCK.findall((PAGES / f"{name}.md").read_text(encoding="utf-8")):
        file = re.match(r"# (\S+\.(?:toml|py))\n", text)
        if file:
            Path(file[1]).write_text(text, encoding="utf-8")
        elif language == "python":
            exec(compile(text, f"{name}.md", "exec"), names)
        elif language == "bash":
            said += [_typed(shlex.split(line, comments=True), place) for line in text.splitlines()]
    return said


def _typed(words: list[str], place: Path) -> str:
    """What a command says; byzopt's own runs in this process, and says nothing here."""
    if words[0] == "byzopt":
        with pytest.raises(SystemExit) as ended:
            main(words[1:])
        assert not ended.value.code, words
        return ""
    command = [sys.executable, "-m", *MODULES[words[0]], *words[1:]]
    return subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stdout
