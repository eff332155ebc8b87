"""Sweeps on a Ray cluster; runs that go on to TensorBoard and MLflow. Without these packages, one hint."""

from __future__ import annotations

import sys

import pytest

from byzopt.errors import MissingExtra
from byzopt.experiments.sweeps import RunStore, Sweep, run_sweep
from byzopt.experiments.sweeps.sinks import MLflow, TensorBoard

SWEEP = Sweep(
    spec={"task": "quartic", "rounds": 20, "lr": 0.1, "eval_every": 5, "attack": "bit_flip"},
    grid={"rule": ["mean", "nnm >> krum"], "seed": [0, 1, 2]},
    together=2,
)


def records(store) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(store.glob("*/records.parquet"))}


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("ray", lambda tmp: run_sweep(SWEEP, tmp, backend="ray")),
        ("tensorboard", lambda tmp: TensorBoard(tmp)),
        ("mlflow", lambda tmp: MLflow(str(tmp), "x")),
    ],
)
def test_what_is_not_installed_is_one_line_with_the_command(package, use, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf'pip install "byzopt\[{package}\]"') as caught:
        use(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_cluster_of_two_nodes_makes_the_same_records(tmp_path):
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        ended = []
        swept = run_sweep(
            SWEEP,
            tmp_path / "ray",
            backend="ray",
            tell=lambda kind, c: kind == "ended" and ended.append(c[0]),
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert swept.counts == {"completed": 6}
    assert sorted(ended) == sorted(swept.stored)
    run_sweep(SWEEP, tmp_path / "local", jobs=0)
    assert records(tmp_path / "ray") == records(tmp_path / "local")


def test_tensorboard_has_every_record_once_however_often_the_sweep_is_run(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        run_sweep(SWEEP, tmp_path / "st", jobs=0, sinks=[TensorBoard(tmp_path / "tb")])
    store = RunStore(tmp_path / "st")
    for run in records(tmp_path / "st"):
        read = EventAccumulator(str(tmp_path / "tb" / run))
        read.Reload()
        seen = [(event.step, event.value) for event in read.Scalars("loss")]
        wanted = [(record["t"], pytest.approx(record["loss"])) for record in store.read_outcome(run).records]
        assert seen == wanted


def test_mlflow_has_every_run_once_however_often_the_sweep_is_run(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a directory, so that the test needs no server
    where = f"file://{tmp_path / 'ml'}"
    for _ in range(2):
        run_sweep(SWEEP, tmp_path / "st", jobs=0, sinks=[MLflow(where, "sweeps")])
    sink, store = MLflow(where, "sweeps"), RunStore(tmp_path / "st")
    found = sink.client.search_runs([sink.experiment])
    assert sorted(run.data.tags["byzopt"] for run in found) == sorted(records(tmp_path / "st"))
    for run in found:
        history = sink.client.get_metric_history(run.info.run_id, "loss")
        outcome = store.read_outcome(run.data.tags["byzopt"])
        assert sorted((m.step, m.value) for m in history) == [(r["t"], r["loss"]) for r in outcome.records]
        assert run.data.params["rounds"] == "20"
