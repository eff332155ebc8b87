"""Stores of any content: what is damaged or forged is named and left out, everything else is shown."""

from __future__ import annotations

import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from byzopt.checkpoint import save
from byzopt.errors import InvalidInput
from byzopt.experiments import Spec, run
from byzopt.experiments.store.reading import Damaged, read_run
from byzopt.experiments.store.run_store import StoredRun
from byzopt.experiments.store.table import rows, runs_table
from byzopt.experiments.sweeps import RunStore, plan_sweep, run_sweep
from byzopt.reports.study import make_report
from tests import sealed
from tests.sealed import DEEP, SPEC, SWEEP


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A store of a sweep's two runs, and beside them one of `byzopt run` with a variant."""
    root = tmp_path_factory.mktemp("whole") / "st"
    run_sweep(SWEEP, root, jobs=0)
    run(Spec.of(SPEC | {"compare": {"mean": {"rule": "mean"}}}), out=root / "own")
    return root


@pytest.fixture
def store(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "st"))


def ids(store: Path) -> list[str]:
    return [one.run.id for one in plan_sweep(SWEEP, store).intents]


def told(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A change of the variant's summary."""
    return lambda victim: sealed.result(victim, lambda result: change(result["variants"]["main"]))


def column(name: str, values: Callable[[int], pa.Array]) -> Callable[[Path], None]:
    """Another column of the records."""

    def change(victim: Path) -> None:
        found = sealed.table(victim)
        if name in found.column_names:
            found = found.drop_columns([name])
        sealed.records(victim, found.append_column(name, values(found.num_rows)))

    return change


def without(name: str) -> Callable[[Path], None]:
    return lambda victim: sealed.records(victim, sealed.table(victim).drop_columns([name]))


def file(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda victim: (victim / name).write_bytes(content)


def constant(value: Any, kind: Any = None) -> Callable[[int], pa.Array]:
    return lambda count: pa.array([value] * count, kind)


FORGED: dict[str, Callable[[Path], Any]] = {
    "a list": file("result.json", b"[]"),
    "NaN": file("result.json", b"NaN"),
    "brackets": file("result.json", DEEP),
    "a number of 5,000 digits": file("result.json", b"1" * 5000),
    "longer than any result": lambda victim: os.truncate(victim / "result.json", 1 << 40),
    "longer than any table": lambda victim: os.truncate(victim / "records.parquet", 1 << 40),
    "no text": file("result.json", b"\xff\xfe"),
    "brackets in the spec": file("spec.toml", b"a = " + DEEP),
    "5,000 digits in the spec": file("spec.toml", b"n = " + b"1" * 5000),
    "a spec with a byte order mark": file("spec.toml", b"\xef\xbb\xbfn = 3"),
    "no spec": lambda victim: (victim / "spec.toml").unlink(),
    "records gone": lambda victim: (victim / "records.parquet").unlink(),
    "a folder for a file": lambda v: ((v / "records.parquet").unlink(), (v / "records.parquet").mkdir()),
    "a pipe for a file": lambda v: ((v / "spec.toml").unlink(), os.mkfifo(v / "spec.toml")),
    "a link to itself": lambda v: (
        (v / "result.json").unlink(),
        (v / "result.json").symlink_to("result.json"),
    ),
    "deep tables": lambda v: sealed.result(v, lambda r: r.update(environment=nested(50_000))),
    "a result that is a list": lambda v: sealed.result(v, lambda r: [r]),
    "variants a list": lambda v: sealed.result(v, lambda r: r.update(variants=[r["variants"]])),
    "no main": lambda v: sealed.result(v, lambda r: r.update(variants={"other": r["variants"]["main"]})),
    "another variant": lambda v: sealed.result(v, lambda r: r["variants"].update(b=r["variants"]["main"])),
    "the batch a number": lambda v: sealed.result(v, lambda r: r.update(batch=3)),
    "the batch of nulls": lambda v: sealed.result(v, lambda r: r.update(batch=[None])),
    "twice in a batch": lambda v: sealed.result(v, lambda r: r.update(batch=[r["run"]] * 2)),
    "status unknown": told(lambda s: s.update(status="splendid")),
    "status a list": told(lambda s: s.update(status=[])),
    "message null": told(lambda s: s.update(message=None)),
    "rounds text": told(lambda s: s.update(rounds="six")),
    "rounds true": told(lambda s: s.update(rounds=True)),
    "rounds of 4,000 digits": told(lambda s: s.update(rounds=10**4000)),
    "more rounds than the spec has": told(lambda s: s.update(rounds=7)),
    "fewer rounds than records": told(lambda s: s.update(rounds=3)),
    "seconds null": told(lambda s: s.update(seconds=None)),
    "seconds negative": told(lambda s: s.update(seconds=-1.0)),
    "expulsions a number": told(lambda s: s.update(expulsions=3)),
    "expulsions of texts": told(lambda s: s.update(expulsions=["a"])),
    "a figure that is text": told(lambda s: s.update(loss="low")),
    "a figure that is not the record's": told(lambda s: s.update(loss=s["loss"] + 1)),
    "a figure of 400 digits": told(lambda s: s.update(loss=10**400)),
    "a figure too many": told(lambda s: s.update(beauty=1.0)),
    "a figure too few": told(lambda s: s.pop("loss")),
    "loss of text": column("loss", constant("low")),
    "loss of lists": column("loss", constant([1.0])),
    "loss of structs": column("loss", constant({"a": 1.0})),
    "loss whole": column("loss", constant(1, pa.int64())),
    "loss of 32 bits": column("loss", constant(1.0, pa.float32())),
    "a figure called status": column("status", constant(1.0)),
    "a figure called lr": column("lr", constant(1.0)),
    "no t": without("t"),
    "t null": column("t", constant(None, pa.int64())),
    "t NaN": column("t", constant(math.nan)),
    "t text": column("t", constant("0")),
    "t negative": column("t", lambda count: pa.array(range(-1, count - 1))),
    "t the same": column("t", constant(2)),
    "t beyond the run": column("t", lambda count: pa.array([*range(count - 1), 99])),
    "t falling": column("t", lambda count: pa.array(range(count, 0, -1))),
    "no variant": without("variant"),
    "variant null": column("variant", constant(None, pa.string())),
    "variant a number": column("variant", constant(1)),
    "variant unknown": column("variant", constant("other")),
    "two columns of one name": lambda v: sealed.records(
        v, sealed.table(v).append_column("loss", sealed.table(v)["loss"])
    ),
    "no table": lambda v: sealed.records(v, pa.table({})),
    "the spec's f text": lambda v: sealed.spec(v, lambda s: s.update(f="three")),
    "the spec's seed a list": lambda v: sealed.spec(v, lambda s: s.update(seed=[0])),
    "the spec's rule a number": lambda v: sealed.spec(v, lambda s: s.update(rule=3)),
    "the spec's rule empty": lambda v: sealed.spec(v, lambda s: s.update(rule=[])),
    "a stage without a name": lambda v: sealed.spec(v, lambda s: s["rule"][0].pop("name")),
    "a task whose name is a list": lambda v: sealed.spec(v, lambda s: s["task"].update(name=[])),
    "no attack": lambda v: sealed.spec(v, lambda s: s.pop("attack")),
    "compare a list": lambda v: sealed.spec(v, lambda s: s.update(compare=[1])),
    "lr infinite": lambda v: sealed.spec(v, lambda s: s.update(lr=math.inf)),
    "no rounds": lambda v: sealed.spec(v, lambda s: s.update(rounds=0)),
    "eval_every zero": lambda v: sealed.spec(v, lambda s: s.update(eval_every=0)),
}


def nested(depth: int) -> Any:
    """Lists in lists as JSON text would hold them; made without recursion."""
    found: list[Any] = []
    for _ in range(min(depth, 900)):  # what `json.dumps` still writes
        found = [found]
    return found


@pytest.mark.parametrize("what", FORGED)
def test_a_bad_run_is_named_and_left_out_and_the_rest_is_shown(what, store):
    victim, good = ids(store)
    FORGED[what](store / victim)
    found = rows(store)
    assert list(found.damaged) == [victim]
    assert found.damaged[victim]
    assert "\n" not in found.damaged[victim]
    assert [row["run"] for row in found.rows] == [good, "own", "own"]
    assert rows(store, records=True).damaged == found.damaged
    assert RunStore(store).inspect(victim) == StoredRun("damaged", found.damaged[victim])
    with pytest.raises(Damaged):
        RunStore(store).read_outcome(victim)


def test_a_runs_own_directory_is_read_as_a_store_of_one(store, monkeypatch):
    victim, good = ids(store)
    assert [row["run"] for row in rows(store / good).rows] == [good]
    assert len(make_report(store / "own").study.cases) == 2
    monkeypatch.chdir(store / victim)
    FORGED["brackets"](store / victim)
    assert list(rows(".").damaged) == [victim]


def test_tables_reports_and_sweeps_go_on_beside_damage(store, whole):
    victim, good = ids(store)
    FORGED["loss of structs"](store / victim)
    FORGED["brackets"](store / "own")
    assert runs_table(store)["run"].to_pylist() == [good]
    report = make_report(store)
    assert set(report.study.damaged) == {victim, "own"}
    assert [one.why.partition(":")[0] for one in plan_sweep(SWEEP, store).intents] == ["damaged", "stored"]
    assert run_sweep(SWEEP, store, jobs=0).finished
    name = "records.parquet"
    assert (store / victim / name).read_bytes() == (whole / victim / name).read_bytes()
    with pytest.raises(InvalidInput, match="Use --fresh"):
        run(Spec.of(SPEC | {"compare": {"mean": {"rule": "mean"}}}), out=store / "own")


@pytest.mark.parametrize(
    "content", [b"", b"half", {"running": {}}, {"a": 1}, {"running": 3, "ended": {}, "log": {}}]
)
def test_a_damaged_checkpoint_of_a_batch_is_said_in_the_log_and_costs_no_more(content, whole, tmp_path):
    plan = plan_sweep(SWEEP, tmp_path)
    (tmp_path / "batches").mkdir()
    path = tmp_path / "batches" / f"{plan.batches[0].id}.pt"
    save(path, content) if isinstance(content, dict) else path.write_bytes(content)
    assert run_sweep(plan, jobs=0).finished
    for one in plan.intents:
        name = "records.parquet"
        assert (tmp_path / one.run.id / name).read_bytes() == (whole / one.run.id / name).read_bytes()
        assert "starts again: " in (tmp_path / one.run.id / "log.txt").read_text()


def test_a_directory_that_cannot_be_looked_into_is_named(store, monkeypatch):
    victim, _ = ids(store)

    def guarded(call):
        def refused(path: Any, *rest: Any, **options: Any) -> Any:
            if victim in Path(path).parts[:-1]:
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *rest, **options)

        return refused

    monkeypatch.setattr(Path, "stat", guarded(Path.stat))
    monkeypatch.setattr("byzopt.files.os.open", guarded(os.open))
    found = rows(store)
    assert found.damaged[victim] == "result.json: Permission denied"
    assert RunStore(store).inspect(victim).kind == "damaged"


@pytest.mark.parametrize(
    "settings",
    [
        {"rule": [{"name": "not_installed", "f": 3, "rule": [1]}]},
        {"task": {"name": "my_task", "depth": 3, "partition": {"name": "mine"}}},
        {"method": {"name": "my_method"}, "attack": {"name": "my_attack"}},
        {"new_key_of_a_later_version": {"a": [1, "b"]}},
        {"seed": 2**70},
    ],
)
def test_runs_whose_recipes_are_not_installed_are_shown(settings, store):
    victim, _ = ids(store)
    sealed.spec(store / victim, lambda spec: spec.update(settings))
    found = rows(store)
    assert (found.damaged, len(found.rows)) == ({}, 4)
    (row,) = [row for row in found.rows if row["run"] == victim]
    for key, value in settings.items():
        name = value.get("name") if isinstance(value, dict) else value
        if key == "rule":
            assert row["rule"] == "not_installed(f=3, rule='1')"
        elif name is not None:
            assert row[key] == name
    assert len(runs_table(store)) == 4
    report = make_report(store, bounds=True)
    assert (len(report.study.cases), dict(report.study.damaged)) == (4, {})
    assert RunStore(store).inspect(victim).kind == "whole"


def test_a_small_file_of_many_rows_is_refused_before_it_is_unfolded(store):
    victim, _ = ids(store)
    count = 3_000_000
    zeros = pa.repeat(pa.scalar(0.5), count)
    names = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), count), ["main"])
    bomb = pa.table({"variant": names.cast(pa.string()), "t": pa.repeat(pa.scalar(1), count), "loss": zeros})
    sealed.records(store / victim, bomb, compression="zstd")
    assert (store / victim / "records.parquet").stat().st_size < 100_000
    del bomb, zeros, names
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(Damaged, match="holds 3,000,000 rows where the run has at most 6"):
        read_run(store / victim)
    assert pa.default_memory_pool().max_memory() == before


