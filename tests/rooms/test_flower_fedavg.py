"""RobustFedAvg on ClientApps that train and return weights, beside Flower's own strategies."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from byzopt.errors import ByzoptError, InvalidInput, TooManyFaults, UnknownName
from byzopt.servers import ServerAdagrad, ServerAdam, ServerYogi

flwr = pytest.importorskip("flwr.app", reason="needs the extra `flower`")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402
from flwr.serverapp import strategy as flower  # noqa: E402

from byzopt.flower import Local, RobustFedAvg, RobustStrategy, arrays_of, client_app  # noqa: E402
from tests.flowers import PlayGrid, crash, silent  # noqa: E402

D = 6
EXAMPLES = (10, 20, 30, 40, 50)  # of each client


def record(**arrays):
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})


def start():
    rng = np.random.default_rng(0)
    return record(w=rng.standard_normal((2, 2)).astype("f4"), b=rng.standard_normal(2).astype("f4"))


def client_of(train, evaluate=None):
    """A ClientApp from train(values, i, config) -> (values, metrics)."""
    app = ClientApp()

    @app.train()
    def _(message, context):
        values = {name: array.numpy() for name, array in message.content["arrays"].items()}
        i = int(context.node_config["partition-id"])
        trained, metrics = train(values, i, message.content["config"])
        content = {"arrays": record(**trained), "metrics": MetricRecord(metrics)}
        return Message(RecordDict(content), reply_to=message)

    if evaluate:
        app.evaluate()(evaluate)
    return app


def half_way(values, i, config):
    """Half the way to the client's own optimum."""
    rng = np.random.default_rng(i + 1)
    moved = {k: v + 0.5 * (rng.standard_normal(v.shape) - v).astype("f4") for k, v in values.items()}
    return moved, {"num-examples": EXAMPLES[i], "train_loss": float(i)}


def run(strategy, app=None, n=5, rounds=4, ways=None, arrays=None, **settings):
    grid = PlayGrid(app or client_of(half_way), n, ways)
    options = {"num_rounds": rounds, "timeout": 5, **settings}
    return strategy.start(grid, start() if arrays is None else arrays, **options), grid


def flat(arrays):
    return np.concatenate([array.numpy().reshape(-1).astype("f8") for array in arrays.values()])


QUIET = {"fraction_evaluate": 0.0}
FAMILY = {
    "weighted": (lambda: flower.FedAvg(**QUIET), {"weighted_by_key": "num-examples"}),
    "momentum": (
        lambda: flower.FedAvgM(**QUIET, server_learning_rate=0.5, server_momentum=0.7),
        {"weighted_by_key": "num-examples", "server_learning_rate": 0.5, "server_momentum": 0.7},
    ),
    "adam": (
        lambda: flower.FedAdam(**QUIET, eta=0.2, beta_1=0.8, beta_2=0.95, tau=0.01),
        {"weighted_by_key": "num-examples", "server": ServerAdam(0.2, 0.8, 0.01, 0.95)},
    ),
    "yogi": (
        lambda: flower.FedYogi(**QUIET, eta=0.2, beta_1=0.8, beta_2=0.95, tau=0.01),
        {"weighted_by_key": "num-examples", "server": ServerYogi(0.2, 0.8, 0.01, 0.95)},
    ),
    "adagrad": (
        lambda: flower.FedAdagrad(**QUIET, eta=0.2, tau=0.01),
        {
            "weighted_by_key": "num-examples",
            "server": {"name": "server_adagrad", "lr": 0.2, "tau": 0.01},
        },
    ),
}


@pytest.mark.parametrize("name", FAMILY)
def test_without_faults_the_mean_is_the_strategy_of_flower(name):
    theirs, settings = FAMILY[name]
    wanted, _ = run(theirs())
    result, _ = run(RobustFedAvg(rule="mean", f=0, **QUIET, **settings))
    # float32 sums in another order, over four rounds
    np.testing.assert_allclose(flat(result.arrays), flat(wanted.arrays), rtol=2e-5, atol=2e-5)
    assert ServerAdagrad(0.2, tau=0.01).name == "server_adagrad"


