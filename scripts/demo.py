"""Train on embedded data while 3 of 20 workers lie, beside plain averaging and the run without attack.

    python scripts/demo.py [OPTIONS of byzopt run]

Creates .venv if need be. Run again, it shows the finished run (or use --fresh).
"""

import sys

from setup import become, install

if __name__ == "__main__":
    install()
    become("byzopt", "run", "byz-nsgdm/digits", *sys.argv[1:])
