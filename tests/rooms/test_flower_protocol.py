"""Who talks with whom: a strategy takes the ClientApps that belong to it, and names the other else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from byzopt.cohort import Cohort
from byzopt.errors import TooManyFaults
from byzopt.tasks import Quadratic

flwr = pytest.importorskip("flwr.app", reason="needs the extra `flower`")

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402
from flwr.serverapp.strategy import FedAvg  # noqa: E402

from byzopt.flower import Local, RobustStrategy, arrays_of, client_app  # noqa: E402
from byzopt.flower.records import to_arrays, to_point  # noqa: E402
from tests.flowers import PlayGrid  # noqa: E402


def trains(message, context):
    """A ClientApp's way to train and to return weights, without the training."""
    metrics = MetricRecord({"num-examples": 10})
    return Message(RecordDict({"arrays": message.content["arrays"], "metrics": metrics}), reply_to=message)


def test_weights_are_not_taken_for_gradients_and_the_error_names_the_other_strategy():
    app = ClientApp()
    app.train()(trains)
    with pytest.raises(TooManyFaults, match="RobustFedAvg for ClientApps that train and return weights"):
        RobustStrategy(f=1).start(PlayGrid(app, 5), arrays_of(nn.Linear(3, 2)), num_rounds=1)


def test_clients_that_fail_before_they_reply_are_told_from_a_fault_of_their_own():
    app = ClientApp()
    app.train()(lambda message, context: message.content["config"]["lr"])
    with pytest.raises(
        TooManyFaults, match=r"'lr'.* No node at all gave a reply of `client_app`.*RobustFedAvg"
    ):
        RobustStrategy(f=1).start(PlayGrid(app, 5), arrays_of(nn.Linear(3, 2)), num_rounds=1)


def test_one_reply_without_a_mark_is_its_senders_fault_alone():
    task = Quadratic().build(Cohort.of(5), 0)

    def unmarked(asked, answer):
        del answer.content["byzopt"]
        return [answer]

    grid = PlayGrid(clients(task), 5, {2: unmarked})
    result = RobustStrategy(f=1).start(grid, to_arrays(task.start(), task.layout), num_rounds=1)
    assert "no mark of byzopt" in result.faults[1][grid.nodes[2]]


def clients(task):
    return client_app(lambda context: Local.of_task(task, int(context.node_config["partition-id"])))


def answered(app, content):
    """What the app makes of a message to its node."""
    grid = PlayGrid(app, 1)
    return grid.send_and_receive([Message(RecordDict(content), grid.nodes[0], "train")])[0]


def test_a_client_app_says_who_may_ask_it():
    task = Quadratic().build(Cohort.of(5), 0)
    arrays = to_arrays(task.start(), task.layout)
    foreign = answered(clients(task), {"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
    assert "Use RobustStrategy on the server" in foreign.error.reason
    later = answered(clients(task), {"arrays": arrays, "byzopt": ConfigRecord({"protocol": 2})})
    assert "version 1 of the protocol. Found 2" in later.error.reason
    assert not FedAvg().start(PlayGrid(clients(task), 5), arrays, num_rounds=1).arrays


def test_gradients_are_asked_for_with_autograd_on_and_cannot_move_the_point():
    torch.manual_seed(0)
    inputs, targets = torch.randn(20, 3), torch.randn(20, 2)

    def make(context):
        module = nn.Linear(3, 2)

        def gradient(x, t):
            nn.utils.vector_to_parameters(x, module.parameters())  # now views of x
            nn.functional.mse_loss(module(inputs), targets).backward()
            row = torch.cat([p.grad.flatten() for p in module.parameters()])
            with torch.no_grad():
                for p in module.parameters():
                    p.zero_()
            return row

        return Local(gradient, full=lambda x: gradient(x, 0))

    module = nn.Linear(3, 2)
    result = RobustStrategy("mean", method="robust_gd", f=0, lr=0.1).start(
        PlayGrid(client_app(make), 3), arrays_of(module), num_rounds=1
    )
    nn.functional.mse_loss(module(inputs), targets).backward()
    wanted = torch.cat([(p - 0.1 * p.grad).flatten() for p in module.parameters()])
    torch.testing.assert_close(to_point(result.arrays).x, wanted.detach())


def test_a_model_that_somebody_changes_between_rounds_is_gone_on_from():
    task = Quadratic().build(Cohort.of(5), 0)
    grid = PlayGrid(clients(task), 5)
    strategy = RobustStrategy("median", method="robust_gd", f=1)
    x, rule = task.start(), torch.median
    arrays = to_arrays(x, task.layout)
    for t in (1, 2, 3):
        messages = strategy.configure_train(t, arrays, ConfigRecord(), grid)
        arrays, _ = strategy.aggregate_train(t, grid.send_and_receive(messages))
        x = x - 0.1 * rule(task.grads(x, task.draw(t)), dim=0).values
        torch.testing.assert_close(to_point(arrays).x, x)
        x = x + 0.5
        arrays = to_arrays(to_point(arrays).x + 0.5, task.layout)


def test_rounds_with_too_many_faults_may_be_skipped():
    task = Quadratic().build(Cohort.of(5), 0)
    grid = PlayGrid(clients(task), 5)

    def leave(t, arrays):
        grid.gone = {0, 3} if t == 1 else set()

    strategy = RobustStrategy("median", method="robust_gd", f=1, excess="skip")
    arrays = to_arrays(task.start(), task.layout)
    result = strategy.start(grid, arrays, num_rounds=3, evaluate_fn=leave)
    assert dict(result.train_metrics_clientapp[2]) == {"skipped": 1.0}
    assert set(result.faults[2].values()) == {"not connected"}
    x = task.start()
    for t in (1, 3):
        x = x - 0.1 * task.grads(x, task.draw(t)).median(dim=0).values
    torch.testing.assert_close(to_point(result.arrays).x, x)