def test_long_texts_and_many_columns_are_refused_before_they_are_unfolded(store):
    victim, _ = ids(store)
    rest = {"t": [0, 2, 4, 6], "loss": [0.5] * 4}
    sealed.records(store / victim, pa.table({"variant": ["x" * 10_000_000] * 4, **rest}), compression="zstd")
    assert (store / victim / "records.parquet").stat().st_size < 100_000
    with pytest.raises(Damaged, match=r"takes [0-9,]* bytes"):
        read_run(store / victim)
    sealed.records(store / victim, pa.table({"variant": ["main", "main", "main", "x"], **rest}))
    with pytest.raises(Damaged, match="should be one of"):
        read_run(store / victim)


def mutated(draw: random.Random, value: Any) -> Any:
    """The value with one part of it, anywhere, replaced, dropped or doubled."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        changed = {k: mutated(draw, v) if k == key else v for k, v in value.items()}
        if draw.random() < 0.15:
            changed.pop(key)
        return changed
    if isinstance(value, list) and value and draw.random() < 0.85:
        i = draw.randrange(len(value))
        return [*value[:i], mutated(draw, value[i]), *value[i + draw.randrange(2) :]]
    return draw.choice(
        [None, True, -1, 0, 10**30, 0.5, 1e300, "", "main", "\u202e\x1b[2J", [], [[]], {}, {"name": 3}]
    )


@pytest.mark.parametrize("seed", range(4))
def test_no_change_of_a_stored_file_stops_anything(seed, store):
    draw = random.Random(seed)
    victim, good = ids(store)
    kept = {path.name: path.read_bytes() for path in (store / victim).iterdir()}
    for _ in range(25):
        name = draw.choice(["result.json", "records.parquet", "spec.toml", "sealed", "sealed spec"])
        if name == "sealed":
            sealed.result(store / victim, lambda found: mutated(draw, found))
        elif name == "sealed spec":
            try:
                sealed.spec(store / victim, lambda found: found.update(mutated(draw, dict(found)) or {}))
            except (ValueError, TypeError, AttributeError):
                continue  # it cannot be written as TOML, or is no table
        else:
            raw = bytearray(kept[name])
            raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
            (store / victim / name).write_bytes(raw[: draw.choice([len(raw), draw.randrange(len(raw))])])
        found = rows(store)
        assert {row["run"] for row in found.rows} >= {good, "own"}
        assert victim in {row["run"] for row in found.rows} | found.damaged.keys()
        assert len(runs_table(store)) == len(found.rows)
        assert RunStore(store).inspect(victim).kind in ("damaged", "whole", "failed")
        for name, content in kept.items():
            (store / victim / name).write_bytes(content)
