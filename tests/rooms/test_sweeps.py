"""Sweeps as data: grids, ids, batches, tuning; the commands sweep, query and report."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from importlib import import_module

import pytest

from byzopt.cli.progress import Display
from byzopt.cli.sweep_progress import SweepDisplay
from byzopt.errors import InvalidInput, Status, UnknownName
from byzopt.experiments import Outcome, Spec, load, run
from byzopt.experiments.specs.loading import sweeps
from byzopt.experiments.store.environment import version_of
from byzopt.experiments.store.table import rows, runs_table
from byzopt.experiments.sweeps import Sweep, Tune, load_sweep, plan_sweep, run_id, run_sweep
from byzopt.experiments.sweeps.batches import plan_batches
from byzopt.experiments.sweeps.grid import grid_points
from byzopt.experiments.sweeps.sinks import Sink
from byzopt.tasks import TASKS, Quartic, TaskRecipe

SPEC = {"task": "quartic", "rule": "mean", "rounds": 6, "lr": 0.1, "eval_every": 2}


def refusal(**keys: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        Sweep.of(keys).expand()
    return str(caught.value)


# Grids.


def test_a_grid_is_the_product_and_the_last_axis_is_fastest():
    found = grid_points({"a": [1, 2], "b": {"c": [3, 4]}}, [{"d": [5, 6], "e": [7, 8]}])
    assert len(found) == 8
    assert found[0] == {"a": 1, "b.c": 3, "d": 5, "e": 7}
    assert found[1] == {"a": 1, "b.c": 3, "d": 6, "e": 8}
    assert found[-1] == {"a": 2, "b.c": 4, "d": 6, "e": 8}


def test_a_grid_without_axes_is_one_point():
    assert grid_points({}, []) == [{}]
    assert len(Sweep.of({"spec": SPEC}).expand().runs) == 1


def test_anything_in_a_spec_may_vary():
    grid = {
        "rule": ["mean", "nnm >> krum", ["nnm", {"name": "krum", "extra": 1}]],
        "attack": ["alie", {"name": "ipm", "scale": 3.0}],
        "method.eta": [0.1, 0.5],
        "attackers": [2, [0, 7]],
        "task.noise_variance": [0.0, 1.0],
        "seed": [0, 1],
    }
    runs = Sweep.of({"spec": SPEC, "grid": grid}).expand().runs
    assert len({one.id for one in runs}) == len(runs) == 3 * 2 * 2 * 2 * 2 * 2
    for one in runs:
        assert one.spec.method.eta == one.point["method.eta"]
        assert one.spec.task.noise_variance == one.point["task.noise_variance"]
        assert one.spec.seed == one.point["seed"]


def test_nested_tables_and_quoted_paths_are_the_same():
    nested = Sweep.of({"spec": SPEC, "grid": {"method": {"eta": [0.1, 0.2]}}}).expand()
    quoted = Sweep.of({"spec": SPEC, "grid": {"method.eta": [0.1, 0.2]}}).expand()
    assert nested == quoted


def test_points_that_are_one_spec_are_one_run():
    assert len(Sweep.of({"spec": SPEC, "grid": {"seed": [1, 1], "lr": [0.1, 0.1]}}).expand().runs) == 1


def test_combinations_are_left_out_where_all_settings_agree():
    data = {"spec": SPEC, "grid": {"rule": ["mean", "rfa"], "seed": [0, 1]}}
    found = Sweep.of(data | {"leave_out": [{"rule": "mean", "seed": 1}]}).expand().runs
    assert [one.point for one in found] == [
        {"rule": "mean", "seed": 0},
        {"rule": "rfa", "seed": 0},
        {"rule": "rfa", "seed": 1},
    ]


def test_a_base_loses_its_variants_and_takes_changes():
    sweep = Sweep.of({"base": "byz-nsgdm/digits", "spec": {"task": {"batch": 8}}, "grid": {"seed": [4]}})
    (one,) = sweep.expand().runs
    assert (one.spec.task.name, one.spec.task.batch, one.spec.task.model) == ("digits", 8, "mlp")
    assert not one.spec.compare


def test_a_base_that_is_a_file_lies_beside_the_sweep(tmp_path):
    (tmp_path / "base.toml").write_text('task = "quartic"\nrule = "mean"\nrounds = 3\nlr = 0.1\n')
    (tmp_path / "sweep.toml").write_text('base = "base.toml"\n[grid]\nseed = [0, 1]\n')
    assert len(load_sweep(tmp_path / "sweep.toml").expand().runs) == 2


def test_settings_change_axes_and_what_all_runs_share():
    zipped = {"n": [10, 20], "f": [1, 3]}
    data = {"spec": SPEC, "grid": {"rule": ["mean", "rfa"], "seed": [0, 1, 2]}, "zip": [zipped]}
    sweep = Sweep.of(data)
    assert sweep.changed([]).id == sweep.id
    nested = Sweep.of({"spec": SPEC, "grid": {"method": {"eta": [0.1, 0.2]}}})
    assert nested.changed([]).id == nested.id
    runs = sweep.changed(["rule=nnm >> krum", "seed=[4, 5]", "method.eta=0.5"]).expand().runs
    direct = {"spec": SPEC | {"method": {"name": "byz_nsgdm", "eta": 0.5}}, "zip": [zipped]}
    direct["grid"] = {"rule": ["nnm >> krum"], "seed": [4, 5]}
    assert [one.id for one in runs] == [one.id for one in Sweep.of(direct).expand().runs]
    base = Sweep.of({"base": "byz-nsgdm/digits", "grid": {"seed": [0]}}).changed(["attack=none"])
    expected = load("byz-nsgdm/digits", ["attack=none", "seed=0"], compare=False)
    assert [one.spec for one in base.expand().runs] == [expected]


@pytest.mark.parametrize(
    "setting, told",
    [
        ("n=8", "`zip`"),
        ("attack.scale=3", "axis"),
        ("method.eta=0.5", "axis"),
        ("seed=[]", "`grid.seed`"),
        ("roundz=3", "rounds"),
    ],
)
def test_settings_that_would_change_nothing_or_too_much_are_refused(setting, told):
    grid = {"attack": ["alie", {"name": "ipm", "scale": 3.0}], "seed": [0]}
    sweep = Sweep.of({"spec": SPEC, "grid": grid, "zip": [{"n": [10], "method": ["byz_nsgdm"]}]})
    with pytest.raises(InvalidInput, match=told):
        sweep.changed([setting]).expand()


def test_what_cannot_be_combined_is_refused_or_skipped_with_its_reason():
    data = {"spec": SPEC | {"n": 12, "f": 3}, "grid": {"rule": ["mean", "bulyan"]}}
    assert "incompatible" in refusal(**data)
    found = Sweep.of(data | {"incompatible": "skip"}).expand()
    assert [one.point["rule"] for one in found.runs] == ["mean"]
    assert [one.point["rule"] for one in found.skipped] == ["bulyan"]
    assert "Bulyan" in found.skipped[0].reason


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"gird": {}}, "gird"),
        ({"grid": {"seed": 3}}, "list"),
        ({"grid": {"seed": []}}, "list"),
        ({"grid": {"seed": [0]}, "zip": [{"seed": [1]}]}, "two"),
        ({"zip": [{"n": [20, 30], "f": [3]}]}, "one length"),
        ({"zip": [{}]}, "one length"),
        ({"grid": {"rul": ["mean"]}}, "rul"),
        ({"grid": {"rule": ["meen"]}, "incompatible": "skip"}, "meen"),
        ({"grid": {"lr": [-1.0]}, "incompatible": "skip"}, "have a run"),
        ({"grid": {"a b": [1]}}, "a b"),
        ({"leave_out": [{"seed": 1}]}, "leave_out"),
        ({"together": 0}, "together"),
        ({"together": True}, "together"),
        ({"name": "a/b"}, "name"),
        ({"incompatible": "ignore"}, "incompatible"),
        ({"spec": {**SPEC, "compare": {"x": {"rule": "rfa"}}}}, "variants"),
        ({"base": "byz-nsgdm/digitz"}, "digits"),
        ({"tune": {"choose": ["lr"], "figure": "loss"}}, "axes"),
        ({"tune": {"choose": [], "figure": "loss"}}, "axis"),
        ({"tune": 3}, "table"),
        ({"tune": {"figure": "loss"}}, "choose"),
        ({"grid": {"seed": [0]}, "tune": {"choose": ["seed"], "figure": "loss"}}, "seed"),
    ],
)
def test_what_is_no_sweep_is_refused(keys, told):
    assert told in refusal(**({"spec": SPEC} | keys))


def test_every_preset_expands():
    assert "byz-nsgdm/digits-grid" in sweeps()
    for name, summary in sweeps().items():
        assert summary
        assert load_sweep(name).expand().runs


# Ids.


def test_any_differing_field_gives_another_id():
    spec = Spec.of(SPEC)
    others = [
        {"seed": 1},
        {"lr": 0.1 + 1e-16 + 1e-15},
        {"f": 2},
        {"n": 21},
        {"attackers": 2},
        {"rounds": 7},
        {"eval_every": 3},
        {"stop": {"loss": 1e-3}},
        {"rule": "median"},
        {"attack": "alie"},
        {"method": {"name": "byz_nsgdm", "eta": 0.2}},
        {"task": {"name": "quartic", "noise_variance": 0.5}},
    ]
    ids = [run_id(Spec.of(SPEC | other)) for other in others]
    assert len({run_id(spec), *ids}) == 1 + len(others)
    assert run_id(Spec.of(spec.data)) == run_id(spec)


def test_the_versions_that_decide_a_result_are_part_of_the_id():
    spec = Spec.of(SPEC)
    here = {name: version_of(name) for name in ("byzopt", "torch", "numpy", "scikit-learn", "llvmlite")}
    others = [here | {name: "2"} for name in here]
    assert run_id(spec, here) == run_id(spec)
    assert len({run_id(spec, versions) for versions in (here, *others)}) == 1 + len(others)


# Batches.


def expanded(seeds: int, together: int):
    grid = {"rule": ["mean", "rfa"], "n": [20, 24], "seed": list(range(seeds))}
    return Sweep.of({"spec": SPEC, "grid": grid, "together": together}).expand().runs


@pytest.mark.parametrize("together", [1, 3, 5, 100])
def test_every_missing_run_is_in_one_batch_and_batches_are_of_one_shape(together):
    runs = expanded(5, together)
    found = plan_batches(runs, {one.id for one in runs}, {}, together)
    assert sorted(name for batch in found for name in batch.ids) == sorted(one.id for one in runs)
    assert all(len(batch.runs) <= together for batch in found)
    assert all(len({one.spec.n for one in batch.runs}) == 1 for batch in found)


def test_a_lost_run_is_played_in_the_batch_that_the_others_name():
    runs = expanded(5, 4)
    whole = plan_batches(runs, {one.id for one in runs}, {}, 4)
    lost = whole[1].ids[2]
    stored = {name: batch.ids for batch in whole for name in batch.ids if name != lost}
    assert plan_batches(runs, {lost}, stored, 4) == [whole[1]]


def test_new_runs_are_played_without_those_that_are_stored():
    old, new = expanded(2, 100), expanded(3, 100)
    stored = {name: b.ids for b in plan_batches(old, {one.id for one in old}, {}, 100) for name in b.ids}
    missing = {one.id for one in new} - stored.keys()
    found = plan_batches(new, missing, stored, 100)
    assert {name for batch in found for name in batch.ids} == missing


# Tuning.

GRID = {"lr": [0.1, 0.2], "attack": ["alie", "bit_flip"], "rule": ["mean"], "seed": [0, 1]}


def tuned(by: str, finals: dict[tuple[float, str, int], float | None], figure: str = "loss") -> list[dict]:
    found = Sweep(spec=SPEC, grid=GRID, tune=Tune(("lr",), figure, by)).expand().runs
    ended = {}
    for one in found:
        value = finals[one.point["lr"], one.point["attack"], one.point["seed"]]
        status = Status.DIVERGED if value is None else Status.COMPLETED
        ended[one.id] = Outcome(status, 6, 0.0, ({"t": 6, figure: 0.0 if value is None else value},))
    return Tune(("lr",), figure, by).pick(ended, found)["cells"]


FINALS = {
    (0.1, "alie", 0): 1.0,
    (0.1, "alie", 1): 9.0,
    (0.1, "bit_flip", 0): 4.0,
    (0.1, "bit_flip", 1): 4.0,
    (0.2, "alie", 0): 3.0,
    (0.2, "alie", 1): 3.0,
    (0.2, "bit_flip", 0): 6.0,
    (0.2, "bit_flip", 1): 6.0,
}


def test_the_best_mean_the_best_run_and_the_best_worst_case_differ():
    assert [cell["chosen"]["lr"] for cell in tuned("best_mean", FINALS)] == [0.2, 0.1]
    assert [cell["chosen"]["lr"] for cell in tuned("best_final", FINALS)] == [0.1, 0.1]
    (cell,) = tuned("best_worst_case", FINALS)
    assert (cell["chosen"], cell["score"], cell["cell"]) == ({"lr": 0.1}, 5.0, {"rule": "mean"})
    assert [one["score"] for one in cell["settings"]] == [5.0, 6.0]
    assert sorted(name for one in cell["settings"] for name in one["runs"]) == sorted(
        one.id for one in Sweep(spec=SPEC, grid=GRID).expand().runs
    )


def test_accuracies_are_better_when_larger():
    cells = tuned("best_mean", FINALS, "validation_accuracy")
    assert [cell["chosen"]["lr"] for cell in cells] == [0.1, 0.2]
    (cell,) = tuned("best_worst_case", FINALS, "validation_accuracy")
    assert (cell["chosen"], cell["score"]) == ({"lr": 0.1}, 4.0)


def test_a_setting_with_a_failed_run_loses_and_without_any_other_none_is_chosen():
    one = FINALS | {(0.1, "bit_flip", 1): None}
    assert tuned("best_worst_case", one)[0]["chosen"] == {"lr": 0.2}
    both = one | {(0.2, "bit_flip", 0): None}
    assert tuned("best_worst_case", both)[0]["chosen"] is None
    assert [cell["chosen"] for cell in tuned("best_mean", both)] == [{"lr": 0.2}, None]


DIGITS = {"base": "byz-nsgdm/digits", "grid": {"lr": [0.1, 0.3]}}
TEXT = {"base": "byz-nsgdm/shakespeare", "grid": {"lr": [0.1, 0.3]}}
RELEASED = {**TEXT, "spec": {"task": {"name": "shakespeare_released"}}}


@pytest.mark.parametrize("figure", ["accuracy", "loss", "validation_accuracy"])
def test_tuning_on_test_figures_is_refused(figure):
    tune = {"choose": ["lr"], "figure": figure}
    assert "validation" in refusal(**DIGITS, tune=tune)
    assert "validation" in refusal(**DIGITS, tune=tune | {"test_figures": True})


def test_a_task_that_can_hold_nothing_out_needs_an_explicit_word():
    tune = {"choose": ["lr"], "figure": "loss"}
    assert "test_figures" in refusal(**RELEASED, tune=tune)
    assert Sweep.of({**RELEASED, "tune": tune | {"test_figures": True}}).expand()


def test_validation_figures_and_tasks_without_test_samples_may_choose():
    held = {**DIGITS, "spec": {"task": {"validation": 50}}}
    assert "validation" in refusal(**held, tune={"choose": ["lr"], "figure": "accuracy"})
    assert Sweep.of({**held, "tune": {"choose": ["lr"], "figure": "validation_accuracy"}}).expand()
    blocks = {**TEXT, "spec": {"task": {"validation": 20}}}
    assert "validation" in refusal(**TEXT, tune={"choose": ["lr"], "figure": "validation_loss"})
    assert Sweep.of({**blocks, "tune": {"choose": ["lr"], "figure": "validation_loss"}}).expand()
    data = {"spec": SPEC, "grid": {"lr": [0.1, 0.2]}, "tune": {"choose": ["lr"], "figure": "grad_norm"}}
    assert Sweep.of(data).expand()


def test_a_task_of_ones_own_may_be_chosen_by_its_figures_only_if_it_says_that_they_are_no_test_figures(
    registering,
):
    tune = {"choose": ["lr"], "figure": "loss"}
    for name, base, own in (
        ("silent", TaskRecipe, {}),
        ("below", Quartic, {}),  # what a class measures, the class above it cannot know
        ("said", TaskRecipe, {"tested": True}),
    ):
        TASKS.register(name)(dataclass(frozen=True)(type(name, (base,), {"build": Quartic.build, **own})))
        task = {"name": name, "d": 4} if base is Quartic else name
        data = {"spec": SPEC | {"task": task}, "grid": {"lr": [0.1, 0.2]}}
        assert "`tested: ClassVar[bool] = False`" in refusal(**data, tune=tune)
        sweep = Sweep.of({**data, "tune": tune | {"test_figures": True}})
        assert sweep.expand()
        runs = sweep.expand().runs
        ended = {run.id: Outcome(Status.COMPLETED, 1, 0.0, ({"t": 1, "loss": 1.0},)) for run in runs}
        assert sweep.tune.pick(ended, runs)["on_test_figures"]
    TASKS.register("other")(dataclass(frozen=True)(type("other", (Quartic,), {"tested": False})))
    assert Sweep.of({"spec": SPEC | {"task": "other"}, "grid": {"lr": [0.1, 0.2]}, "tune": tune}).expand()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_shipped_tasks_say_whether_they_measure_on_test_samples(name):
    held_out = {"data_set", "digits", "mnist", "shakespeare", "mnist_released", "shakespeare_released"}
    assert TASKS[name].tested == (name in held_out)


def test_a_choice_is_recorded_with_the_sweep(tmp_path):
    sweep = Sweep(spec=SPEC, grid={"lr": [0.1, 1e-6], "seed": [0, 1]}, tune=Tune(("lr",), "loss"))
    swept = run_sweep(sweep, tmp_path, jobs=0)
    told = json.loads((swept.folder / "tuned.json").read_text())
    assert told == swept.tuned
    assert told["cells"][0]["chosen"] == {"lr": 0.1}
    assert not told["on_test_figures"]
    finals = runs_table(tmp_path, where=["lr=0.1"], columns=["run", "loss"]).to_pylist()
    assert told["cells"][0]["score"] == sum(row["loss"] for row in finals) / 2


# Records and tables.


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of a small sweep."""
    root = tmp_path_factory.mktemp("store")
    grid = {
        "rule": ["mean", "nnm >> krum(extra=1)"],
        "attack": ["alie", {"name": "ipm", "scale": 2.0}, "nan"],
    }
    run_sweep(Sweep(spec=SPEC, grid=grid | {"seed": [0, 1]}, together=1), root, jobs=0)
    return root


