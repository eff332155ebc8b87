"""The scripts that set up an environment: what they do when one is half made, or when somebody interrupts."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """`scripts/setup.py` for a root of the test's own, and the commands that it has run."""
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (0, 0))  # older than any stamp
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "PLACE", tmp_path / ".venv")
    monkeypatch.setattr(module, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    module.commands, module.answers = [], {}

    def call(command, **settings):
        what = " ".join(command[1:4]).removesuffix(f" {module.PLACE}")
        module.commands.append(what)
        if what == MAKE:
            module.PYTHON.parent.mkdir(parents=True, exist_ok=True)
            module.PYTHON.touch()
        answer = module.answers.get(what, 0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(subprocess, "call", call)
    monkeypatch.setattr(
        subprocess, "run", lambda *of, **how: subprocess.CompletedProcess(*of, call(*of, **how), b"", b"no")
    )
    return module


MAKE, LOOK, INSTALL = "-m venv", "-m pip --version", "-m pip install"


def test_an_environment_is_made_once_and_looked_at_no_more(setup):
    setup.install("dev")
    assert setup.commands == [MAKE, INSTALL]
    setup.install("dev")
    assert setup.commands == [MAKE, INSTALL]
    setup.install()  # other extras
    assert setup.commands == [MAKE, INSTALL, LOOK, INSTALL]
    os.utime(setup.ROOT / "constraints.txt")
    os.utime(setup.PLACE / ".installed-core", (1, 1))
    setup.install()  # other versions
    assert setup.commands[4:] == [LOOK, INSTALL]


def test_an_environment_whose_making_was_interrupted_is_made_whole(setup):
    setup.PYTHON.parent.mkdir(parents=True)
    setup.PYTHON.touch()
    setup.answers[LOOK] = 1  # "No module named pip"
    setup.install()
    assert setup.commands == [LOOK, MAKE, INSTALL]


@pytest.mark.parametrize("when", [MAKE, INSTALL])
def test_an_interruption_is_a_line_and_the_same_command_goes_on(when, setup, capfd):
    setup.answers[when] = KeyboardInterrupt()
    with pytest.raises(SystemExit) as ended:
        setup.install()
    assert ended.value.code == 130
    assert capfd.readouterr().err.splitlines()[-1] == "Interrupted. The same command goes on."
    setup.answers.clear()
    setup.install()
    assert setup.commands[-1] == INSTALL


def test_what_cannot_be_installed_ends_with_pips_status_and_is_tried_again(setup, capfd):
    setup.answers[INSTALL] = 3
    with pytest.raises(SystemExit) as ended:
        setup.install()
    assert ended.value.code == 3
    assert not list(setup.PLACE.glob(".installed-*"))
    setup.answers[MAKE], setup.PYTHON = 1, setup.PYTHON.with_name("none")
    with pytest.raises(SystemExit, match="python3-venv"):
        setup.install()
    assert capfd.readouterr().err.endswith("no")  # what Python said


def test_a_command_that_a_script_became_is_told_how_it_was_called(setup, monkeypatch):
    """What an interrupted demo says is typed where the user is, who has no `byzopt` on the path."""
    from byzopt.cli.again import GIVEN, same_command

    became = []

    def become(path, command):
        became.extend(command)
        raise SystemExit  # who becomes another program does not return

    monkeypatch.setattr(os, "execv", become)
    monkeypatch.setattr(os, "chdir", lambda place: None)
    for name in (GIVEN, "VIRTUAL_ENV", "PATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    monkeypatch.setattr(sys, "argv", ["scripts/demo.py", "--set", "rounds = 5", "--fresh"])
    with pytest.raises(SystemExit):
        setup.become("byzopt", "run", "byz-nsgdm/digits", *sys.argv[1:])
    assert became[1:4] == ["-m", "byzopt", "run"]
    assert same_command(without=["--fresh"]) == "python3 scripts/demo.py --set 'rounds = 5'"
    monkeypatch.delenv(GIVEN)
    monkeypatch.setattr(sys, "argv", ["byzopt", "run", "mine.toml"])
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert same_command() == "/usr/bin/python3 -m byzopt run mine.toml"
    monkeypatch.setattr("shutil.which", lambda name: "/somewhere/byzopt")
    assert same_command() == "byzopt run mine.toml"
