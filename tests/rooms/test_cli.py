"""The command: one line and status 2 for every bad input, pure JSON, interruption, lists."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from byzopt.cli.options import KEYS
from byzopt.experiments import Spec, run
from byzopt.experiments.specs.loading import load, presets

SPEC = """\
task = "quartic"
rule = "nnm >> krum"
attack = "bit_flip"
rounds = 10
lr = 0.1

[compare.undefended]
rule = "mean"
"""


@pytest.fixture(autouse=True)
def place(here):
    """A working directory with `spec.toml` in it and nothing else."""
    (here / "spec.toml").write_text(SPEC)
    return here


def settings(*pairs: str) -> list[str]:
    return ["spec.toml", *[word for pair in pairs for word in ("--set", pair)]]


BAD = {
    "an unknown preset": ["byz-nsgdm/digitz"],
    "a missing file": ["nowhere.toml"],
    "a directory": ["."],
    "an unknown key": settings("taks=quartic"),
    "an unknown key of a component": settings("task.dim=3"),
    "an unknown name": settings("attack=alieee"),
    "f too large for the rule": settings("f=9"),
    "f too large for n": settings("n=5"),
    "a rate that is not a number": settings("lr=nan"),
    "an infinite rate": settings("lr=inf"),
    "a text for a number": settings("lr=fast"),
    "a truth value for a number": settings("rounds=true"),
    "no rounds": settings("rounds=0"),
    "a bad parameter": settings("method.eta=2"),
    "an attack that needs labels": settings("attack=label_flip"),
    "a variant that cannot run": settings("compare.undefended.attack=label_flip"),
    "a setting that is none": settings("lr"),
    "missing data": settings("task=mnist"),
    "an unknown stopping figure": settings("stop.los=1"),
    "an unknown option": ["spec.toml", "--sett", "lr=1"],
    "no spec": [],
}


@pytest.mark.parametrize("words", BAD.values(), ids=list(BAD))
def test_bad_input_is_one_line_and_status_2_and_nothing_is_written(words, byzopt, place, monkeypatch):
    monkeypatch.setenv("BYZOPT_DATA_DIR", str(place / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "none"))
    said = byzopt("run", *words)
    assert said.status == 2
    assert said.err.startswith("byzopt: error: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    assert said.out == ""
    assert [path.name for path in place.iterdir()] == ["spec.toml"]


def test_files_that_are_no_specs_are_refused_in_one_line(byzopt, place):
    for content in (b"n = ", b"\xff", b"", b"n = 3\nn = 4", b"[task]\n[task]"):
        (place / "spec.toml").write_bytes(content)
        said = byzopt("run", "spec.toml")
        assert (said.status, said.err.count("\n"), said.out) == (2, 1, "")
    assert [path.name for path in place.iterdir()] == ["spec.toml"]


def test_a_run_shows_a_table_and_keeps_curves_and_records(byzopt, place):
    said = byzopt("run", "spec.toml", "--out", "here")
    assert said.status == 0
    assert "undefended" in said.out
    assert "completed" in said.out
    assert f"Curves: {place / 'here' / 'curves.png'}" in said.out
    names = {path.name for path in (place / "here").iterdir()}
    assert names == {"spec.toml", "records.parquet", "result.json", "curves.png"}
    assert "main: round 10/10" in said.err


def test_the_default_directory_is_named_after_the_spec_and_its_id(byzopt, place):
    byzopt("run", "spec.toml")
    name = f"spec-{load('spec.toml').id[:8]}"
    assert (place / "byzopt-runs" / name / "result.json").exists()
    assert byzopt("run", "spec.toml", "--store", "all").status == 0
    assert (place / "all" / name / "result.json").exists()
    both = byzopt("run", "spec.toml", "--store", "all", "--out", "here")
    assert (both.status, "Option --store should go without --out" in both.err) == (2, True)


def test_json_is_one_object_and_nothing_else(byzopt):
    said = byzopt("run", *settings("compare.undefended.attack=nan"), "--json", "--out", "here")
    found = json.loads(said.out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert said.out.count("\n") == 1
    assert {"status", "rounds", "loss", "grad_norm", "seconds", "out", "id", "compare"} <= set(found)
    assert (found["status"], found["rounds"], found["out"]) == ("completed", 10, "here")
    assert found["compare"]["undefended"]["status"] == "no_majority"
    assert found["loss"] == run("spec.toml").metrics["loss"]


def test_figures_that_are_not_finite_are_null(byzopt):
    words = settings("method=robust_sgdm", "lr=1e200", "rule=mean", "eval_every=1")
    found = json.loads(byzopt("run", *words, "--json", "--no-compare").out)
    assert found["status"] in ("diverged", "nonfinite")
    assert found["loss"] == pytest.approx(100)


def test_no_compare_leaves_the_variants_out(byzopt):
    assert json.loads(byzopt("run", "spec.toml", "--json", "--no-compare").out)["compare"] == {}


def test_the_same_command_shows_a_finished_run_again_and_fresh_repeats_it(byzopt, place):
    first = byzopt("run", "spec.toml", "--out", "here")
    result = place / "here" / "result.json"
    stamp = result.stat().st_mtime_ns
    again = byzopt("run", "spec.toml", "--out", "here")
    assert (again.status, again.out, again.err) == (0, first.out, "")
    assert result.stat().st_mtime_ns == stamp
    assert byzopt("run", "spec.toml", "--out", "here", "--fresh").status == 0
    assert result.stat().st_mtime_ns > stamp


def test_a_directory_of_another_spec_is_refused(byzopt):
    byzopt("run", "spec.toml", "--out", "here")
    said = byzopt("run", *settings("seed=1"), "--out", "here")
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert "--out" in said.err


KILLED = """
import os, signal
from dataclasses import dataclass
from pathlib import Path
from byzopt import BitFlip