def test_records_are_those_of_the_run_alone_at_full_precision(store):
    own = run(Spec.of(SPEC | {"attack": "alie", "seed": 1})).main
    found = runs_table(store, ["rule=mean", "attack=alie", "seed=1"], records=True).to_pylist()
    names = ("t", *own.metrics)
    seen = [{key: row[key] for key in names if row[key] is not None} for row in found]
    assert seen == list(own.records)
    (final,) = runs_table(store, ["rule=mean", "attack=alie", "seed=1"]).to_pylist()
    assert {key: final[key] for key in own.metrics} == own.metrics


def test_a_table_has_a_row_for_each_run_and_components_by_name(store):
    found = runs_table(store)
    assert found.num_rows == 12
    assert set(found["attack"].to_pylist()) == {"alie", "ipm", "nan"}
    assert set(found["rule"].to_pylist()) == {"mean", "nnm >> krum(extra=1)"}
    assert set(found["attack.scale"].to_pylist()) == {None, 2.0}
    lost = runs_table(store, ["status=no_majority"], ["rule", "attack"]).to_pylist()
    assert lost == [{"rule": "mean", "attack": "nan"}] * 2


def test_conditions_compare_numbers_and_texts(store):
    assert runs_table(store, ["seed<1"]).num_rows == 6
    assert runs_table(store, ["seed>=0.5", "attack!=ipm"]).num_rows == 4
    assert runs_table(store, ["attack.scale<=2"]).num_rows == 4
    assert runs_table(store, ["lr=1"]).num_rows == 0
    with pytest.raises(UnknownName, match="attack"):
        runs_table(store, ["atack=ipm"])
    with pytest.raises(UnknownName, match="loss"):
        runs_table(store, columns=["los"])
    with pytest.raises(InvalidInput, match="condition"):
        runs_table(store, ["loss"])


