"""Pass the tests.

    python scripts/test.py [OPTIONS of pytest]

Creates .venv if need be. `-m slow` has the tests that train for long, `-m "slow or not slow"` all. Tests on
real data run where BYZOPT_DATA_DIR (or the cache) holds it, and say so where they are skipped.
"""

import os
import sys

from setup import become, install

if __name__ == "__main__":
    install("dev")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Without bytecode on disk each of the many processes that tests start would compile all of byzopt again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    become("pytest", "-n", "auto", "--dist", "worksteal", *sys.argv[1:])
