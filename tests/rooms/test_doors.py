"""Every option with values that it cannot have, and every place that cannot be written."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from byzopt.cli.commands import app
from byzopt.errors import InvalidInput
from byzopt.experiments.running import run
from byzopt.experiments.specs.loading import load
from byzopt.experiments.store.directories import check_directory, explain_refused_writes

SPEC = 'task = "quadratic"\nrule = "mean"\nn = 5\nf = 1\nrounds = 20\nlr = 0.1\n'
SWEEP = 'base = "spec.toml"\ngrid = {seed = [0, 1]}\n'
LONG = "x" * 300


@pytest.fixture
def place(here, monkeypatch):
    """A working directory with a spec, a sweep and an ordinary file in it."""
    (here / "spec.toml").write_text(SPEC)
    (here / "sweep.toml").write_text(SWEEP)
    (here / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(here.parent / "cache"))
    return here


DIRECTORIES = ["", "file", "file/below", LONG, f"new/{LONG}", "x/" * 3_000, "/proc/new", "/dev/null", "link"]
NUMBERS = ["x", "", "-1", "1.5", "nan", "1" + "0" * 25, "1" * 5_000, "٣ 4"]
COUNTS = [*NUMBERS, "0"]
SETTINGS = [
    "",
    "x",
    "=1",
    "n=",
    "n=x",
    "seed=-1",
    "n=-5",
    "f=3",
    "taks=1",
    "rule={name=[]}",
    "lr=nan",
    "n=" + "[" * 9_999,
]
FILES = ["", "nowhere.toml", ".", LONG, "file", "/dev/zero", "byz-nsgdm/digitz", "\udcff"]
COMPONENTS = [
    "",
    "x",
    "{",
    "{}",
    "[]",
    '{"name": 1}',
    '{"name": "alie", "z": NaN}',
    "{" * 9_999,
    '{"a":' * 9_999,
]
BREAK = ["break", "krum", "--n", "7", "--f", "2"]
# Every option of every command: how the rest of the line reads, and values that are refused.
OPTIONS: dict[tuple[str, str], tuple[list[str], list[str]]] = {
    ("run", "spec"): (["run"], FILES),
    ("run", "more"): (["run", "spec.toml"], SETTINGS),
    ("run", "--set"): (["run", "spec.toml"], SETTINGS),
    ("run", "--out"): (["run", "spec.toml"], [*DIRECTORIES, "."]),
    ("run", "--store"): (["run", "spec.toml"], DIRECTORIES),
    ("run", "--engine"): (["run", "spec.toml"], ["", "x", "ray", "Simulated"]),
    ("run", "--processes"): (["run", "spec.toml", "--engine", "torchrun"], [*COUNTS, "6", "1000000"]),
    ("run", "--axis"): (["run", "spec.toml"], ["", "x", "Rounds"]),
    ("sweep", "sweep"): (["sweep"], [*FILES, "spec.toml"]),
    ("sweep", "--set"): (["sweep", "sweep.toml"], [*SETTINGS, "seed=[]", "seed.x=1"]),
    ("sweep", "--store"): (["sweep", "sweep.toml", "--jobs", "0"], DIRECTORIES),
    ("sweep", "--jobs"): (["sweep", "sweep.toml", "--dry-run"], NUMBERS),
    ("sweep", "--backend"): (["sweep", "sweep.toml", "--dry-run"], ["", "x", "simulated"]),
    ("sweep", "--engine"): (["sweep", "sweep.toml", "--dry-run"], ["", "x", "simulated"]),
    ("sweep", "--checkpoint-every"): (
        ["sweep", "sweep.toml", "--dry-run"], ["x", "", "0", "-1", "nan", "inf"]
    ),
    ("sweep", "--tensorboard"): (["sweep", "sweep.toml", "--jobs", "0"], ["", "file", LONG]),
    ("query", "store"): (["query"], ["", "nowhere", "file", LONG, "/dev/null"]),
    ("query", "--where"): (["query", "stored"], ["", "x", "=1", "nothing=1", "lr>>1"]),
    ("query", "--columns"): (["query", "stored"], ["", ",", "lr,", "nothing", "lr,nothing"]),
    ("query", "--csv"): (["query", "stored", "--json"], [None]),
    ("report", "store"): (["report"], ["", "nowhere", "file", LONG]),
    ("report", "--out"): (["report", "stored"], [one for one in DIRECTORIES if not one.startswith("/proc")]),
    ("report", "--target"): (
        ["report", "stored"],
        ["", "x", "=1", "loss=", "loss=x", "loss=nan", "loss=inf", "no=1", "accuracy=90"],
    ),
    ("reproduce", "name"): (["reproduce"], [*FILES, "spec.toml"]),
    ("reproduce", "--seeds"): (
        ["reproduce", "byz-nsgdm/table1", "--dry-run"], ["", "x", "-1", "0,0", "1.5", "1,,2", "1" * 40]
    ),
    ("reproduce", "--cells"): (["reproduce", "byz-nsgdm/table1", "--dry-run"], ["", "x", "quartic,x"]),
    ("reproduce", "--store"): (["reproduce", "byz-nsgdm/table1", "--quick"], ["", "file", LONG]),
    ("reproduce", "--out"): (["reproduce", "byz-nsgdm/table1", "--quick"], ["", "file", LONG]),
    ("reproduce", "--checkpoint-every"): (
        ["reproduce", "byz-nsgdm/table1", "--dry-run"], ["x", "", "0", "-1", "nan", "inf"]
    ),
    ("reproduce", "--jobs"): (["reproduce", "byz-nsgdm/table1", "--dry-run"], NUMBERS),
    ("list", "kind"): (["list"], ["", "x", "Rules"]),
    ("break", "rule"): (
        ["break", "--n", "7", "--f", "2"], ["", "x", "krum(", "nnm", "krum(f=99)", "mean >> mean"]
    ),
    ("break", "--n"): (["break", "krum", "--f", "2"], [*COUNTS, "4", "5"]),
    ("break", "--f"): (["break", "krum", "--n", "7"], [*NUMBERS, "4", "3"]),
    ("break", "--d"): (BREAK, COUNTS),
    ("break", "--task"): (BREAK, COMPONENTS),
    ("break", "--seed"): (BREAK, NUMBERS),
    ("break", "--trials"): (BREAK, COUNTS),
    ("break", "--budget"): (BREAK, COUNTS),
    ("break", "--search"): (BREAK, ["", "x", "Rows"]),
    ("break", "--ledger"): (BREAK, DIRECTORIES),
    ("break", "--attack"): (BREAK, COMPONENTS),
    ("break", "--rows"): (BREAK, ["", "x", "gaussian"]),
    ("stress", "spec"): (["stress"], FILES),
    ("stress", "--set"): (["stress", "spec.toml"], SETTINGS),
    ("stress", "--threat"): (["stress", "spec.toml"], ["", "x", "Omniscient"]),
    ("stress", "--attacks"): (["stress", "spec.toml"], ["x", "alie; x"]),
    ("stress", "--seeds"): (["stress", "spec.toml"], COUNTS),
    ("stress", "--budget"): (["stress", "spec.toml"], ["", "x", "-1s", "nans", "0s"]),
    ("stress", "--at-least"): (["stress", "spec.toml"], ["", "x", "90", "nan"]),
    ("stress", "--jobs"): (["stress", "spec.toml", "--budget", "0.1s"], NUMBERS),
    ("stress", "--store"): (["stress", "spec.toml", "--jobs", "0"], DIRECTORIES),
    ("benchmark run", "entries"): (["benchmark", "run"], ["", "nowhere", "rfaa", LONG, "file", "/dev/zero"]),
    ("benchmark run", "--cell"): (["benchmark", "run", "rfa"], ["", "x", "digits", LONG]),
    ("benchmark run", "--budget"): (["benchmark", "run", "rfa"], ["", "x", "-1s", "nans", "0s"]),
    ("benchmark run", "--store"): (["benchmark", "run", "rfa"], DIRECTORIES),
    ("benchmark table", "sources"): (["benchmark", "table"], ["", "nowhere", "file", LONG, "/dev/zero"]),
    ("benchmark table", "--out"): (["benchmark", "table", "nowhere"], ["", "file", LONG]),
    ("benchmark facts", "--store"): (["benchmark", "facts"], ["", "nowhere", "file", LONG]),
    ("benchmark replay", "source"): (
        ["benchmark", "replay", "--cell", "x"], ["", "nowhere", "file", LONG, "/dev/zero"]
    ),
    ("benchmark replay", "entry"): (["benchmark", "replay", "nowhere", "--cell", "x"], ["", "x"]),
    ("benchmark replay", "--cell"): (["benchmark", "replay", "nowhere", "rfa"], ["", "x"]),
    ("benchmark replay", "--attack"): (["benchmark", "replay", "nowhere", "rfa", "--cell", "x"], ["", "x"]),
    ("audit", "spec"): (["audit"], FILES),
    ("audit", "more"): (["audit", "spec.toml"], SETTINGS),
    ("audit", "--set"): (["audit", "spec.toml"], SETTINGS),
    ("audit", "--rounds"): (["audit", "spec.toml"], COUNTS),
    ("explain", "what"): (["explain"], FILES),
    ("explain", "more"): (["explain", "spec.toml"], SETTINGS),
    ("explain", "--set"): (["explain", "spec.toml"], SETTINGS),
}  # fmt: skip
FLAGS = {
    "--json",
    "--compare",
    "--fresh",
    "--bound",
    "--dry-run",
    "--retry",
    "--records",
    "--html",
    "--quick",
    "--stored",
    "--full",
    "--list",
    "--time",
}
FREE = {("sweep", "--mlflow"), ("reproduce", "--device")}  # what a server or a device says of itself


def _commands(group, before=""):
    """Every command that is no group of others, by its words."""
    for name, command in group.commands.items():
        words = f"{before}{name}"
        yield from _commands(command, f"{words} ") if hasattr(command, "commands") else [(words, command)]


def test_every_option_of_every_command_is_in_the_table():
    found = set()
    for name, command in _commands(typer.main.get_command(app)):
        for parameter in command.params:
            words = [word for word in parameter.opts if word.startswith("--")]
            spelled = words[0] if words else parameter.name
            if spelled not in FLAGS | {"--help"}:
                found.add((name, spelled))
    assert found == set(OPTIONS) | FREE


@pytest.mark.parametrize("option", OPTIONS, ids=" ".join)
def test_a_value_that_an_option_cannot_have_is_one_line_and_nothing_is_made(option, byzopt, place):
    (place / "link").symlink_to("nowhere")
    if "stored" in OPTIONS[option][0]:
        run(load("spec.toml"), out=place / "stored")
    before = sorted(place.rglob("*"))
    words, values = OPTIONS[option]
    name = option[1]
    for value in values:
        given = [name] if value is None else [name, value] if name.startswith("--") else [value]
        said = byzopt(*words, *given)
        assert said.status == 2, (given, said.out, said.err)
        assert said.err.startswith("byzopt: error: "), said.err
        assert said.err.count("\n") == 1, said.err
        assert len(said.err) < 3_000, given
        assert said.out == ""
        assert sorted(place.rglob("*")) == before, given


def test_lists_of_valid_values_are_said(byzopt, place):
    for words in (["run", "spec.toml", "--axis", "x"], ["run", "spec.toml", "--engine", "x"], ["list", "x"]):
        said = byzopt(*words)
        assert any(known in said.err for known in ("'rounds', 'gradients', 'bits'", "'torchrun'", "rules"))


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize("mode", [0o700, 0o2770, 0o755])
@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by a link"])
def test_an_empty_directory_stays_the_users_with_its_mode(mode, linked, place, umask):
    target = place / "theirs"
    target.mkdir()
    target.chmod(mode)
    (place / "link").symlink_to("theirs")
    before = target.stat()
    result = run(load("spec.toml"), out=place / ("link" if linked else "theirs"))
    after = target.stat()
    assert (before.st_ino, before.st_mode, before.st_gid) == (after.st_ino, after.st_mode, after.st_gid)
    assert (place / "link").is_symlink()
    assert {path.name for path in target.iterdir()} == {"spec.toml", "records.parquet", "result.json"}
    assert {path.stat().st_mode & 0o777 for path in target.iterdir()} == {0o640}
    assert run(load("spec.toml"), out=target).metrics == result.metrics


def test_a_new_directory_obeys_the_umask(place, umask):
    run(load("spec.toml"), out=place / "a" / "b")
    assert [(place / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o750, 0o750]
    assert [path.name for path in (place / "a").iterdir()] == ["b"]


def test_what_a_killed_stage_left_is_no_content(place):
    (place / "theirs").mkdir()
    (place / "theirs" / ".spec.toml.0123abcd").write_text("half")
    run(load("spec.toml"), out=place / "theirs")
    assert {path.name for path in (place / "theirs").iterdir()} == {
        "spec.toml",
        "records.parquet",
        "result.json",
    }


def test_the_longest_name_of_a_spec_still_has_a_default_directory(byzopt, place):
    name = "é" * 120 + ".toml"
    (place / name).write_text(SPEC)
    assert byzopt("run", name, "--json").status == 0
    assert len(list((place / "byzopt-runs").iterdir())) == 1


def test_the_advice_on_a_full_disk_goes_on_with_what_is_stored():
    for number, advice in (
        (errno.ENOSPC, "Free some space and run the same command again"),
        (errno.EROFS, "X"),
    ):
        with (
            pytest.raises(InvalidInput, match=rf"Found: {os.strerror(number)}\. {advice}\."),
            explain_refused_writes(Path("here"), "X."),
        ):
            raise OSError(number, os.strerror(number))


def test_a_full_disk_while_storing_leaves_the_checkpoint_and_says_how_to_go_on(place, monkeypatch):
    monkeypatch.setattr("byzopt.experiments.store.checkpoint_timer.CheckpointTimer.due", True)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patched:
        patched.setattr(
            "byzopt.experiments.store.run_directory.write_atomically",
            lambda path, *parts: _only_spec(path, parts, full),
        )
        with pytest.raises(InvalidInput, match=r"Free some space.*same command again: it goes on"):
            run(load("spec.toml"), out=place / "here")
    assert {path.name for path in (place / "here").iterdir()} == {"spec.toml", "checkpoint.pt"}
    assert run(load("spec.toml"), out=place / "here").metrics == run(load("spec.toml")).metrics


def _only_spec(path: Path, parts, error: OSError) -> None:
    if path.name != "spec.toml":
        raise error
    path.write_bytes(b"".join(parts))


def test_curves_that_find_no_room_cost_no_result(byzopt, place):
    words = ["run", "spec.toml", "--out", "here"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))  # bytes: records fit, the drawing does not
    try:
        said = byzopt(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert said.status == 1
    assert "completed" in said.out
    assert "no curves drawn: here/curves.png: File too large; the result is stored" in said.err
    names = {path.name for path in (place / "here").iterdir()}
    assert names == {"spec.toml", "records.parquet", "result.json"}
    again = byzopt(*words)
    assert again.status == 0
    assert "Curves: " in again.out


def test_what_is_finished_can_be_shown_in_a_place_that_is_read_only(byzopt, read_only, monkeypatch):
    folder, reading = read_only
    for name, text in (("spec.toml", SPEC), ("sweep.toml", SWEEP)):
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    words = ["run", "spec.toml", "--out", "here"]
    first = byzopt(*words)
    assert byzopt("report", "here", "--out", "report").status == 0
    with reading():
        shown = byzopt(*words)
        assert (shown.status, shown.out, shown.err) == (0, first.out, "")
        other = byzopt(*words, "--axis", "bits")
        assert (other.status, other.err.count("\n")) == (1, 1)
        assert "no curves drawn: here/curves.png: Permission denied" in other.err
        for refused in (
            [*words, "--fresh"],
            ["run", "spec.toml"],
            ["report", "here"],
            ["sweep", "sweep.toml"],
        ):
            said = byzopt(*refused)
            assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
            assert "should be writable. Found: Permission denied. Choose another --" in said.err


def test_a_working_directory_that_is_gone_is_one_line(place):
    (place / "gone").mkdir()
    code = (
        "import os, shutil; os.chdir('gone'); shutil.rmtree('../gone'); from byzopt.cli import main; main()"
    )
    spec = str(place / "spec.toml")
    told = subprocess.run(
        [sys.executable, "-c", code, "run", spec], cwd=place, capture_output=True, text=True, timeout=600
    )
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
    assert "the working directory or a stream: No such file or directory" in told.stderr


def test_directories_that_can_be_made_pass_and_nothing_is_made(tmp_path):
    for path in (tmp_path, tmp_path / "a" / "b" / "c", tmp_path / ("x" * 255)):
        check_directory(path, "--out")
    assert not list(tmp_path.iterdir())
