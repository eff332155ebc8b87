"""Components of other packages, found by their entry points."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_rule"


def installed(place: Path, name: str, module: Path | str, entry: str) -> Path:
    """A folder like site-packages in which the package lies, with what pip would write beside it."""
    info = place / f"{name}-1.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text(f"[byzopt.plugins]\n{name} = {entry}\n")
    if isinstance(module, Path):
        shutil.copy(module, place)
    else:
        (place / f"{name}.py").write_text(module)
    return place


@pytest.fixture
def own(tmp_path):
    return installed(tmp_path / "site", "own_rule", EXAMPLE / "own_rule.py", "own_rule")


def python(place, *arguments, ok=True):
    path = os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode == 0) == ok, done.stderr
    return done


@pytest.mark.slow
def test_an_installed_rule_has_a_name_in_specs(own, tmp_path):
    given = ["--set", "rounds=30", "--out", str(tmp_path / "out"), "--json"]
    done = python(own, "-m", "byzopt", "run", str(EXAMPLE / "spec.toml"), *given)
    result = json.loads(done.stdout)
    assert result["accuracy"] > 0.7 > 0.4 > result["compare"]["mean"]["accuracy"]


@pytest.mark.slow
def test_it_stands_in_lists_and_chains_and_is_robust(own):
    code = """
import torch
from byzopt.aggregators import rule_from
from byzopt.cli import main
rows = torch.randn(10, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
rows[7:] = 1e9
for text in ("ball", "nnm >> ball", "fail_closed(rule='ball')"):
    assert rule_from(text, f=3)(rows).norm() < 10, text
main(["list", "rules", "--json"])
"""
    listed = json.loads(python(own, "-c", code).stdout)["rules"]
    (ball,) = [rule for rule in listed if rule["name"] == "ball"]
    assert ball["parameters"] == {"f": "required"}


def test_known_names_load_no_plugin_and_unknown_ones_are_still_unknown(tmp_path):
    place = installed(tmp_path / "site", "loud", "print('loaded')\n", "loud")
    known, typo = "rule_from('nnm >> krum', f=1); print('known')", "rule_from('krumm', f=1)"
    found = python(place, "-c", f"from byzopt.aggregators import rule_from; {known}; {typo}", ok=False)
    assert found.stdout == "known\nloaded\n"
    assert "Did you mean 'krum'" in found.stderr


@pytest.mark.slow
def test_a_broken_plugin_is_a_warning(tmp_path):
    place = installed(tmp_path / "site", "broken", "import nothing_of_this_name\n", "broken")
    found = python(place, "-m", "byzopt", "list", "rules")
    assert "krum" in found.stdout
    assert "plugin 'broken' (broken) cannot be loaded" in found.stderr
