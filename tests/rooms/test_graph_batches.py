"""Runs on one graph advance as one batch, to the bits that each has alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from byzopt.errors import Status
from byzopt.experiments import Outcome, Spec
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.trials.batched import BatchedTrials, batch_groups
from byzopt.experiments.trials.outcome import RunProgress
from byzopt.experiments.trials.trial import Trial
from byzopt.states import freeze, map_leaves, thaw

BASE = {
    "task": {"name": "quadratic", "d": 6},
    "rounds": 7,
    "lr": 0.1,
    "eval_every": 3,
    "method": "robust_sgdm",
    "n": 14,
    "f": 2,
}
WORLDS = {"topology": {"name": "two_worlds", "k": 4}, "mixer": "cs+", "liars": "everywhere", "spread": 0.5}
ATTACKS: list[Any] = [
    "spectral",
    "none",
    "alie",
    "dissensus",
    {"name": "spectral", "scale": 2.0},
    "local_alie",
]


def runs(attacks: list[Any] = ATTACKS, seeds: int = 2, **changes: Any) -> list[Spec]:
    graph = WORLDS | changes.pop("graph", {})
    base = BASE | {"graph": graph} | changes
    return [Spec.of(base | {"attack": kind, "seed": seed}) for kind in attacks for seed in range(seeds)]


def alone(spec: Spec) -> Outcome:
    ready = prepare_spec(spec, {})
    return Trial(ready, RunProgress(ready.start), lambda record: None).run(lambda t: False)


def together(specs: list[Spec]) -> list[Outcome]:
    ready = [prepare_spec(one, {}) for one in specs]
    return BatchedTrials(ready, None, lambda i, record: None).run(lambda t: False)


def check(specs: list[Spec]) -> list[Outcome]:
    assert batch_groups(specs) == [tuple(range(len(specs)))]
    ends = together(specs)
    for spec, end in zip(specs, ends, strict=True):
        single = alone(spec)
        assert (end.status, end.rounds, end.message) == (single.status, single.rounds, single.message)
        assert end.records == single.records
        assert torch.equal(end.x, single.x)
    return ends


@pytest.mark.parametrize(
    "mixer", ["cs+", "gts", "he", "oracle", {"name": "clipped", "radius": 0.3}, "gossip"]
)
def test_runs_of_one_graph_have_the_bits_that_each_has_alone(mixer: Any) -> None:
    check(runs(graph={"mixer": mixer}))


@pytest.mark.parametrize("rule", ["trimmed_mean", "median", "krum", "nnm >> rfa"])
def test_so_do_those_whose_nodes_apply_a_rule(rule: str) -> None:
    check(runs(["spectral", "alie"], graph={"mixer": "screen", "order": "combine_adapt"}, rule=rule))


@pytest.mark.parametrize("method", ["robust_gd", "server_sgdm", "fed_avg", "br_mvr", "br_lsvrg", "nesterov"])
def test_whatever_the_method(method: str) -> None:
    check(runs(["two_faced", "ipm"], method=method))


@pytest.mark.parametrize("task", ["quartic", {"name": "logistic_regression", "batch": 2}])
def test_whatever_the_task(task: Any) -> None:
    check(runs(["spectral", "local_ipm"], task=task, graph={"weights": "metropolis"}))


def test_on_a_graph_whose_nodes_lie_and_with_rates_of_their_own() -> None:
    graph = {"topology": "torus", "liars": "nodes", "mixer": "he"}
    specs = runs(["two_faced", "none"], n=16, f=1, graph=graph)
    specs += runs(["two_faced"], n=16, f=1, lr=0.05, rounds=5, graph=graph)
    check(specs)


def test_on_a_large_graph_in_single_precision_products_are_taken_run_by_run() -> None:
    graph = {"topology": {"name": "erdos_renyi", "p": 0.5}, "liars": "everywhere", "mixer": "gts"}
    check(runs(["dissensus"], 3, n=44, f=4, rounds=3, task={"name": "quadratic", "d": 257}, graph=graph))


def test_a_run_that_is_lost_leaves_the_others_as_they_are() -> None:
    graph = {"mixer": {"name": "gts", "alpha": 0.4}}
    lost = [{"name": "sleeper", "attack": kind, "until": until} for kind, until in (("nan", 4), ("inf", 9))]
    specs = runs([lost[0], "spectral", lost[1], "alie"], 1, f=1, attackers=2, rounds=12, graph=graph)
    ends = check(specs)
    assert {end.status for end in ends} >= {Status.NO_MAJORITY, Status.COMPLETED}


def test_an_interrupted_batch_goes_on_to_the_same_bits() -> None:
    specs = runs(["spectral", "alie"])
    ready = [prepare_spec(one, {}) for one in specs]
    first = BatchedTrials(ready, None, lambda i, record: None)
    first.run(lambda t: t == 4)
    kept = [
        one._replace(state=thaw(freeze(map_leaves(lambda leaf: leaf, one.state)), one.state))
        for one in first.progress
    ]
    ends = BatchedTrials(ready, kept, lambda i, record: None).run(lambda t: False)
    for spec, end in zip(specs, ends, strict=True):
        assert torch.equal(end.x, alone(spec).x)


def test_what_has_to_be_equal_on_a_graph() -> None:
    one = runs(["alie"], 1)
    for changes in (
        {"f": 1},
        {"attackers": 1},
        {"graph": {"mixer": "gts"}},
        {"graph": {"topology": {"name": "two_worlds", "k": 3}}},
        {"task": {"name": "quadratic", "d": 7}},
    ):
        assert batch_groups(one + runs(["alie"], 1, **changes)) == [(0,), (1,)]
    for graph in ({"mixer": "ubar"}, {"together": False}):
        assert batch_groups(runs(["alie"], graph=graph)) == [(0,), (1,)]
