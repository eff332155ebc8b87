"""Each honest worker's figures: what they are, that they are stored and resumed, who reads them."""

from __future__ import annotations

import csv
from statistics import fmean

import pytest
import torch
from torch.nn.functional import cross_entropy

from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.experiments import Spec, run
from byzopt.experiments.running import simulate
from byzopt.experiments.store.table import rows
from byzopt.experiments.sweeps import Sweep, run_sweep
from byzopt.experiments.trials.per_worker import worker_figure
from byzopt.reports.study import make_report, page
from byzopt.tasks import TASKS, Task

COHORT = Cohort.of(6, (1, 4))
SPEC = {"task": "quartic", "rule": "mean", "n": 5, "f": 1, "rounds": 6, "lr": 0.01, "eval_every": 2}
ON = SPEC | {"per_worker": True}
LOGISTIC = {"name": "logistic_regression", "batch": 2, "l2": 0.1}


def built(name) -> Task:
    return TASKS.build(name).build(COHORT, seed=3)


def test_a_quadratics_workers_have_their_own_quadratics():
    task = built({"name": "quadratic", "spread": 0.3})
    x = torch.linspace(-1, 2, 20, dtype=torch.float64)
    found = task.measure_workers(x)["loss"]
    away = x - task.centres
    wanted = [float(0.5 * away[i] @ torch.diag(task.curvatures[i]) @ away[i]) for i in COHORT.honest]
    assert found == pytest.approx(wanted, rel=1e-12)
    lowest = fmean(task.measure_workers(task.optimum)["loss"])
    assert fmean(found) == pytest.approx(task.measure(x)["loss"] + lowest, rel=1e-12)


@pytest.mark.parametrize("name", ["quartic", "hard_lin", LOGISTIC])
def test_the_mean_over_honest_workers_is_the_loss_of_all(name):
    task = built(name)
    x = task.start() + 0.3
    own_figures, of_all = task.measure_workers(x), task.measure(x)
    for figure, values in own_figures.items():
        assert len(values) == len(COHORT.honest)
        assert fmean(values) == pytest.approx(of_all[figure], rel=1e-12)


@pytest.mark.parametrize("name", ["quartic", "quadratic", LOGISTIC])
def test_a_workers_loss_has_the_workers_own_gradient(name):
    task = built(name)
    x = (task.start() + 0.3).requires_grad_()
    rows_of_all = task.grads(x.detach(), task.full())
    step = 1e-6  # central differences: 1e-12 from the third derivative, 1e-10 from rounding
    for j in (0, 7):
        e = torch.zeros_like(x).index_fill(0, torch.tensor([j]), step)
        up, down = (task.measure_workers((x + s * e).detach())["loss"] for s in (1, -1))
        slopes = [(a - b) / (2 * step) for a, b in zip(up, down, strict=True)]
        assert slopes == pytest.approx(rows_of_all[list(COHORT.honest), j].tolist(), rel=1e-5, abs=1e-7)


def test_a_modules_workers_are_measured_on_their_own_samples():
    task = built({"name": "digits", "model": "linear", "dtype": "float64"})
    x = task.start()
    found = task.measure_workers(x)
    views = task.layout.views(x)
    weight, bias = sorted(views.values(), key=lambda part: -part.ndim)
    for place, worker in enumerate(COHORT.honest):
        inputs, labels = task.pool.at(task.pool.shards[worker])
        scores = inputs @ weight.T + bias
        assert found["loss"][place] == pytest.approx(float(cross_entropy(scores, labels)), rel=1e-12)
        right = (scores.argmax(dim=1) == labels).double().mean()
        assert found["accuracy"][place] == pytest.approx(float(right))


