"""byzopt.flower without flwr."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
sys.modules["flwr"] = None  # as if it were not installed
import byzopt
from byzopt.errors import MissingExtra
try:
    import byzopt.flower
except MissingExtra as error:
    print(error)
"""


def test_the_error_names_the_extra_in_one_line():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert 'pip install "byzopt[flower]"' in done.stdout
