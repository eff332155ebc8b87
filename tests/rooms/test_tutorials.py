"""The tutorials: their commands and blocks of code run, in the order of the page, in one directory."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from byzopt.cli import main

PAGES = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
LONG = {"sweep-to-table"}  # repeats a cell of a paper's table
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
NAMES = sorted(page.stem for page in PAGES.glob("*.md") if page.stem != "README")


def command(line: str) -> None:
    """Run a line of a shell block in this process."""
    name, *words = shlex.split(line, comments=True)
    assert name == "byzopt", f"not known how to run: {line}"
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code, line


def follow(name: str, place: Path, monkeypatch) -> int:
    """Do what a tutorial says: save files that are named in their first line, type commands, run Python."""
    monkeypatch.chdir(place)
    names: dict[str, object] = {"__name__": "tutorial"}
    done = 0
    for language, text in BLOCK.findall((PAGES / f"{name}.md").read_text(encoding="utf-8")):
        file = re.match(r"# (\S+\.(?:toml|py))\n", text)
        if file:
            Path(file[1]).write_text(text, encoding="utf-8")
        elif language == "python":
            exec(compile(text, f"{name}.md", "exec"), names)
        elif language == "bash":
            for line in text.splitlines():
                command(line)
        done += bool(file) or language in {"python", "bash"}
    return done


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in NAMES]
)
def test_a_tutorial_can_be_followed(name, tmp_path, monkeypatch):
    assert follow(name, tmp_path, monkeypatch)
