"""`byzopt stress`: the worst of an ensemble, what a budget leaves, resumption, the exit status."""

from __future__ import annotations

import json

import pytest

from byzopt.errors import InvalidInput, Status
from byzopt.experiments import Outcome, Spec
from byzopt.stress import ENSEMBLE, Trial, stress, worst
from byzopt.stress.catalogue import NO_ATTACK, ensemble
from byzopt.stress.verdict import tail_mean, trial
from byzopt.tasks import TASKS

SPEC = {
    "task": {"name": "quadratic", "d": 8},
    "rule": "median",
    "method": "robust_gd",
    "lr": 0.1,
    "rounds": 6,
    "n": 9,
    "f": 2,
}


def test_the_worst_of_the_ensemble_is_found_and_everything_is_stored(tmp_path):
    result = stress(Spec.of(SPEC), tmp_path, compare=["mean"])
    assert result.rules == ("median", "mean")
    for rule in result.rules:
        attacks = {one.attack for one in result.trials if one.rule == rule}
        assert attacks == {NO_ATTACK, *ENSEMBLE} - {"label flip"}  # a quadratic has no labels
        bad = result.worst(rule)
        assert bad.value == max(one.value for one in result.trials if one.rule == rule)
    assert result.worst("mean").value > 10 * result.worst("median").value
    assert result.best_rule == "median"
    assert not result.left
    again = stress(
        Spec.of(SPEC), tmp_path, compare=["mean"], play=lambda plan, over: pytest.fail("played again")
    )
    assert again.trials == result.trials


def test_what_a_budget_does_not_reach_is_named_and_no_rule_is_called_best(tmp_path):
    result = stress(Spec.of(SPEC), tmp_path, compare=["mean"], budget=1e-9)
    assert result.trials == ()
    assert len(result.left) == 2 * len(ENSEMBLE)
    assert result.best_rule is None
    assert stress(Spec.of(SPEC), tmp_path, compare=["mean"]).left == ()


def test_attackers_who_know_less_are_wrapped(tmp_path):
    task = TASKS.build("quadratic").build(Spec.of(SPEC).cohort, 0)
    for attack in ensemble(task, "own_data").values():
        assert (attack["name"], attack["threat"]) == ("limited", "own_data")
    with pytest.raises(InvalidInput, match="threat model"):
        stress(Spec.of(SPEC), tmp_path, threat="clairvoyant")


def test_a_spec_without_attackers_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="attackers"):
        stress(Spec.of(SPEC | {"attackers": 0}), tmp_path)


def records(values: list[float], figure: str = "accuracy") -> tuple[dict[str, float], ...]:
    return tuple({"t": t, figure: value} for t, value in enumerate(values))


def outcome(values: list[float], status: Status = Status.COMPLETED, figure: str = "accuracy") -> Outcome:
    return Outcome(status, len(values) - 1, None, records(values, figure), "")


def test_a_figure_is_the_mean_of_the_last_tenth_and_failure_is_the_worst():
    values = [0.0] * 18 + [0.5, 0.7, 0.9]
    assert tail_mean(outcome(values), "accuracy") == pytest.approx(0.7)
    assert tail_mean(outcome(values, Status.NO_MAJORITY), "accuracy") == 0.0
    assert tail_mean(outcome(values, Status.DIVERGED, "loss"), "loss") == float("inf")


def test_the_worst_is_pointwise_and_ignores_what_was_not_measured():
    trials = [Trial("r", a, "accuracy", v, "completed") for a, v in (("a", 0.9), ("b", 0.4), ("c", None))]
    assert worst(trials).attack == "b"
    assert worst(trials[2:]) is None
    seeds = trial("r", "a", ("x", "y"), [outcome([0.2, 0.4]), outcome([0.2, 0.8])])
    assert seeds.value == pytest.approx(0.6)


@pytest.fixture
def written(tmp_path):
    (tmp_path / "my.toml").write_text(
        'rule = "mean"\nmethod = "robust_gd"\nlr = 0.1\nrounds = 4\nn = 9\nf = 2\n'
        '[task]\nname = "digits"\nhidden = [4]\nbatch = 4\n'
    )
    return tmp_path


def test_the_command_says_the_worst_draws_it_and_exits_with_three_below_the_mark(
    written, monkeypatch, byzopt
):
    monkeypatch.chdir(written)
    few = ("--attacks", "ipm x10; label flip", "--jobs", "0", "--store", "s")
    done = byzopt("stress", "my.toml", *few, "--json", "--at-least", "0.9")
    data = json.loads(done.out)
    assert done.status == 3
    assert data["worst"]["mean"]["attack"] in ("ipm x10", "label flip")
    assert data["not_measured"] == []
    assert (written / "s" / "stress.png").stat().st_size > 10_000
    again = byzopt("stress", "my.toml", *few)
    assert again.status == 0
    assert "How bad can it get with mean?" in again.out


@pytest.mark.parametrize(
    "bad",
    [("--budget", "soon"), ("--at-least", "90"), ("--threat", "x"), ("--attacks", "x"), ("--seeds", "0")],
    ids=lambda bad: bad[0],
)
def test_bad_options_are_one_line_and_status_two(written, monkeypatch, byzopt, bad):
    monkeypatch.chdir(written)
    done = byzopt("stress", "my.toml", *bad)
    assert done.status == 2
    assert len(done.err.strip().splitlines()) == 1
    assert not (written / "byzopt-store").exists()