@dataclass(frozen=True)
class Killed(BitFlip):
    def forge(self, view, generator):
        if view.t == 40 and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.{})
        return super().forge(view, generator)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_keeps_a_checkpoint_and_the_same_command_goes_on_bit_for_bit(number, byzopt, place):
    (place / "own.py").write_text(KILLED.format(number.name))
    words = [*settings("rounds=60", "eval_every=10", "attack=own.py:Killed"), "--no-compare", "--out", "here"]
    command = [sys.executable, "-m", "byzopt", "run", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 130, done.stderr
    assert re.search(r"go on with: .*byzopt run spec\.toml", done.stderr.splitlines()[-1])
    assert {path.name for path in (place / "here").iterdir()} == {"spec.toml", "checkpoint.pt"}
    assert byzopt("run", *words).status == 0
    changes = ["rounds=60", "eval_every=10", "attack=own.py:Killed"]
    whole = run(load("spec.toml", changes, compare=False), out="whole")
    assert whole.main.rounds == 60
    assert Path("here/records.parquet").read_bytes() == Path("whole/records.parquet").read_bytes()


@pytest.mark.parametrize("kind", ["rules", "pre_aggregators", "attacks", "methods", "tasks", "presets"])
def test_a_list_names_every_component_with_its_parameters(kind, byzopt):
    found = json.loads(byzopt("list", kind, "--json").out)
    assert list(found) == [kind]
    assert all(one["name"] and one["summary"] for one in found[kind])
    text = byzopt("list", kind).out
    assert all(one["name"] in text for one in found[kind])


def test_lists_hold_what_the_registries_hold(byzopt):
    found = json.loads(byzopt("list", "--json").out)
    assert {one["name"] for one in found["presets"]} == set(presets())
    (krum,) = [one for one in found["rules"] if one["name"] == "krum"]
    assert krum["parameters"]["f"] == "required"
    (nsgdm,) = [one for one in found["methods"] if one["name"] == "byz_nsgdm"]
    assert nsgdm["parameters"]["schedule"] == {"name": "inverse_sqrt"}
    assert byzopt("list", "rulez").status == 2


def test_curves_against_rounds_gradients_or_bits(byzopt):
    seen = set()
    for axis in ("rounds", "gradients", "bits"):
        assert byzopt("run", "spec.toml", "--out", "here", "--axis", axis).status == 0
        seen.add(Path("here/curves.png").read_bytes())
    assert len(seen) == 3
    failed = byzopt("run", "spec.toml", "--axis", "bit")
    assert failed.status == 2
    assert "should be one of 'rounds', 'gradients', 'bits'. Found 'bit'." in failed.err


def test_doctor_shows_versions_devices_and_data(byzopt):
    found = json.loads(byzopt("doctor", "--json").out)
    assert {"python", "packages", "devices", "threads", "data", "extras"} <= set(found)
    assert {"kernels", "kernels on a GPU"} <= set(found)
    assert {"digits", "mnist", "shakespeare"} <= set(found["data"])
    text = byzopt("doctor").out
    assert found["packages"]["torch"] in text


def test_settings_may_follow_one_set(byzopt):
    words = ("spec.toml", "--set", "rounds=3", "attack.name=alie", "seed=4", "--no-compare", "--json")
    told = json.loads(byzopt("run", *words).out)
    want = load("spec.toml", ["rounds=3", "attack.name=alie", "seed=4"], compare=False)
    assert (told["rounds"], told["id"]) == (3, want.id)


def test_what_belongs_to_another_command_says_to_which(byzopt, place):
    (place / "grid.toml").write_text('name = "mine"\nbase = "spec.toml"\n[grid]\nseed = [0, 1]\n')
    for words, remedy in (
        (["run", "byz-nsgdm/digits-grid"], "`byzopt sweep byz-nsgdm/digits-grid`"),
        (["run", "grid.toml"], "`byzopt sweep grid.toml`"),
        (["sweep", "byz-nsgdm/digits"], "`byzopt run byz-nsgdm/digits`"),
        (["sweep", "spec.toml"], "`byzopt run spec.toml`"),
        (["run", "spec.toml", "--seed", "1"], "--set seed=1"),
        (["sweep", "grid.toml", "--attack.name=alie"], "--set attack.name=alie"),
        (["explain", "spec.toml", "-n", "9"], "--set n=9"),
    ):
        said = byzopt(*words)
        assert (said.status, said.out, len(said.err.splitlines())) == (2, "", 1)
        assert remedy in said.err
    assert "--set" not in byzopt("list", "--seed", "1").err
    assert set(KEYS) == {field.name for field in fields(Spec)}


def test_the_command_alone_shows_its_help(byzopt):
    said = byzopt()
    assert (said.status, said.err) == (2, "")
    assert said.out == byzopt("--help").out
    assert len(said.out.splitlines()) > 10


def test_help_and_import_do_not_load_torch():
    for code in ("import byzopt", "import byzopt.cli"):
        check = f"import sys; {code}; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_stored_spec_is_the_spec(byzopt):
    byzopt("run", "spec.toml", "--out", "here")
    assert load("here/spec.toml").id == load("spec.toml").id
    assert isinstance(load("here/spec.toml"), Spec)


def test_the_version_is_told(byzopt):
    from byzopt import __version__

    assert byzopt("--version").out == f"byzopt {__version__}\n"