def test_clients_count_alike_unless_asked_for():
    equal = client_of(lambda *given: (half_way(*given)[0], {"num-examples": 7}))
    wanted, _ = run(flower.FedAvg(**QUIET), equal)
    result, _ = run(RobustFedAvg(rule="mean", f=0, **QUIET))
    np.testing.assert_allclose(flat(result.arrays), flat(wanted.arrays), rtol=2e-5, atol=2e-5)


def test_a_client_that_claims_a_world_of_examples_counts_as_much_as_the_cap_allows():
    def claims(number):
        def way(asked, answer):
            answer.content["metrics"]["num-examples"] = number
            return [answer]

        return way

    settings = {"rule": "median", "f": 1, "weighted_by_key": "num-examples", **QUIET}
    found = [flat(run(RobustFedAvg(**settings), ways={0: claims(c)})[0].arrays) for c in (80, 10**15, 1e300)]
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()
    for claim in (-1, float("nan"), float("inf"), [3]):
        result, grid = run(RobustFedAvg(**settings), rounds=1, ways={0: claims(claim)})
        assert "'num-examples'" in result.faults[1][grid.nodes[0]]


def softmax_client():
    """Softmax regression on a fifth of the digits: five full gradients at home, as in Flower's tutorials."""
    inputs, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    inputs = inputs.float() / 16

    def train(message, context):
        i = int(context.node_config["partition-id"])
        model = nn.Linear(64, 10)
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=message.content["config"]["lr"])
        mine = slice(400 + i, None, 5)
        for _ in range(5):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs[mine]), labels[mine])
            loss.backward()
            optimizer.step()
        metrics = MetricRecord({"train_loss": loss.item(), "num-examples": len(labels[mine])})
        content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
        return Message(content=content, reply_to=message)

    def accuracy(arrays):
        model = nn.Linear(64, 10)
        model.load_state_dict(arrays.to_torch_state_dict())
        return float((model(inputs[:400]).argmax(dim=1) == labels[:400]).float().mean())

    app = ClientApp()
    app.train()(train)
    return app, accuracy


def forged(forge, **metrics):
    """A client that returns forge(sent, trained) in the place of what it trained."""

    def way(asked, answer):
        sent, trained = (m.content["arrays"].to_numpy_ndarrays() for m in (asked, answer))
        keys = list(answer.content["arrays"])
        arrays = {k: forge(s, x) for k, s, x in zip(keys, sent, trained, strict=True)}
        answer.content["arrays"] = record(**arrays)
        for name, value in metrics.items():
            answer.content["metrics"][name] = value
        return [answer]

    return way


FAULTS = {
    "ten times backwards": forged(lambda sent, x: sent - 10 * (x - sent)),
    "huge": forged(lambda sent, x: np.full_like(x, 1e38)),
    "NaN": forged(lambda sent, x: x * np.float32("nan")),
    "other shapes": forged(lambda sent, x: x[..., None]),
    "other arrays": lambda asked, answer: [
        Message(RecordDict({"arrays": record(x=np.zeros(3))}), reply_to=asked)
    ],
    "claims": forged(lambda sent, x: sent - 10 * (x - sent), **{"num-examples": 10**12}),
    "crash": crash,
    "silence": silent,
}


@pytest.fixture(scope="module")
def clean():
    """The accuracy of Flower's FedAvg when nobody is faulty."""
    app, accuracy = softmax_client()
    torch.manual_seed(0)
    arrays = ArrayRecord(nn.Linear(64, 10).state_dict())
    settings = {"arrays": arrays, "rounds": 8, "train_config": ConfigRecord({"lr": 1.0})}
    reached = accuracy(run(flower.FedAvg(**QUIET), app, **settings)[0].arrays)
    assert reached > 0.85
    return reached, app, accuracy, settings


