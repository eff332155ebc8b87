"""Strategies that ask some of the nodes: f for all samples of a run, from how many of all are faulty."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from byzopt.errors import InvalidInput
from byzopt.theory.sampling import least_sample, least_tolerance

flwr = pytest.importorskip("flwr.app", reason="needs the extra `flower`")

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402

from byzopt.aggregators import Median, TrimmedMean, rule_from  # noqa: E402
from byzopt.flower import Local, RobustFedAvg, RobustStrategy, client_app  # noqa: E402
from tests.flowers import PlayGrid  # noqa: E402

N, FAULTY, ROUNDS = 60, 6, 4
QUIET = {"fraction_evaluate": 0.0}


def trainer():
    """Honest nodes go half the way to 1, faulty ones far to the other side."""
    app = ClientApp()

    @app.train()
    def _(message, context):
        i = int(context.node_config["partition-id"])
        x = message.content["arrays"]["w"].numpy()
        moved = x + 0.5 * (1 - x) if i >= FAULTY else x - 100
        content = {"arrays": ArrayRecord({"w": Array(moved.astype("f4"))}), "metrics": MetricRecord({})}
        return Message(RecordDict(content), reply_to=message)

    return app


def run(strategy, app=None, rounds=ROUNDS):
    grid = PlayGrid(app or trainer(), N)
    arrays = ArrayRecord({"w": Array(np.zeros(3, dtype="f4"))})
    return strategy.start(grid, arrays, num_rounds=rounds, timeout=5)


@pytest.mark.parametrize("fraction", [0.4, 0.5, 1.0])
def test_f_is_worked_out_for_the_samples_of_the_run(fraction):
    strategy = RobustFedAvg(fraction_train=fraction, rule="median", n=N, faulty_nodes=FAULTY, **QUIET)
    result = run(strategy)
    asked = int(N * fraction)
    assert strategy.f == (FAULTY if asked == N else least_tolerance(N, FAULTY, asked, ROUNDS, 0.99))
    assert strategy.rule == Median(f=strategy.f)
    assert strategy.buffer_rule.tolerance(asked) >= strategy.f
    assert np.abs(result.arrays["w"].numpy() - (1 - 0.5**ROUNDS)).max() < 1e-6


def test_strategies_of_gradients_have_it_too():
    def make(context):
        sign = -50.0 if int(context.node_config["partition-id"]) < FAULTY else 1.0
        return Local(lambda x, t: sign * (x - 1))

    strategy = RobustStrategy(
        "nnm >> trimmed_mean", method="robust_gd", lr=0.5, n=N, sample=30, faulty_nodes=FAULTY
    )
    result = run(strategy, client_app(make))
    assert strategy.f == least_tolerance(N, FAULTY, 30, ROUNDS, 0.99)
    assert strategy.rule == rule_from("nnm >> trimmed_mean", f=strategy.f)
    assert np.abs(result.arrays["w"].numpy() - (1 - 0.5**ROUNDS)).max() < 1e-6


def test_too_small_a_sample_is_refused_with_the_least_that_will_do():
    many = 12
    least = least_sample(N, many, ROUNDS)
    asked = {"rule": "median", "n": N, "faulty_nodes": many, "fraction_train": 1e-9, **QUIET}
    with pytest.raises(InvalidInput, match=rf"Ask at least {least}, a fraction"):
        run(RobustFedAvg(min_train_nodes=least - 2, **asked))
    strategy = RobustFedAvg(min_train_nodes=least, **asked)
    run(strategy, rounds=ROUNDS)
    assert 2 * strategy.f < least


@pytest.mark.parametrize(
    "settings,words",
    [
        ({"f": 3}, "`f` should be at least 6"),
        ({"n": None}, "be some of n nodes"),
        ({"faulty_nodes": 30}, "less than half of the n = 60"),
        ({"confidence": 1.0}, r"lie in \(0, 1\)"),
        ({"rule": TrimmedMean(f=1)}, "tolerate f = 6 of 24|f = 6"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_what_cannot_hold_is_refused_in_round_1_at_the_latest(settings, words):
    given = {"fraction_train": 0.4, "rule": "median", "n": N, "faulty_nodes": FAULTY, **QUIET}
    assert least_tolerance(N, FAULTY, 24, ROUNDS, 0.99) == 6
    with pytest.raises(InvalidInput, match=words):
        run(RobustFedAvg(**given | settings))


def test_samples_hold_more_liars_than_f_as_rarely_as_was_promised():
    strategy = RobustFedAvg(fraction_train=0.4, rule="median", n=N, faulty_nodes=FAULTY, **QUIET)
    run(strategy, rounds=1)
    f, rounds = strategy.f, 2000
    assert f == least_tolerance(N, FAULTY, 24, 1, 0.99)
    drawn = [sum(i < FAULTY for i in strategy._sampled(24, t)) for t in range(1, rounds + 1)]
    # A round is beyond f with a chance of 0.01 at most, and more than 40 of 2,000 are with one below 1e-4.
    assert sum(count > f for count in drawn) <= 40
    assert torch.tensor(drawn).double().mean() == pytest.approx(24 * FAULTY / N, rel=0.1)
