"""The package without what Python lacks on Windows: everything is imported, and commands do their work.

`tests/windows/sitecustomize.py` takes those things away. `.ci/run` checks types for Windows and macOS, too.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
SPEC = 'task = "quartic"\nrounds = 20\nlr = 0.1\nrule = "nnm >> krum"\nattack = "alie"\n'
GRID = 'name = "small"\nbase = "small.toml"\n[grid]\nrule = ["mean", "median"]\nseed = [0, 1]\n'


def python(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python process that lacks what Windows lacks, in a directory of its own."""
    path = os.pathsep.join(map(str, (TESTS / "windows", ROOT / "src")))
    environment = os.environ | {"PYTHONPATH": path, "XDG_CACHE_HOME": str(place / "cache")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=place, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A directory with a spec and a sweep."""
    place = tmp_path_factory.mktemp("windows")
    (place / "small.toml").write_text(SPEC)
    (place / "small.sweep.toml").write_text(GRID)
    return place


REFUSED = (
    "import fcntl",
    "import os; os.fork",
    "from os import getuid",
    "import signal; signal.SIGKILL",
    "import multiprocessing; multiprocessing.get_context('fork')",
)
STAND_IN = f"""
import sys
for text in {REFUSED!r}:
    exec(text, {{"__name__": "other"}})
    try:
        exec(text, {{"__name__": "byzopt.some_module"}})
    except (ImportError, AttributeError, ValueError):
        pass
    else:
        raise AssertionError(text)
"""


def test_the_stand_in_for_windows_refuses_byzopt_what_is_not_there(place):
    assert python(place, "-c", STAND_IN).stderr == ""


IMPORTING = """
import contextlib, importlib, pkgutil, sys
import byzopt
from byzopt.errors import MissingExtra
for found in pkgutil.walk_packages(byzopt.__path__, "byzopt.", onerror=lambda name: None):
    if found.name != "byzopt.__main__":
        with contextlib.suppress(MissingExtra):
            importlib.import_module(found.name)
seen = {name.split(".")[1] for name in sys.modules if name.startswith("byzopt.")}
from byzopt.experiments.sweeps import cores
print(sorted(seen), cores.available_cores() >= 1, cores.sys.platform, hasattr(cores.os, "fork"))
"""


def test_every_module_is_imported_without_what_windows_lacks(place):
    done = python(place, "-c", IMPORTING)
    assert done.returncode == 0, done.stderr
    assert "'aggregators', 'attacks'" in done.stdout
    assert done.stdout.endswith("True win32 False\n")


@pytest.mark.slow
def test_a_run_is_stored_and_shown_without_what_windows_lacks(place):
    done = python(place, "-m", "byzopt", "run", "small.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"]
    (stored,) = place.glob("byzopt-runs/small-*")
    assert {path.name for path in stored.iterdir()} >= {"spec.toml", "records.parquet", "result.json"}


@pytest.mark.slow
def test_a_sweep_in_processes_of_its_own_is_stored_and_reported_without_what_windows_lacks(place):
    done = python(place, "-m", "byzopt", "sweep", "small.sweep.toml", "--jobs", "2", "--store", "store")
    assert done.returncode == 0, done.stderr
    assert len(list(place.glob("store/*/result.json"))) == 4
    assert not list(place.glob("store/claims/*"))
    done = python(place, "-m", "byzopt", "report", "store")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["setup", "demo", "test", "site"])
def test_a_python_that_is_too_old_can_read_the_scripts_and_so_say_it(name):
    ast.parse((ROOT / "scripts" / f"{name}.py").read_text(encoding="utf-8"), feature_version=(3, 7))


@pytest.mark.parametrize("name", ["demo", "test", "site"])
def test_bash_scripts_only_call_the_python_script_of_their_name(name):
    lines = (ROOT / "scripts" / name).read_text(encoding="utf-8").splitlines()
    assert lines == [
        "#!/usr/bin/env bash",
        f'exec "${{PYTHON:-python3}}" "$(dirname "${{BASH_SOURCE[0]}}")/{name}.py" "$@"',
    ]