def test_runs_of_byzopt_run_are_rows_too_and_variants_their_own(tmp_path):
    spec = replace(Spec.of(SPEC), compare={"robust": Spec.of(SPEC | {"rule": "rfa"})})
    run(spec, out=tmp_path / "one")
    run(Spec.of(SPEC | {"rounds": 50}), out=tmp_path / "two", on_round=lambda name, t: t == 3)
    found = rows(tmp_path)
    assert [(row["variant"], row["rule"]) for row in found.rows] == [("main", "mean"), ("robust", "rfa")]
    assert (found.unfinished, found.damaged) == (1, {})


# The commands.


FILE = """\
name = "mine"
[spec]
task = "quartic"
rounds = 4
lr = 0.1
[grid]
rule = ["mean", "rfa"]
attack = ["bit_flip", "label_flip"]
"""


@pytest.fixture
def place(here):
    """A working directory with a spec in it."""
    (here / "spec.toml").write_text('task = "quartic"\nrounds = 10\nlr = 0.1\n')
    return here


def test_the_command_previews_runs_reports_failures_and_does_nothing_twice(byzopt, place):
    (place / "s.toml").write_text(FILE)
    said = byzopt("sweep", "s.toml", "--dry-run", "--json")
    assert [one["why"] for one in json.loads(said.out)["runs"]] == ["new: nothing is stored"] * 4
    assert sorted(path.name for path in place.iterdir()) == ["s.toml", "spec.toml"]
    said = byzopt("sweep", "s.toml", "--set", "rule=rfa", "--set", "rounds=9", "--dry-run", "--json")
    assert [one["point"]["rule"] for one in json.loads(said.out)["runs"]] == ["rfa"] * 2
    said = byzopt("sweep", "s.toml", "--jobs", "0", "--json")
    told = json.loads(said.out)
    assert (said.status, told["counts"]) == (1, {"completed": 2, "error": 2})
    assert all("labels" in reason for reason in told["failed"].values())
    assert "2 failed" in said.err
    assert (
        byzopt("sweep", "s.toml", "--dry-run").out.splitlines()[-1] == "0 of 4 runs would run, in 0 batches"
    )
    assert byzopt("sweep", "s.toml", "--dry-run", "--retry").out.splitlines()[-1].startswith("2 of 4 runs")
    stamps = {path: path.stat().st_mtime_ns for path in place.glob("byzopt-store/*/result.json")}
    assert byzopt("sweep", "s.toml", "--jobs", "0").status == 1
    assert stamps == {path: path.stat().st_mtime_ns for path in place.glob("byzopt-store/*/result.json")}