@pytest.mark.parametrize(
    "fault, weighted",
    [*((fault, None) for fault in FAULTS), ("claims", "num-examples"), ("crash", "num-examples")],
)
def test_one_of_five_faulty_clients_costs_less_than_two_points(clean, fault, weighted):
    reached, app, accuracy, settings = clean
    strategy = RobustFedAvg(rule="nnm >> rfa", f=1, weighted_by_key=weighted, **QUIET)
    result, _ = run(strategy, app, ways={2: FAULTS[fault]}, **settings)
    assert accuracy(result.arrays) >= reached - 0.02


def test_flower_alone_does_not_survive_them(clean):
    reached, app, accuracy, settings = clean
    result, _ = run(flower.FedAvg(**QUIET), app, ways={2: FAULTS["ten times backwards"]}, **settings)
    assert accuracy(result.arrays) < reached - 0.3


@pytest.mark.parametrize(
    "settings",
    [
        {"server_momentum": 0.5, "server_learning_rate": 0.5},
        {"server": ServerAdam(0.1)},
        {"server": ServerYogi(0.1)},
        {"server": "server_adagrad"},
        {"momentum": 0.5},
        {"method": "robust_sgdm"},
        {"rule": "centered_clipping"},
    ],
    ids=lambda s: ", ".join(s),
)
def test_every_server_step_and_momentum_learns_beside_a_liar(clean, settings):
    reached, app, accuracy, run_settings = clean
    strategy = RobustFedAvg(**{"rule": "nnm >> rfa", "f": 1, **QUIET, **settings})
    result, _ = run(strategy, app, ways={2: FAULTS["ten times backwards"]}, **run_settings)
    assert accuracy(result.arrays) > reached - 0.06


def test_momentum_of_clients_is_kept_at_the_server_for_those_that_are_heard():
    seen = []
    strategy = RobustFedAvg(rule="mean", f=0, momentum=0.9, watch=lambda each: None, **QUIET)
    app = client_of(lambda values, i, config: ({k: v - i - 1 for k, v in values.items()}, {}))
    grid = PlayGrid(app, 3)
    arrays = start()
    for t in (1, 2):
        messages = strategy.configure_train(t, arrays, ConfigRecord(), grid)
        before = flat(arrays)
        arrays, _ = strategy.aggregate_train(t, grid.send_and_receive(messages))
        seen.append((before - flat(arrays)).mean())
    assert seen == pytest.approx([2.0, 2.0], rel=1e-5)  # a mean of 1, 2, 3; the first row starts the average
    states = strategy.client_momentum.states
    assert [float(states[node].v.mean()) for node in grid.nodes] == pytest.approx([1, 2, 3], rel=1e-5)


# The clients of others ----------------------------------------------------------------------------------


def test_lists_of_arrays_extra_records_and_own_keys_are_taken():
    app = ClientApp()

    @app.train()
    def _(message, context):
        moved = [x + 1 for x in message.content["weights"].to_numpy_ndarrays()]
        content = {"anything": ArrayRecord(moved), "settings": ConfigRecord({"rate": 0.1, "note": "x"})}
        return Message(RecordDict(content), reply_to=message)

    strategy = RobustFedAvg(
        rule="median", f=1, arrayrecord_key="weights", configrecord_key="told", fraction_evaluate=0.0
    )
    arrays = ArrayRecord([np.zeros((2, 3), "f4"), np.zeros(3, "f4")])
    result, _ = run(strategy, app, rounds=2, arrays=arrays)
    assert [x.tolist() for x in result.arrays.to_numpy_ndarrays()] == [[[2.0] * 3] * 2, [2.0] * 3]
    assert result.faults == {1: {}, 2: {}}


@pytest.mark.parametrize("sent", ["float16", "float32", "float64"])
@pytest.mark.parametrize("returned", ["float16", "float32", "float64"])
def test_any_precision_may_come_back_and_that_of_the_model_stays(sent, returned):
    app = client_of(lambda values, i, config: ({"x": (values["x"] + i).astype(returned)}, {}))
    strategy = RobustFedAvg(rule="median", f=1, **QUIET)
    result, _ = run(strategy, app, rounds=3, arrays=record(x=np.arange(4, dtype=sent)))
    assert result.arrays["x"].dtype == sent
    np.testing.assert_array_equal(result.arrays["x"].numpy(), np.arange(4) + 6)
    assert result.faults == {1: {}, 2: {}, 3: {}}


