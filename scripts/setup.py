"""Make .venv in the repository root and install byzopt into it, as it stands in src/ (an editable install).

    python scripts/setup.py [EXTRAS]      for instance dev, or dev,flower

Standard library only, and readable by any Python 3, so that one that is too old says what is wanted.
The environment is of the Python that runs this.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".venv"
BIN = PLACE / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")


def install(extras=""):
    """Bring .venv up to date. What is installed is only looked at again when it would be another thing."""
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"byzopt needs Python 3.11 or newer. Found: {found} at {sys.executable}.")
    stamp = PLACE / (".installed-" + (extras or "core"))
    wanted = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    made = PYTHON.exists() and stamp.exists()
    if made and all(path.stat().st_mtime <= stamp.stat().st_mtime for path in wanted):
        return
    try:
        _install(extras)
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on.", file=sys.stderr)
        sys.exit(130)
    stamp.touch()


def _install(extras):
    print("Installing byzopt into .venv (a minute or two, the first time) ...", file=sys.stderr, flush=True)
    if not _has_pip():
        made = subprocess.run([sys.executable, "-m", "venv", str(PLACE)], stderr=subprocess.PIPE)
        if made.returncode:
            sys.stderr.buffer.write(made.stderr)
            sys.exit("Could not create .venv. On Debian and Ubuntu install the package python3-venv first.")
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    what = ["--constraint", "constraints.txt", "--editable", f".[{extras}]" if extras else "."]
    failed = subprocess.call(pip + what, cwd=str(ROOT))
    if failed:
        sys.exit(failed)


def _has_pip():
    """Whether .venv is whole: without pip it is one whose making was interrupted, or failed."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return PYTHON.exists() and not subprocess.call([str(PYTHON), "-m", "pip", "--version"], **quiet)


def become(module, *arguments):
    """Go on as `python -m module arguments` of .venv, in the repository root; never returns.

    byzopt is told by which command it was begun, for where it says how to go on.
    """
    if module == "byzopt":
        os.environ["BYZOPT_COMMAND"] = shlex.join([Path(sys.executable).name, *sys.argv])
    os.chdir(str(ROOT))
    os.environ["VIRTUAL_ENV"] = str(PLACE)
    os.environ["PATH"] = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    command = [str(PYTHON), "-m", module, *arguments]
    if os.name != "nt":
        os.execv(command[0], command)  # signals reach the command itself
    with subprocess.Popen(command) as process:  # there the shell would not wait for an exec'ed process
        while True:
            try:
                sys.exit(process.wait())
            except KeyboardInterrupt:
                continue  # the command was interrupted too, and says how it ends


if __name__ == "__main__":
    install(*sys.argv[1:])
    print(f"Ready: {PYTHON}")
