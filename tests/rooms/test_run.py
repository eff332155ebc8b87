"""Running specs: result codes, records, stopping, and validation before any work."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite, nan

import pytest
import torch
from torch import Tensor

import byzopt
from byzopt.aggregators import Mean
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput, Status, UnknownName
from byzopt.experiments import Outcome, Spec, run, simulate
from byzopt.experiments.specs.overrides import apply_settings
from byzopt.experiments.store.conditions import doubtful_conditions
from byzopt.layout import Layout
from byzopt.tasks import Task

BASE = {
    "task": "quartic",
    "rule": "nnm >> krum",
    "attack": "bit_flip",
    "rounds": 12,
    "lr": 0.1,
    "eval_every": 5,
}


def ran(*settings: str) -> Outcome:
    return run(Spec.of(apply_settings(BASE, settings))).main


class Scripted(Task):
    """The gradient is -1 everywhere, so x grows by lr a round; `loss` says what is measured there."""

    def __init__(self, loss: Callable[[float], float], start: float = 0.0) -> None:
        self.cohort, self.layout, self.loss, self.first = Cohort.of(4), Layout.flat(1), loss, start

    def start(self) -> Tensor:
        return torch.full((1,), self.first, dtype=torch.float64)

    def draw(self, t: int) -> None:
        return None

    def grads(self, x: Tensor, batch: None) -> Tensor:
        return -torch.ones(4, 1, dtype=x.dtype)

    def measure(self, x: Tensor) -> dict[str, float]:
        return {"loss": self.loss(float(x))}


def scripted(loss: Callable[[float], float], lr: float = 1.0, **more: object) -> Outcome:
    return simulate(Scripted(loss), Mean(), lr, rounds=10, f=0, method="robust_gd", eval_every=2, **more)


def test_figures_are_taken_at_the_start_every_so_often_and_at_the_end():
    outcome = ran()
    assert [record["t"] for record in outcome.records] == [0, 5, 10, 12]
    assert (outcome.status, outcome.rounds) == (Status.COMPLETED, 12)
    assert outcome.records[0]["loss"] == pytest.approx(100)
    ledger = {"gradients", "bits", "coordinates", "bits_down", "coordinates_down"}
    rows = {"aggregate_norm", "honest_variance", "relative_variance"}
    assert {"loss", "grad_norm", "stalls"} | rows | ledger == set(outcome.metrics)
    assert outcome.metrics["gradients"] == 12


def test_two_lines_of_python_run_a_spec():
    result = byzopt.run(byzopt.load("byz-nsgdm/quartic", ["rounds=3", "rule=mean"]))
    assert (result.status, result.main.rounds, result.out) == (Status.COMPLETED, 3, None)
    assert result.metrics == result.main.metrics


def test_equal_specs_give_equal_records_and_other_seeds_do_not():
    assert ran().records == ran().records
    assert ran().records != ran("seed=1").records


def test_variants_run_beside_the_spec_and_do_not_change_it():
    spec = Spec.of(apply_settings(BASE, ["compare.calm.attackers=0", "compare.mean.rule=mean"]))
    result = run(spec)
    assert list(result.outcomes) == ["main", "calm", "mean"]
    assert result.main.records == ran().records
    assert result.compare["calm"].records == ran("attackers=0").records


def test_records_are_reported_as_they_are_made():
    seen = []
    result = run(Spec.of(BASE), on_record=lambda name, record: seen.append((name, record)))
    assert seen == [("main", record) for record in result.main.records]


def test_nan_against_the_mean_is_no_majority_and_keeps_the_start_s_figures():
    outcome = ran("rule=mean", "attack=nan")
    assert (outcome.status, outcome.rounds) == (Status.NO_MAJORITY, 0)
    assert outcome.metrics["loss"] == pytest.approx(100)
    assert "17, 18, 19" in outcome.message


def test_nan_against_a_robust_rule_is_harmless():
    assert ran("attack=nan").status is Status.COMPLETED


def test_a_majority_lost_on_the_way_keeps_the_last_iterate():
    clean = ran("rule=mean", "attack=none")
    outcome = ran("rule=mean", "attack={name='sleeper', until=7, attack='nan'}")
    assert (outcome.status, outcome.rounds, outcome.records[-1]["t"]) == (Status.NO_MAJORITY, 7, 7)
    assert outcome.records[1] == clean.records[1]


def test_a_huge_rate_diverges_and_the_figures_stay_finite():
    outcome = ran("method=robust_sgdm", "lr=10")
    assert outcome.status is Status.DIVERGED
    assert outcome.rounds < 12
    assert all(map(isfinite, outcome.metrics.values()))
    assert outcome.message


def test_a_rate_that_overflows_at_once_keeps_the_start():
    outcome = ran("method=robust_sgdm", "lr=1.7e308", "rounds=1")
    assert outcome.status is Status.NONFINITE
    assert [record["t"] for record in outcome.records] == [0]


@pytest.mark.parametrize("bad", [nan, inf])
def test_a_loss_that_is_not_finite_ends_the_run_at_the_last_finite_iterate(bad):
    outcome = scripted(lambda x: bad if x > 5 else x)
    assert (outcome.status, outcome.rounds) == (Status.NONFINITE, 6)
    assert [record["t"] for record in outcome.records] == [0, 2, 4, 5]
    assert outcome.metrics["loss"] == 5.0
    assert outcome.x.tolist() == [5.0]


def test_an_iterate_beyond_every_range_diverges_although_its_loss_is_finite():
    outcome = scripted(lambda x: 1.0, lr=4e7)
    assert (outcome.status, outcome.rounds, outcome.records[-1]["t"]) == (Status.DIVERGED, 3, 3)


def test_a_start_without_a_finite_loss_gives_no_figures():
    outcome = scripted(lambda x: nan)
    assert (outcome.status, outcome.rounds, outcome.records, outcome.metrics) == (Status.NONFINITE, 0, (), {})


def test_a_stopping_criterion_ends_the_run_when_it_is_measured():
    outcome = scripted(lambda x: 10 - x, stop={"loss": 7.0})
    assert (outcome.status, outcome.rounds, outcome.metrics["loss"]) == (Status.CONVERGED, 4, 6.0)
    assert scripted(lambda x: 10 - x, stop={"loss": 10.0}).rounds == 0


def test_accuracy_converges_upwards():
    outcome = ran("task=digits", "stop.accuracy=0.15", "rounds=100", "lr=0.3")
    assert outcome.status is Status.CONVERGED
    assert outcome.metrics["accuracy"] >= 0.15
    assert outcome.records[-2]["accuracy"] < 0.15


def test_a_stop_in_the_middle_is_interrupted_and_one_after_the_last_round_is_not():
    spec = Spec.of(BASE)
    outcome = run(spec, on_round=lambda name, t: t == 7).main
    assert (outcome.status, outcome.rounds, outcome.records[-1]["t"]) == (Status.INTERRUPTED, 7, 5)
    assert run(spec, on_round=lambda name, t: t == 12).status is Status.COMPLETED


def test_attackers_may_be_others_than_the_last_workers():
    assert ran("attackers=[0, 1, 2]").records != ran().records
    outcome = ran("rule=mean", "attack=nan", "attackers=[4]")
    assert "workers [4]" in outcome.message


@pytest.mark.parametrize(
    "given, error",
    [
        (["attack=label_flip"], InvalidInput),
        (["stop.los=1"], UnknownName),
        (["method.eta=2"], InvalidInput),
        (["attack={name='mimic_index', index=50}"], InvalidInput),
        (["compare.x.attack=label_flip"], InvalidInput),
        (["task={name='digits', batch=0}"], InvalidInput),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(given, error, tmp_path):
    seen = []
    with pytest.raises(error):
        run(Spec.of(apply_settings(BASE, given)), lambda name, record: seen.append(record), tmp_path / "out")
    assert not seen
    assert not list(tmp_path.iterdir())


def test_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ran()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_public_names_of_all_rooms_come_from_the_top():
    for name in ("NNM", "ALIE", "ByzNSGDM", "Cohort", "ModuleTask", "TooManyFaults", "simulate"):
        assert name in dir(byzopt)
        assert getattr(byzopt, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = byzopt.nonsense


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rounds": 0}, "`rounds` should be at least 1. Found 0"),
        ({"rounds": "5"}, "`rounds` should be a whole number. Found '5'"),
        ({"rounds": 1e1}, "`rounds` should be a whole number. Found 10.0"),
        ({"seed": 1.5}, "`seed` should be a whole number"),
        ({"eval_every": 0}, "`eval_every` should be at least 1"),
        ({"lr": "0.1"}, "`lr` should be a finite number. Found '0.1'"),
        ({"lr": -1.0}, "`lr` should be finite and positive"),
        ({"f": 2}, "2 f < n. Found f = 2 with n = 4"),
        ({"per_worker": 1}, "`per_worker` should be True or False"),
        ({"stop": 3}, "`stop` should be a table"),
        ({"stop": {"loss": "low"}}, "'loss' in `stop` should be a finite number"),
        ({"stop": {"accuracy": 90}}, "accuracy is a fraction in .0, 1.; did you mean 0.9"),
        ({"task": "digits"}, "`task` should be a Task"),
        ({"on_record": 3}, "`on_record` should be called"),
        (
            {"attack": 3},
            "An attack should be a name, a table with a `name`, or an instance of Attack",
        ),
        ({"attack": {"name": "ipm", "scael": 3}}, "Unknown key 'scael'. Did you mean 'scale'"),
        ({"method": None}, "A method should be a name, a table"),
        ({"rule": torch.mean}, "A rule should be a name, a table"),
    ],
)
def test_a_call_of_simulate_is_checked_as_a_spec_is(options, message):
    usual = {"task": Scripted(float), "rule": Mean(), "lr": 1.0, "rounds": 2, "f": 0}
    with pytest.raises(InvalidInput, match=message):
        simulate(**usual | options)


def test_a_table_is_the_recipe_that_it_describes():
    method, attack = {"name": "robust_gd"}, {"name": "ipm", "scale": 3.0}
    usual = {"task": Scripted(float), "rule": {"name": "mean"}, "lr": 1.0, "rounds": 2, "f": 0}
    assert simulate(**usual, method=method, attack=attack).rounds == 2


def test_a_spec_stops_at_no_accuracy_in_percent():
    with pytest.raises(InvalidInput, match=r"validation_accuracy is a fraction .* did you mean 0.95"):
        Spec.of(BASE | {"stop": {"validation_accuracy": 95}})


def test_a_condition_on_an_accuracy_in_percent_is_doubted():
    (said,) = doubtful_conditions(["lr>2", "accuracy<=0.9", "accuracy>90", "attack=accuracy"])
    assert said == "'accuracy>90': accuracy is a fraction in [0, 1]; did you mean 0.9?"
