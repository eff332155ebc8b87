"""Complete programs, plain and hardened, of frameworks where these are installed (extra `frameworks`)."""

from __future__ import annotations

import importlib.util
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "frameworks"
spec = importlib.util.spec_from_file_location("compare", EXAMPLES / "compare.py")
compare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compare)


def test_every_program_of_the_folder_is_compared():
    shared = {"compare", "digits"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} - shared == {p[0] for p in compare.PROGRAMS.values()}


@pytest.mark.slow
@pytest.mark.parametrize("name", compare.PROGRAMS)
def test_a_program_trains_on_where_one_of_four_ranks_lies(name):
    needs = compare.PROGRAMS[name][1]
    if find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed.")
    hardened, undefended = (compare.accuracy(name, way) for way in ("hardened", "faulty"))
    least = 0.2 if name == "gpt" else 0.7  # of 65 characters, of ten digits
    assert hardened > least
    assert undefended < least / 2


@pytest.mark.slow
def test_with_torchft_a_killed_replica_counts_against_f_and_the_others_train_on():
    pytest.importorskip("torchft", reason="needs torchft")
    said = compare.printed("torchft", ["--faulty", "--killed", "-f", "2"], ranks=5)
    accuracy, present, n = re.findall(r"accuracy ([0-9.]+) with (\d) of (\d) replicas", said)[-1]
    assert (present, n) == ("4", "5")
    assert float(accuracy) > 0.7