def test_what_overflows_a_models_precision_is_its_senders_fault():
    app = client_of(
        lambda values, i, config: ({"x": values["x"].astype("f8") + (1e200 if i == 1 else 1)}, {})
    )
    result, grid = run(
        RobustFedAvg(rule="median", f=1, **QUIET), app, rounds=1, arrays=record(x=np.zeros(2, "f4"))
    )
    assert result.faults[1] == {grid.nodes[1]: "NaN or Inf"}
    with pytest.raises(InvalidInput, match="'x' should be float, integer or bool"):
        run(RobustFedAvg(rule="median", f=1), arrays=record(x=np.zeros(2, "c8")))


def normalised():
    """A model with batch norm: parameters, float statistics, a counter."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def passes(values, i, config):
    """Statistics and counters move on, each client's by its own amount."""
    moved = {name: value.copy() for name, value in values.items()}
    moved["1.running_mean"] += i
    moved["1.running_var"] += 10 * i
    moved["1.num_batches_tracked"] += 5 + i
    return moved, {"num-examples": 1}


def test_running_statistics_and_counters_have_a_robust_rule_of_their_own():
    def lies(asked, answer):
        arrays = answer.content["arrays"]
        arrays["1.running_var"] = Array(np.full(4, -1e9, "f4"))
        arrays["1.num_batches_tracked"] = Array(np.array(2**62))
        return [answer]

    arrays = ArrayRecord(normalised().state_dict())
    strategy = RobustFedAvg(rule="median", f=1, server=ServerAdam(), **QUIET)
    result, _ = run(strategy, client_of(passes), rounds=1, ways={0: lies}, arrays=arrays)
    state = result.arrays.to_torch_state_dict()
    assert (state["1.running_mean"] == 2.0).all()
    assert (state["1.running_var"] == 21.0).all()  # 1 + the median of (the lie), 10, 20, 30, 40
    assert state["1.num_batches_tracked"] == 8
    assert state["1.num_batches_tracked"].dtype == torch.int64
    normalised().load_state_dict(state)
    for name, p in normalised().named_parameters():
        assert torch.equal(state[name], p.detach())


@pytest.mark.parametrize(
    "buffers", [normalised(), ["1.running_*", "1.num_batches_tracked"]], ids=["module", "names"]
)
def test_buffers_may_be_named(buffers):
    arrays = ArrayRecord(normalised().state_dict())
    result, _ = run(
        RobustFedAvg(rule="median", f=1, buffers=buffers, buffer_rule="trimmed_mean", **QUIET),
        client_of(passes),
        rounds=1,
        arrays=arrays,
    )
    assert (result.arrays["1.running_mean"].numpy() == 2.0).all()
    with pytest.raises(InvalidInput, match="have the model's names"):
        run(RobustFedAvg(rule="median", f=1, buffers=nn.BatchNorm1d(4)), arrays=arrays)
    with pytest.raises(InvalidInput, match="name arrays of the model"):
        run(RobustFedAvg(rule="median", f=1, buffers=["running"]), arrays=arrays)


def test_a_buffer_rule_that_tolerates_less_than_the_rule_is_refused():
    with pytest.raises(InvalidInput, match="buffer_rule"):
        RobustFedAvg(rule="median", f=1, n=5, buffer_rule="mean")


