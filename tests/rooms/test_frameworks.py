"""Other people's training loops, hardened: where the frameworks are installed (extra `frameworks`)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "frameworks"
KINDS = {"lightning": "lightning", "accelerate": "accelerate", "trainer": "transformers"}
pytestmark = pytest.mark.slow


def accuracy(kind: str, *options: str) -> float:
    """What the example prints when four ranks train, one of whom sends -10 times its gradient."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    done = subprocess.run(
        [*command, str(EXAMPLES / f"{kind}_digits.py"), "--faulty", *options],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return float(re.findall(r"accuracy ([0-9.]+)", done.stdout)[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_framework_trains_on_where_one_of_four_ranks_lies(kind):
    if find_spec(KINDS[kind]) is None:
        pytest.skip(f"{KINDS[kind]} is not installed.")
    assert accuracy(kind) > 0.7
    assert accuracy(kind, "--undefended") < 0.4