def test_specs_without_it_keep_their_ids_and_data():
    off = Spec.of(SPEC)
    assert "per_worker" not in off.data
    assert off.id == Spec.of(SPEC | {"per_worker": False}).id != Spec.of(ON).id
    for base, change in ((SPEC, True), (ON, False)):
        spec = Spec.of(base | {"compare": {"other": {"per_worker": change}}})
        again = Spec.of(spec.data)
        assert again.data == spec.data
        assert [v.per_worker for v in again.variants().values()] == [not change, change]


def test_nothing_is_measured_where_it_is_not_asked_for(monkeypatch):
    monkeypatch.setattr("byzopt.tasks.quartic.QuarticTask.measure_workers", lambda *_: pytest.fail("asked"))
    records = run(Spec.of(SPEC)).main.records
    assert not [key for record in records for key in record if worker_figure(key)]


def test_records_hold_honest_workers_alone_by_their_numbers():
    spec = Spec.of(ON | {"attackers": [0, 2]})
    for record in run(spec).main.records:
        workers = [found.worker for key in record if (found := worker_figure(key)) is not None]
        assert workers == [1, 3, 4]


def test_an_interrupted_run_goes_on_with_the_same_figures(tmp_path):
    spec = Spec.of(ON)
    whole = run(spec, out=tmp_path / "whole").main.records
    assert run(spec, out=tmp_path / "cut", on_round=lambda _, t: t == 3).interrupted
    assert run(spec, out=tmp_path / "cut").main.records == whole
    assert run(spec, out=tmp_path / "cut").main.records == whole  # read back
    assert whole[-1]["loss_worker_0"] != whole[0]["loss_worker_0"]


def test_runs_in_a_batch_have_the_figures_of_runs_alone(tmp_path):
    task = {"name": "quadratic", "d": 4}
    swept = run_sweep(Sweep(spec=ON | {"task": task}, grid={"seed": [0, 1]}), tmp_path / "st", jobs=0)
    assert swept.finished
    for row in rows(tmp_path / "st").rows:
        alone = run(Spec.of(ON | {"task": task, "seed": row["seed"]})).metrics
        own_keys = [key for key in alone if worker_figure(key)]
        assert len(own_keys) == 4
        for key in own_keys:
            assert row[key] == pytest.approx(alone[key], rel=1e-12)


def test_a_task_that_cannot_tell_workers_apart_is_refused_before_it_starts(tmp_path):
    task = built("quartic")
    task.measure_workers = lambda x: Task.measure_workers(task, x)
    with pytest.raises(InvalidInput, match="measure_workers"):
        simulate(task, "mean", 0.1, 3, f=1, per_worker=True)
    assert simulate(task, "mean", 0.01, 3, f=1).metrics


@pytest.mark.parametrize("workers", [5, 12])
def test_a_report_draws_a_line_for_each_worker(workers, tmp_path):
    spec = ON | {"task": LOGISTIC, "n": workers, "per_worker": True}
    run_sweep(Sweep(spec=spec, grid={"seed": [0, 1]}), tmp_path / "st", jobs=0)
    report = make_report(tmp_path / "st")
    charts = {chart.name: chart for chart in report.curves if chart.name.startswith("workers-")}
    assert set(charts) == {"workers-loss", "workers-accuracy"}
    chart = charts["workers-accuracy"]
    assert len(chart.figure.axes[0].lines) == workers - 1
    assert f"{workers - 1} honest workers" in chart.caption
    assert "seeds 0 and 1" in chart.caption
    told = list(csv.DictReader(chart.csv.splitlines()))
    assert {(row["worker"], row["seed"]) for row in told} == {
        (str(i), seed) for i in range(workers - 1) for seed in "01"
    }
    wanted = {row["seed"]: row for row in rows(tmp_path / "st").rows}
    for row in told:
        if row["t"] == "6":
            stored = wanted[int(row["seed"])][f"accuracy_worker_{row['worker']}"]
            assert float(row["Accuracy (%)"]) == pytest.approx(100 * stored)
    assert f"<b>{chart.title}.</b>" in page.render_page(report)
