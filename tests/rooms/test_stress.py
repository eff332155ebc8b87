"""`byzopt stress`: the worst of an ensemble, what a budget leaves, resumption, the exit status."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path

import pytest

from byzopt.cli.stress import _advice, _verdict
from byzopt.errors import InvalidInput, Status
from byzopt.experiments import Outcome, Spec
from byzopt.experiments.sweeps import run_sweep
from byzopt.reports.stress import draw
from byzopt.stress import ENSEMBLE, Stress, Trial, stress, worst
from byzopt.stress.catalogue import LATER, NO_ATTACK, ensemble
from byzopt.stress.verdict import tail_mean, trial
from byzopt.tasks import TASKS, Task

SPEC = {
    "task": {"name": "quadratic", "d": 8},
    "rule": "median",
    "method": "robust_gd",
    "lr": 0.1,
    "rounds": 6,
    "n": 9,
    "f": 2,
}

OWN = """
from dataclasses import dataclass
from typing import ClassVar

from byzopt.attacks import Attack, Knowledge


@dataclass(frozen=True)
class Swing(Attack):
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})

    def forge(self, view, generator):
        return view.alike(-3.0 * view.honest.mean(dim=0))
"""


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


@pytest.mark.slow
def test_what_a_budget_does_not_reach_is_named_and_no_rule_is_called_best(tmp_path):
    result = stress(Spec.of(SPEC), tmp_path, compare=["mean"], budget=1e-9)
    assert result.trials == ()
    assert len(result.left) == 2 * len(ENSEMBLE)
    assert result.best_rule is None
    assert stress(Spec.of(SPEC), tmp_path, compare=["mean"]).left == ()


@pytest.mark.parametrize(("slow", "budget", "whole"), [(1, 19, 9), (4, 19, 4)], ids=["enough", "too little"])
def test_a_budget_tries_cheap_attacks_and_the_first_searched_one(tmp_path, monkeypatch, slow, budget, whole):
    """Cheap runs take `slow`, searched ones ten times that; `whole` runs are to end."""
    left, clock = {}, [0]
    monkeypatch.setattr("byzopt.stress.running.monotonic", lambda: clock[0])

    def play(plan, over):
        for batch in plan.batches:
            (run,), worked = batch.runs, 0
            dear = run.point["attack"]["name"] in LATER
            left.setdefault(run.id, slow * (10 if dear else 1))
            while left[run.id] and worked < batch.patience and not over():
                clock[0] += 1
                worked += 1
                left[run.id] -= 1
            if not left[run.id]:
                run_sweep(replace(plan, batches=(batch,)), jobs=0)

    done = stress(Spec.of(SPEC), tmp_path, compare=["mean"], budget=budget, play=play)
    assert clock[0] <= budget
    tried = [one.attack for one in done.trials]
    assert len(tried) == whole
    assert tried[0] == NO_ATTACK
    assert ("searched: cos" in tried) == (slow == 1)
    assert not [name for name in tried if "searched" in name and name != "searched: cos"]
    assert {one.rule for one in done.trials} == {"median"}
    assert not done.complete("median")


def test_what_is_put_aside_goes_on_after_what_is_cheap_and_ends_on_the_same_bits(tmp_path):
    spec = Spec.of(SPEC)
    seen = []

    def play(plan, over):
        hasty = [batch._replace(patience=0.0) if batch.patience < inf else batch for batch in plan.batches]
        run_sweep(
            replace(plan, batches=tuple(hasty)),
            jobs=0,
            tell=lambda kind, content: seen.append(content[0]) if kind == "ended" else None,
        )

    few = ["searched: cos", "ipm x10", "searched: drift"]
    hasty = stress(spec, tmp_path / "hasty", attacks=few, budget=1000.0, play=play)
    whole = stress(spec, tmp_path / "whole", attacks=few)
    assert hasty.trials == whole.trials
    names = {one.runs[0]: one.attack for one in hasty.trials}
    assert [names[run] for run in seen] == [NO_ATTACK, "ipm x10", "searched: cos", "searched: drift"]
    hasty_logs = [log.read_text() for log in (tmp_path / "hasty").rglob("log*")]
    assert sum("goes on after round 1" in log for log in hasty_logs) == 2


@pytest.mark.slow
def test_figures_hang_neither_on_the_number_of_processes_nor_on_interruptions(tmp_path):
    ended = []

    def play(jobs, plan, over):
        run_sweep(plan, jobs=jobs, stopped=over, tell=lambda kind, content: ended.append(kind))

    few = {"compare": ["mean"], "attacks": ["searched: shrink", "ipm x10", "optimal ipm", "alie"]}
    spec, store, here = Spec.of({**SPEC, "rounds": 40}), tmp_path / "processes", tmp_path / "here"
    cut = stress(spec, store, play=partial(play, 2), stopped=lambda: "ended" in ended, budget=1e3, **few)
    assert cut.left
    assert stress(spec, store, play=partial(play, 1), **few).trials == stress(spec, here, **few).trials
    two = stress(spec, tmp_path / "two", play=partial(play, 2), budget=1e3, **few)
    assert two.trials == stress(spec, here, **few).trials
    assert two.complete("median")


def test_a_run_that_fails_ends_it_all(tmp_path, monkeypatch):
    (tmp_path / "parts.py").write_text(
        OWN.replace("return view", "raise ValueError('no lie today')\n        return view")
    )
    monkeypatch.chdir(tmp_path)
    attacks = ["alie", "parts.py:Swing", "ipm"]
    with pytest.raises(InvalidInput, match="no lie today") as failed:
        stress(Spec.of(SPEC), tmp_path / "s", attacks=attacks)
    assert "under parts.py:Swing failed" in str(failed.value)
    stored = list((tmp_path / "s").glob("*/result.json"))
    assert len(stored) == 3  # without attack, alie, and what failed


@pytest.mark.parametrize("compare", [["median"], ["median()", "mean", "mean()"]])
def test_a_rule_may_be_written_in_several_ways(tmp_path, compare):
    done = stress(Spec.of(SPEC), tmp_path, compare=compare, attacks=["alie"])
    for rule in compare:
        other = "mean" if "mean" in rule else "median"
        assert done.of(rule, "alie").value == done.of(other, "alie").value


def test_a_rule_of_the_same_name_with_other_parameters_does_not_take_the_specs_place(tmp_path):
    spec = Spec.of({**SPEC, "rule": {"name": "centered_clipping", "tau": 0.01}})
    done = stress(spec, tmp_path, compare=["centered_clipping"], attacks=["ipm x10"])
    assert done.rules == ("centered_clipping (the spec's)", "centered_clipping")
    own, other = (done.of(rule, "ipm x10").value for rule in done.rules)
    assert own != other
    assert own == stress(spec, tmp_path, attacks=["ipm x10"]).of("centered_clipping", "ipm x10").value


GOSSIP = {**SPEC, "graph": {"topology": "complete", "mixer": "clipped"}}
CLOCK = {**SPEC, "asynchrony": {"intake": "kardam"}}


@pytest.mark.parametrize(
    ("spec", "said"), [(GOSSIP, "mixer clipped"), (CLOCK, "intake kardam")], ids=["graph", "clock"]
)
def test_where_no_rule_combines_there_is_none_to_compare(tmp_path, spec, said):
    data = {key: value for key, value in spec.items() if key != "rule"}
    with pytest.raises(InvalidInput, match=f"combine rows by a rule. Found the {said}") as refused:
        stress(Spec.of(data), tmp_path, compare=["rfa"])
    assert "rule = " not in str(refused.value)
    assert "incompatible" not in str(refused.value)


@pytest.mark.parametrize(
    ("rule", "said"), [("krm", "Did you mean 'krum'"), ("krum", "n >= 2 f"), ("sum(k=", "sum")]
)
def test_a_rule_to_compare_that_does_not_fit_is_named_before_any_run(tmp_path, rule, said):
    spec = Spec.of({**SPEC, "n": 5, "f": 2})
    with pytest.raises(InvalidInput, match=said) as refused:
        stress(spec, tmp_path / "s", compare=["mean", rule])
    assert f"Rule {rule!r} to compare" in str(refused.value)
    assert "incompatible" not in str(refused.value)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("threat", ["omniscient", "own_data"])
def test_registered_attacks_and_ones_own_stand_beside_the_ensemble(tmp_path, monkeypatch, threat):
    (tmp_path / "parts.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    wanted = ["parts.py:Swing", "ipm", "ipm(scale=3)", "alie"]
    done = stress(Spec.of(SPEC | {"rule": "mean"}), tmp_path / "s", attacks=wanted, threat=threat)
    assert [one.attack for one in done.trials] == [NO_ATTACK, *wanted]
    assert done.of("mean", "ipm").value != done.of("mean", "ipm(scale=3)").value
    assert done.complete("mean")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x", "Unknown attack"),
        ("none", "always tried"),
        ("nnm >> rfa", "Unknown attack"),
        ("ipm(scal=3)", "scale"),
        ("label flip", "labels"),
    ],
)
def test_what_is_no_attack_here_is_refused(tmp_path, name, said):
    with pytest.raises(InvalidInput, match=said):
        stress(Spec.of(SPEC), tmp_path, attacks=["alie", name])


def test_a_trap_is_set_where_a_task_tells_losses():
    cohort = Spec.of(SPEC).cohort
    assert "trapsetter" in ensemble(TASKS.build("quadratic").build(cohort, 0))
    secret = TASKS.build("quadratic").build(cohort, 0)
    secret.loss_of = partial(Task.loss_of, secret)  # as that of a task which does not write it
    assert "trapsetter" not in ensemble(secret)
    with pytest.raises(InvalidInput, match="tell losses"):
        ensemble(secret, only=["trapsetter"])


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


def result(values: dict[str, float], figure: str = "accuracy") -> Stress:
    """A rule under these attacks, of which a and b were to be tried."""
    trials = tuple(Trial("r", name, figure, value, "completed") for name, value in values.items())
    return Stress("omniscient", 9, 2, 2, ("r",), trials, Path(), (), ("a", "b"))


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (result({NO_ATTACK: 0.9, "a": 0.8, "b": 0.7}), 0),
        (result({NO_ATTACK: 0.9, "a": 0.8, "b": 0.5}), 3),
        (result({"a": 0.5}), 3),
        (result({NO_ATTACK: 0.5, "a": 0.8, "b": 0.7}), 3),
        (result({}), 4),
        (result({NO_ATTACK: 0.9, "a": 0.8}), 4),
        (result({"a": 0.8, "b": 0.7}), 4),
        (result({NO_ATTACK: 0.1, "a": 0.8, "b": 0.7}, "loss"), 4),
    ],
    ids=["kept", "below", "below, others open", "calm below", "nothing", "one open", "calm open", "losses"],
)
def test_the_mark_is_kept_below_or_without_evidence(found, status, capsys):
    assert _verdict(found, 0.6) == status
    assert ("no evidence" in capsys.readouterr().err) == (status == 4)


def test_the_headline_says_how_much_was_measured_and_when_no_attack_is_worse():
    assert "No attack that was tried does worse" in _advice(result({NO_ATTACK: 0.9, "a": 0.8, "b": 0.7}))[0]
    assert "So far 80.0 %, by a: 1 of 2 attacks" in _advice(result({NO_ATTACK: 0.9, "a": 0.8}))[0]
    assert "0 of 2 attacks" in _advice(result({NO_ATTACK: 0.9}))[0]
    (line,) = _advice(result({NO_ATTACK: 0.5, "a": 0.8, "b": 0.7}))
    assert "50.0 %, without any attack" in line
    assert "2 of 2" in line


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
    assert (data["figure"], data["unit"]) == ("accuracy", "fraction")
    assert data["mean_over"] == "the last tenth of the rounds"
    assert data["measured"] == {"mean": 2}
    assert (written / "s" / "stress.png").stat().st_size > 10_000
    again = byzopt("stress", "my.toml", *few)
    assert again.status == 0
    assert "How bad can it get with mean?" in again.out
    assert "Test accuracy in %, mean over the last tenth of the rounds:" in again.out


def test_a_budget_that_reaches_nothing_is_no_evidence(written, monkeypatch, byzopt):
    monkeypatch.chdir(written)
    done = byzopt("stress", "my.toml", "--jobs", "0", "--budget", "0.000001s", "--at-least", "0.1")
    assert done.status == 4
    assert "no evidence" in done.err
    assert f"0 of {len(ENSEMBLE)} attacks" in done.out


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


def test_a_picture_of_no_attack_alone_is_drawn_without_a_warning(tmp_path, recwarn):
    result = stress(Spec.of(SPEC), tmp_path, attacks=["ipm"])
    calm = [one for one in result.trials if one.attack == NO_ATTACK]
    assert draw(replace(result, trials=calm)).stat().st_size > 5_000
    assert not [one for one in recwarn if "legend" in str(one.message)]
