"""What a sweep notes of itself: in stores that cannot be written, and of any content."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest

from byzopt.errors import DoubtfulSetting, InvalidInput
from byzopt.experiments.sweeps import Sweep, Tune, Unwritable, plan_sweep, run_sweep
from byzopt.reports.study import make_report
from tests.sealed import DEEP, SPEC

TUNED = Sweep(name="tuned", spec=SPEC, grid={"lr": [0.1, 0.2]}, tune=Tune(("lr",), "loss"))


def test_a_complete_sweep_in_a_store_that_cannot_be_written_is_read(read_only):
    store, reading = read_only
    before = run_sweep(TUNED, store, jobs=0)
    with reading():
        swept = run_sweep(TUNED, store, jobs=0)
        assert swept.finished
        assert (swept.counts, swept.tuned, swept.stored) == (before.counts, before.tuned, before.stored)
        assert "Permission denied" in swept.unnoted
        more = replace(TUNED, grid={"lr": [0.1, 0.3]})
        with pytest.raises(Unwritable, match="Permission denied"):
            run_sweep(more, store, jobs=0)


def test_what_a_sweep_notes_of_itself_is_read_with_care(tmp_path):
    folder = run_sweep(TUNED, tmp_path, jobs=0).folder
    kept = (folder / "tuned.json").read_text()
    assert [sheet.name for sheet in make_report(tmp_path).sheets if sheet.name.startswith("tuned")]
    for content in (
        b"[]",
        b"NaN",
        DEEP,
        b"\xff",
        b"{}",
        kept.replace('"lr": 0', '"x": 0').encode(),
        b"3" * 5000,
    ):
        (folder / "tuned.json").write_bytes(content)
        report = make_report(tmp_path)
        assert [name.rpartition("/")[2] for name in report.study.damaged] == ["tuned.json"]
        assert len(report.study.cases) == 2
    (tmp_path / plan_sweep(TUNED, tmp_path).intents[0].run.id / "result.json").unlink()
    for content in (b"two", b"", b"-1", b"9" * 5000, b"\xff", "٣".encode()):
        (folder / "threads.txt").write_bytes(content)
        with pytest.raises(InvalidInput, match=r"threads\.txt should hold"):
            run_sweep(TUNED, tmp_path, jobs=0)
    (folder / "threads.txt").write_text("1\n")
    assert run_sweep(TUNED, tmp_path, jobs=0).finished


@pytest.mark.parametrize("jobs", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_sweep_says_what_is_doubtful_of_runs_that_are_built_once_and_not_too_often(tmp_path, jobs):
    digits = {"name": "digits", "model": "mlp", "hidden": [4], "batch": 4}
    base = {"task": digits, "n": 5, "f": 1, "lr": 0.1, "rounds": 1, "method": "robust_gd"}
    noisy = {"name": "safe_dshb", "noise_multiplier": 100.0}
    layers = Sweep(name="layers", spec=base, grid={"rule": ["lasa", "median"], "seed": [0, 1]})
    many = Sweep(
        name="noise",
        spec=base | {"rule": "median"},
        grid={"method": [noisy | {"noise_multiplier": 100.0 + k} for k in range(8)]},
    )
    for sweep, count, word in ((layers, 1, "lasa"), (many, 6, "Noise")):
        told, heard = [], []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            hear = lambda kind, content, heard=heard: heard.append((kind, content))  # noqa: E731
            swept = run_sweep(sweep, tmp_path, jobs=jobs, tell=hear)
        told = [str(one.message) for one in caught if issubclass(one.category, DoubtfulSetting)]
        assert swept.finished
        assert len(told) == len(set(told)) == count
        assert word in told[0]
        assert ("logs say why" in told[-1]) == (count > 5)
        assert {content for kind, content in heard if kind == "doubt"} >= set(told[:1])
        for run, stored in swept.stored.items():
            log = (tmp_path / run / "log.txt").read_text(encoding="utf-8")
            assert log.count("warning: ") <= 1, stored