def test_counters_may_come_back_in_another_width_but_not_as_fractions():
    counters = {"1.num_batches_tracked": np.array(7, "i4")}
    app = client_of(lambda values, i, config: ({**values, **counters}, {}))
    arrays = ArrayRecord(normalised().state_dict())
    result, _ = run(RobustFedAvg(rule="median", f=1, **QUIET), app, rounds=1, arrays=arrays)
    assert int(result.arrays["1.num_batches_tracked"].numpy()) == 7
    counters["1.num_batches_tracked"] = np.array(7.5)
    with pytest.raises(TooManyFaults, match="dtype float64 in place of int64"):
        run(RobustFedAvg(rule="median", f=1, **QUIET), app, rounds=1, arrays=arrays)


def test_metrics_that_are_not_finite_numbers_cost_nobody_its_row():
    def reports(values, i, config):
        return values, {
            "loss": float("nan") if i == 0 else float(i),
            "per-class": [float(i), 1.0],
            f"own-{i}": 1,
        }

    result, _ = run(RobustFedAvg(rule="median", f=1, **QUIET), client_of(reports), rounds=1)
    metrics = result.train_metrics_clientapp[1]
    assert result.faults[1] == {}
    assert metrics["loss"] == 2.0  # the lower median of 1, 2, 3, 4
    assert metrics["per-class"] == [2.0, 1.0]
    assert set(metrics) == {"loss", "per-class", "faulty", "aggregate_norm"}


def test_functions_that_combine_metrics_see_only_replies_with_the_usual_ones():
    calls = []

    def combine(contents, key):
        calls.append([(dict(content["metrics"]), key) for content in contents])
        return MetricRecord({"worst": max(content["metrics"]["train_loss"] for content in contents)})

    def without(asked, answer):
        del answer.content["metrics"]["train_loss"]
        return [answer]

    def negative(asked, answer):
        answer.content["metrics"]["num-examples"] = -100
        return [answer]

    strategy = RobustFedAvg(rule="median", f=1, train_metrics_aggr_fn=combine, **QUIET)
    result, _ = run(strategy, rounds=1, ways={4: without, 3: negative})
    assert dict(result.train_metrics_clientapp[1]) == {"worst": 2.0}
    assert len(calls[0]) == 3
    assert calls[0][0][1] == "num-examples"


def test_clients_evaluate_a_sample_by_medians_and_see_the_round():
    def evaluate(message, context):
        i = int(context.node_config["partition-id"])
        metrics = MetricRecord({"acc": float(i), "round": message.content["config"]["server-round"]})
        return Message(RecordDict({"anything": metrics}), reply_to=message)

    strategy = RobustFedAvg(fraction_evaluate=0.6, rule="median", f=1)
    result, grid = run(strategy, client_of(half_way, evaluate), rounds=2, ways={})
    assert grid.sent == 2 * (5 + 3)
    assert [metrics["round"] for metrics in result.evaluate_metrics_clientapp.values()] == [1.0, 2.0]


def test_clients_that_only_evaluate_are_asked_with_fraction_train_0():
    app = ClientApp()
    app.evaluate()(
        lambda message, context: Message(RecordDict({"m": MetricRecord({"acc": 0.5})}), reply_to=message)
    )
    result, grid = run(RobustFedAvg(fraction_train=0.0, rule="median", f=1), app, rounds=1)
    assert result.evaluate_metrics_clientapp[1]["acc"] == 0.5
    assert grid.sent == 5
    with pytest.raises(TooManyFaults, match="5 of 5"):
        run(RobustFedAvg(rule="median", f=1), app, rounds=1)


def test_a_fraction_is_asked_and_f_counts_among_those():
    strategy = RobustFedAvg(fraction_train=0.5, min_train_nodes=3, rule="median", f=1, seed=3, **QUIET)
    app = client_of(lambda values, i, config: (values, {}))
    result, grid = run(strategy, app, n=10, rounds=30)
    assert grid.sent == 30 * 5
    assert all(rank.rounds > 5 for rank in result.watch.ranks)
    with pytest.raises(InvalidInput, match="2 f < n"):
        RobustFedAvg(fraction_train=0.5, rule="median", f=3, n=10)