def test_time_left_counts_rounds_of_this_call_alone(tmp_path, capsys):
    clock = [0.0]
    plan = plan_sweep(Sweep.of({"spec": SPEC | {"rounds": 1500}}), tmp_path / "store")
    display, batch = SweepDisplay(plan, lambda: clock[0]), plan.batches[0].id
    for clock[0], rounds in ((10.0, 1000), (20.0, 1004), (30.0, 1010)):  # a thousand are from a checkpoint
        display.hear("rounds", (batch, rounds))
    assert capsys.readouterr().err.splitlines() == [
        "0/1 runs  1000/1500 rounds",
        "0/1 runs  1004/1500 rounds",
        "0/1 runs  1010/1500 rounds  980 s left",
    ]


def test_time_left_of_a_run_waits_for_a_share_of_its_rounds(capsys):
    clock = [0.0]
    display = Display(Spec.of(SPEC | {"rounds": 1000}), lambda: clock[0])
    display.on_start("main")
    for clock[0], t in ((60.0, 1), (70.0, 2), (80.0, 11), (90.0, 1000)):  # the first round compiles
        display.on_round("main", t)
    lines = [line.split() for line in capsys.readouterr().err.splitlines()]
    ends = [" ".join(line[3:]) for line in lines]
    assert ends == ["", "", "1978 s left", "0 s left"]


