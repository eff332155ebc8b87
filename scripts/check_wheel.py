"""Build the wheel, install it in a clean environment, and run the demo from there, away from the checkout.

    python scripts/check_wheel.py [--all]

So it goes with each Python of `VERSIONS` that is on this machine. On Linux with x86-64 the package index has
PyTorch with CUDA only, several gigabytes: with a Python for which pip knows no other build (`--find-links`),
everything but PyTorch is installed and the commands that need none are run. `--all` downloads it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13")
ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ["--constraint", str(ROOT / "constraints.txt")]


def main() -> None:
    """Check every Python; the first thing that fails ends it."""
    with tempfile.TemporaryDirectory() as place:
        dist = Path(place) / "dist"
        called([sys.executable, "-m", "build", "--outdir", dist, ROOT], ROOT)  # the wheel from the sdist
        (wheel,) = dist.glob("*.whl")
        for version in VERSIONS:
            python = interpreter(version)
            if python is None:
                print(f"Python {version}: not on this machine, skipped", flush=True)
            else:
                checked(version, python, wheel, Path(place))


def checked(version: str, python: str, wheel: Path, place: Path) -> None:
    """Install and run the wheel with one Python."""
    home, work = place / f"venv-{version}", place / f"work-{version}"
    called([python, "-m", "venv", home], place)
    work.mkdir()
    own = home / ("Scripts" if os.name == "nt" else "bin")
    whole = "--all" in sys.argv or small_torch(own / "python")
    wanted = [str(wheel)] if whole else ["--no-deps", str(wheel)]
    pip = [own / "python", "-m", "pip", "install", "--quiet", "--no-compile", *CONSTRAINTS]
    if not whole:
        called([*pip, *(need for need in needs(wheel) if not need.startswith("torch"))], work)
    called([*pip, *wanted], work)
    called([own / "byzopt", "--version"], work)
    called([own / "python", "-m", "compileall", "-q", package(own / "python", work)], work)
    if whole:
        demo(own / "byzopt", work)
    did = "installed, demo and report run" if whole else "installed without PyTorch (CUDA only), compiled"
    print(f"Python {version}: {did}", flush=True)


def demo(byzopt: Path, work: Path) -> None:
    """The demo and a page of its results: presets, templates and figures of the installed package."""
    told = json.loads(called([byzopt, "run", "byz-nsgdm/digits", "--json"], work))
    assert told["accuracy"] > 0.9 > told["compare"]["undefended mean"]["accuracy"], told
    assert (work / told["out"] / "curves.png").exists(), told
    called([byzopt, "report", "byzopt-runs", "--html"], work)
    assert (work / "byzopt-runs" / "report" / "index.html").exists()


def package(python: Path, work: Path) -> str:
    """Where the package is that this Python imports: in its own environment."""
    found = called([python, "-c", "import byzopt; print(byzopt.__path__[0])"], work).strip()
    assert Path(found).is_relative_to(python.parents[1]), found
    return found


def needs(wheel: Path) -> list[str]:
    """What the wheel says that it needs, without extras."""
    with zipfile.ZipFile(wheel) as content:
        (name,) = (name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
        told = HeaderParser().parsestr(content.read(name).decode("utf-8"))
    return [need for need in told.get_all("Requires-Dist", []) if "extra ==" not in need]


def small_torch(python: Path) -> bool:
    """Whether pip has a build of PyTorch without CUDA for this Python."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return True
    asked = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--no-index", "--no-deps", *CONSTRAINTS]
    return subprocess.run([*asked, "torch"], capture_output=True, env=environment()).returncode == 0


def interpreter(version: str) -> str | None:
    """A Python of this version that can make environments, on PATH or from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = [shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")]
    asked = "import ensurepip, venv, sys; print('%d.%d' % sys.version_info[:2])"
    for python in map(str, filter(None, found)):
        told = subprocess.run([python, "-c", asked], capture_output=True, text=True)
        if told.returncode == 0 and told.stdout.strip() == version:
            return python
    return None


def called(command: list[str | Path], place: Path) -> str:
    """What a command prints on standard output. One that fails shows all it said, and ends this."""
    words = list(map(str, command))
    told = subprocess.run(words, cwd=place, capture_output=True, text=True, env=environment())
    if told.returncode:
        sys.exit(f"{' '.join(words)}\n{told.stdout}{told.stderr}\nexit status {told.returncode}")
    return told.stdout


def environment() -> dict[str, str]:
    """The variables of this process, without those that lead Python to another package."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in ours}


if __name__ == "__main__":
    main()