@pytest.mark.parametrize("rule, fewest", [("bulyan", 7), ("median", 3)])
def test_round_1_waits_for_as_many_nodes_as_the_rule_needs(rule, fewest):
    for strategy in (RobustFedAvg(rule=rule, f=1, patience=0), RobustStrategy(rule, f=1, patience=0)):
        with pytest.raises(ByzoptError, match=f"at least {fewest}, for this rule"):
            run(strategy, n=fewest - 1)


def test_the_log_says_what_is_not_defended_and_whom_a_rule_trusts(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    run(RobustFedAvg(rule="mean", f=1, **QUIET), rounds=1)
    assert "Mean() tolerates 0 faulty nodes of 5, not f = 1" in caplog.text
    caplog.clear()
    _, grid = run(RobustFedAvg(rule="fltrust", f=1, **QUIET), rounds=1)
    assert f"trusts row 0, which is node {grid.nodes[0]}" in caplog.text
    assert "tolerates" not in caplog.text


def test_data_that_differ_make_nobody_a_suspect():
    far = client_of(
        lambda values, i, config: ({k: v + (1e6 if i == 2 else i) for k, v in values.items()}, {})
    )
    result, _ = run(RobustFedAvg(rule="median", f=1, **QUIET), far, rounds=20)
    assert result.watch.suspects() == []
    result, _ = run(RobustFedAvg(rule="median", f=1, **QUIET), rounds=20, ways={2: FAULTS["NaN"]})
    assert result.watch.suspects() == [2]


def test_fedprox_clients_are_told_their_mu():
    mus = []

    def train(values, i, config):
        mus.append((config["proximal-mu"], config["server-round"], config["lr"]))
        return values, {}

    run(
        RobustFedAvg(rule="median", f=1, proximal_mu=0.25, **QUIET),
        client_of(train),
        rounds=1,
        train_config=ConfigRecord({"lr": 0.1}),
    )
    assert mus == [(0.25, 1, 0.1)] * 5


def test_masks_with_infinite_entries_stay_as_they_are():
    mask = np.triu(np.full((3, 3), -np.inf, "f4"), 1)
    app = client_of(lambda values, i, config: ({**values, "x": values["x"] + 1}, {}))
    arrays = record(x=np.zeros(2, "f4"), mask=mask)
    result, _ = run(
        RobustFedAvg(rule="median", f=1, server=ServerAdam(), **QUIET), app, rounds=2, arrays=arrays
    )
    np.testing.assert_array_equal(result.arrays["mask"].numpy(), mask)
    assert (result.arrays["x"].numpy() > 0).all()
    assert result.faults == {1: {}, 2: {}}
    with pytest.raises(InvalidInput, match="hold no NaN"):
        run(RobustFedAvg(rule="median", f=1), app, arrays=record(x=np.full(2, np.nan)))


# Around the strategy ------------------------------------------------------------------------------------


def test_a_strategy_of_ones_own_may_inherit_and_change_config_and_model():
    class Decays(RobustFedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            config["lr"] = 1.0 / server_round
            return super().configure_train(server_round, arrays, config, grid)

        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            return record(**{name: array.numpy() * 2 for name, array in arrays.items()}), metrics

    app = client_of(lambda values, i, config: ({k: v + config["lr"] for k, v in values.items()}, {}))
    result, _ = run(Decays(rule="median", f=1, **QUIET), app, rounds=2, arrays=record(x=np.zeros(2, "f4")))
    # 0 + 1, doubled to 2, + 1/2: the result is the strategy's own model of the last round
    np.testing.assert_allclose(result.arrays["x"].numpy(), 2.5)


def test_flowers_differential_privacy_may_stand_around_it():
    strategy = RobustFedAvg(rule="median", f=1, **QUIET)
    private = flower.DifferentialPrivacyServerSideFixedClipping(strategy, 0.01, 1.0, 5)
    result, _ = run(private, rounds=3)
    assert np.isfinite(flat(result.arrays)).all()
    assert list(strategy.faults) == [1, 2, 3]
    # The noise that was added after rounds 1 and 2 is in the model that the strategy went on from.
    assert np.abs(flat(result.arrays) - flat(strategy.arrays)).max() < 0.1


def test_too_many_faults_leave_parameters_and_buffers_alone_or_skip_the_round():
    arrays = ArrayRecord(normalised().state_dict())
    strategy = RobustFedAvg(rule="median", f=1, **QUIET)
    with pytest.raises(TooManyFaults, match=r"no reply in time.*as it was before"):
        run(strategy, client_of(passes), ways={0: silent, 3: silent}, arrays=arrays)
    assert all((strategy.arrays[k].numpy() == arrays[k].numpy()).all() for k in arrays)
    strategy = RobustFedAvg(rule="median", f=1, excess="skip", **QUIET)
    result, _ = run(strategy, client_of(passes), ways={0: silent, 3: silent}, arrays=arrays)
    assert all((result.arrays[k].numpy() == arrays[k].numpy()).all() for k in arrays)
    assert [dict(m) for m in result.train_metrics_clientapp.values()] == [{"skipped": 1.0}] * 4


def test_a_client_app_of_gradients_is_refused_by_name():
    app = client_app(lambda context: Local(lambda x, t: x))
    with pytest.raises(TooManyFaults, match="Use RobustStrategy on the server"):
        run(RobustFedAvg(rule="median", f=1), app, arrays=arrays_of(nn.Linear(2, 2)))

    def marked(asked, answer):
        answer.content["byzopt"] = ConfigRecord({"protocol": 1})
        return [answer]

    result, grid = run(RobustFedAvg(rule="median", f=1, **QUIET), rounds=1, ways={1: marked})
    assert "answers RobustStrategy" in result.faults[1][grid.nodes[1]]


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"f": 1, "n": 5, "min_available_nodes": 6}, "`min_available_nodes`"),
        (
            {
                "f": 1,
                "rule": "mean",
                "weighted_by_key": "num-examples",
                "method": {"name": "safeguard", "differing": True},
            },
            "by `rule` alone",
        ),
        ({"f": 1, "rule": "fltrust", "fraction_train": 0.6}, "the same node there"),
        ({"f": 1, "rule": "bucketing >> median", "weighted_by_key": "num-examples"}, "a weighted form"),
        ({}, "`f` of RobustFedAvg"),
        ({"f": 3, "n": 5}, "2 f < n"),
        ({"f": 1, "eta": 0.1}, "ServerAdam"),
        ({"f": 1, "num_malicious_nodes": 1}, "Write f="),
        ({"f": 1, "min_fit_clients": 2}, "min_train_nodes"),
        ({"f": 1, "fraction_train": 50}, "lie in"),
        ({"f": 1, "n": 7, "rule": "krum", "weighted_by_key": "num-examples"}, "The rule in Weighted"),
        ({"f": 1, "n": 7, "weighted_by_key": "num-examples", "weight_cap": 0.5}, "`weight_cap`"),
        ({"f": 1, "server": ServerAdam(), "server_momentum": 0.9}, "`server` beside"),
        ({"f": 1, "method": "robust_sgdm", "momentum": 0.9}, "`method` beside"),
        ({"f": 1, "momentum": 1.0}, r"lie in \[0, 1\)"),
        ({"f": 1, "excess": "ignore"}, "'raise' or 'skip'"),
        ({"f": 1, "buffers": "running_mean"}, "Write a list"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_settings_that_do_not_fit_are_refused_with_what_to_write(settings, words):
    with pytest.raises(InvalidInput, match=words):
        run(RobustFedAvg(**settings))


@pytest.mark.parametrize("method", ["byz_dm21", "byz_vr_marina", "byz_ef21_bc"])
def test_methods_that_need_more_than_trained_weights_are_refused(method):
    with pytest.raises(InvalidInput, match="RobustFedAvg"):
        run(RobustFedAvg(f=1, method=method))


def test_unknown_arguments_are_named_with_those_that_are_near():
    with pytest.raises(UnknownName, match="fraction_train"):
        RobustFedAvg(f=1, fraction_trian=0.5)