def test_a_query_is_a_table_csv_or_json_and_names_damage(byzopt, place):
    (place / "s.toml").write_text(FILE)
    byzopt("sweep", "s.toml", "--jobs", "0")
    said = byzopt("query", "byzopt-store", "--where", "status=completed", "--columns", "rule,loss", "--csv")
    assert said.status == 0
    assert said.out.splitlines()[0] == "rule,loss"
    found = json.loads(byzopt("query", "byzopt-store", "--json", "--records").out)
    assert [row["t"] for row in found if row["rule"] == "rfa"] == [0, 1, 2, 3, 4]
    assert f"rfa,{found[-1]['loss']!r}" in said.out or f"mean,{found[-1]['loss']!r}" in said.out
    said = byzopt("query", "byzopt-store", "--records", "--columns", "loss,rule,t,seed", "--json")
    order = [(row["rule"], row["t"], row["seed"]) for row in json.loads(said.out)]
    assert order == sorted(order)
    assert order[0][1] == 0 < order[-1][1]
    assert "4 rows" in byzopt("query", "byzopt-store").out
    victim = next(place.glob("byzopt-store/*/records.parquet"))
    victim.write_bytes(victim.read_bytes()[:-9])
    said = byzopt("query", "byzopt-store", "--json")
    assert said.status == 1
    assert (len(json.loads(said.out)), victim.parent.name in said.err) == (3, True)


