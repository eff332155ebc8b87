"""What a release consists of: every file of the package is in the wheel, every other in the sdist."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import byzopt

pytest.importorskip("hatchling")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A directory with both archives."""
    place = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(place)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return place


def ours(*folders: str) -> set[str]:
    """The files of the repository below these folders."""
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    if told.returncode:
        pytest.skip("this is no checkout: git says which files belong to it")
    return {name for name in told.stdout.splitlines() if (ROOT / name).exists()}


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = {name for name in content.namelist() if ".dist-info/" not in name}
    assert names == {name.removeprefix("src/") for name in ours("src")}
    assert {Path(name).suffix for name in names} >= {".py", ".typed", ".toml", ".j2"}


def test_the_sdist_holds_every_file_of_the_repository(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    assert not ours() - names


def test_the_version_stands_in_one_place(built):
    (wheel,) = built.glob("*.whl")
    assert wheel.name.startswith(f"byzopt-{byzopt.__version__}-")
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "version:" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8").replace("cff-version:", "")
