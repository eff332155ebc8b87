"""The example app in one process, and as a real federation: a SuperLink and SuperNodes on this machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("flwr.app", reason="needs the extra `flower`")

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAvg

from byzopt.flower import RobustFedAvg, RobustStrategy, arrays_of
from tests.flowers import PlayGrid

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
APP = EXAMPLES / "flower_app"


def play(monkeypatch, rule, nodes, rounds, state="lies"):
    """The accuracies by round of the app whose last node is in that state, over a grid in this process."""
    monkeypatch.syspath_prepend(str(APP))
    from robust_digits import client, server, task

    grid = PlayGrid(client.app, nodes)
    grid.contexts[-1].node_config["faulty"] = state
    strategy = RobustStrategy(rule, method={"name": "robust_sgdm", "eta": 0.5}, lr=4.0, f=1, n=nodes)
    result = strategy.start(grid, arrays_of(task.net()), num_rounds=rounds, evaluate_fn=server.accuracy)
    return [record["accuracy"] for record in result.evaluate_metrics_serverapp.values()]


def test_the_example_learns_beside_a_faulty_node_and_the_mean_does_not(monkeypatch):
    assert play(monkeypatch, "rfa", 5, 20)[-1] > 0.9
    assert play(monkeypatch, "mean", 5, 20)[-1] < 0.2


def trained(monkeypatch, strategy, fault):
    """The accuracy of the example of local training, one of whose five nodes has that fault."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "flower_fedavg"))
    from fedavg_digits import client_app, server_app, task

    torch.manual_seed(0)
    grid = PlayGrid(client_app.app, 5, run_config={"batch-size": 32, "local-epochs": 1})
    grid.contexts[-1].node_config["faulty"] = fault
    arrays, config = ArrayRecord(task.Net().state_dict()), ConfigRecord({"lr": 0.05})
    evaluate = server_app.global_evaluate
    result = strategy.start(grid, arrays, num_rounds=4, train_config=config, evaluate_fn=evaluate)
    return result.evaluate_metrics_serverapp[4]["accuracy"]


@pytest.mark.parametrize("fault", ["lies", "nan", "another_model", "boasts", "crashes"])
def test_the_example_of_local_training_learns_beside_a_faulty_node(monkeypatch, fault):
    weights = {"weighted_by_key": "num-examples"} if fault == "boasts" else {}
    strategy = RobustFedAvg(rule="rfa", f=1, fraction_evaluate=0.0, **weights)
    assert trained(monkeypatch, strategy, fault) > 0.8


def test_flowers_own_strategy_does_not(monkeypatch):
    assert trained(monkeypatch, FedAvg(fraction_evaluate=0.0), "lies") < 0.4


@pytest.mark.slow
def test_a_federation_with_tls_and_node_authentication_does_what_the_grid_does(monkeypatch):
    wanted = play(monkeypatch, "rfa", 3, 2, "crashes")[-1]
    given = ["--nodes=3", "--lying=0", "--crashing=1", "--rounds=2", "--stranger"]
    command = [sys.executable, str(APP / "run_loopback.py"), *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = re.search(r"test accuracy ([0-9.]+) after round 2", done.stdout)
    assert found, done.stdout
    assert float(found[1]) == pytest.approx(wanted, abs=0.01)
    assert re.search(r"the stranger was told: .*Failed to activate", done.stdout)
    crashes = re.findall(
        r"round ([12]): node (\d+) is faulty: error 2: .*out of order", done.stdout + done.stderr
    )
    assert [t for t, _ in crashes] == ["1", "2"]
    assert len({node for _, node in crashes}) == 1