def test_a_file_is_no_store_and_is_called_one(byzopt, place):
    assert "Found the file 'spec.toml'" in byzopt("query", "spec.toml").err


@pytest.mark.parametrize(
    "words",
    [
        ["sweep", "nowhere.toml"],
        ["sweep", "spec.toml"],
        ["sweep", "byz-nsgdm/digits"],
        ["sweep", "s.toml", "--backend", "dask"],
        ["sweep", "s.toml", "--jobs", "-1"],
        ["sweep", "s.toml", "--set", "rounds"],
        ["sweep", "s.toml", "--checkpoint-every", "0"],
        ["sweep", "s.toml", "--store", "spec.toml"],
        ["query", "nowhere"],
        ["report", "nowhere"],
        ["report", "."],
    ],
)
def test_bad_input_is_one_line_and_status_2(words, byzopt, place):
    (place / "s.toml").write_text(FILE)
    said = byzopt(*words)
    assert (said.status, said.err.count("\n"), said.out) == (2, 1, "")
    assert said.err.startswith("byzopt: error: ")
    assert sorted(path.name for path in place.iterdir()) == ["s.toml", "spec.toml"]


def test_a_sink_that_is_down_costs_no_run_and_is_served_by_the_next_call(tmp_path):
    class Down(Sink):
        def __init__(self):
            self.taken, self.down = [], True

        def write(self, run, outcome):
            if self.down:
                raise ConnectionError("no route")
            self.taken.append(run.id)

    sweep, sink = Sweep(spec=SPEC, grid={"seed": [0, 1]}), Down()
    swept = run_sweep(sweep, tmp_path, jobs=0, sinks=[sink])
    assert swept.counts == {"completed": 2}
    assert len(swept.unsent) == 2
    assert all("no route" in line for line in swept.unsent)
    sink.down = False
    assert not run_sweep(sweep, tmp_path, jobs=0, sinks=[sink]).unsent
    assert sorted(sink.taken) == sorted(swept.stored)


def test_the_former_name_of_plan_sweep_still_works_and_says_the_present_one():
    with pytest.warns(DeprecationWarning, match="survey is now called plan_sweep"):
        assert import_module("byzopt.experiments.sweeps").survey is plan_sweep


def test_the_former_place_of_the_table_still_works_and_says_the_present_one(monkeypatch):
    monkeypatch.delitem(sys.modules, "byzopt.experiments.table", raising=False)
    with pytest.warns(DeprecationWarning, match="runs_table"):
        former = import_module("byzopt.experiments.table").table
    assert former is runs_table


def test_the_former_option_of_the_backend_works_and_says_the_present_one(byzopt, place):
    (place / "s.toml").write_text(FILE)
    said = byzopt("sweep", "s.toml", "--engine", "local", "--dry-run")
    assert (said.status, "--backend" in said.err) == (0, True)
    assert "--engine" not in byzopt("sweep", "s.toml", "--backend", "local", "--dry-run").err
    assert "--engine" not in byzopt("sweep", "--help").out
    with pytest.warns(DeprecationWarning, match="backend"), pytest.raises(InvalidInput, match="backend"):
        run_sweep(Sweep(spec=SPEC), place / "st", engine="dask")
