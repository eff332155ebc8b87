"""What is said of valid specs: more attackers than are tolerated."""

from __future__ import annotations

import json

import pytest

from byzopt.errors import UnknownName
from byzopt.experiments import Spec
from byzopt.experiments.specs.remarks import (
    betrayed_trust,
    broken_before_its_f,
    more_attackers_than_tolerated,
)

SPEC = {"task": "quartic", "rule": "nnm >> krum", "attack": "alie", "rounds": 3, "lr": 0.1}
CASES = {  # changes -> how many attack and are tolerated; None where nothing is said
    "no more than f": ({}, None),
    "fewer than f": ({"attackers": 1}, None),
    "more than f": ({"attackers": 4}, (4, 3)),
    "by their ids": ({"attackers": [0, 2, 4, 6]}, (4, 3)),
    "more than the rule's own f": ({"rule": {"name": "krum", "f": 1}}, (3, 1)),
    "more than a stage's own f": ({"rule": "nnm(f=2) >> krum"}, (3, 2)),
    "as many as the rule's own f": ({"f": 1, "attackers": 2, "rule": {"name": "krum", "f": 2}}, None),
    "the mean, which has no f": ({"rule": "mean"}, None),
    "the mean, and more than f": ({"rule": "mean", "attackers": 4}, (4, 3)),
    "poisoned data": ({"task": "digits", "attack": "label_flip", "attackers": 5}, (5, 3)),
    "nobody attacks": ({"attackers": 4, "attack": "none"}, None),
    "a guard": ({"rule": "mean", "method": {"name": "safeguard", "differing": True}, "attackers": 4}, (4, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_more_attackers_than_tolerated_are_said(name):
    changes, expected = CASES[name]
    line = more_attackers_than_tolerated({"main": Spec.of(SPEC | changes)})
    begins = "{} of 20 workers attack, and f = {} are tolerated. ".format(*expected) if expected else ""
    assert line.startswith(begins)
    assert bool(line) == bool(expected)


def test_of_several_runs_it_is_said_which():
    specs = {f"run {i}": Spec.of(SPEC | {"attackers": i}) for i in range(3, 6)}
    assert "f = 3 are tolerated (in 2 of 3 runs, as run 4)." in more_attackers_than_tolerated(specs)
    specs["run 5"] = specs["run 4"]
    assert "(in 2 of 3 runs: run 4, run 5)." in more_attackers_than_tolerated(specs)


@pytest.mark.parametrize("command", ["run", "audit", "sweep"])
def test_commands_say_it_in_one_line_on_stderr(command, byzopt, here):
    (here / "spec.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in SPEC.items()))
    (here / "sweep.toml").write_text('base = "spec.toml"\ngrid = {attackers = [3, 4]}\n')
    words = ("sweep.toml", "--dry-run") if command == "sweep" else ("spec.toml", "attackers=4")
    said = byzopt(command, *words, "--json")
    assert said.status == 0
    json.loads(said.out)
    (note,) = (line for line in said.err.splitlines() if line.startswith("byzopt: note: "))
    assert "4 of 20 workers attack, and f = 3 are tolerated" in note


def test_a_rule_that_trusts_an_attacker_is_told_of():
    for rule in ("fltrust", "boba", "rlr(rule='boba', threshold=2)"):
        told = betrayed_trust({"main": Spec.of(SPEC | {"n": 12, "f": 1, "rule": rule, "attackers": [0]})})
        assert len(told) == 1
        assert "of whom [0] attack" in told[0]
        assert not betrayed_trust({"main": Spec.of(SPEC | {"n": 12, "f": 1, "rule": rule, "attackers": [9]})})


@pytest.mark.parametrize(
    "rule, bears",
    [
        ("foundation(rule='trimmed_mean')", 1),
        ("nnm >> foundation(rule='trimmed_mean')", 1),
        ("foundation(rule='trimmed_mean(f=5)')", None),
        ("foundation(rule='median')", None),
        ("foolsgold", 0),
        ("median", None),
        ("mean", None),
        ("rfa", None),
    ],
)
def test_a_rule_that_breaks_down_before_its_f_is_told_of(rule, bears):
    spec = Spec.of(SPEC | {"n": 20, "f": 3, "rule": rule})
    told = broken_before_its_f({"main": spec, "again": spec})
    assert len(told) == (bears is not None)
    if told:
        assert told[0].startswith("3 of 20 workers attack, as f = 3 says, but more than ")
        assert f"more than {bears} can carry" in told[0]
    assert not broken_before_its_f(
        {"main": Spec.of(SPEC | {"n": 20, "f": 3, "rule": rule, "attack": "none"})}
    )
    if bears:
        fewer = {"n": 20, "f": 3, "rule": rule, "attackers": bears}
        assert not broken_before_its_f({"main": Spec.of(SPEC | fewer)})


@pytest.mark.parametrize(
    "wrong, near", [("fluding", "flooding"), ("late_poisn", "late_poison"), ("spectrl", "spectral")]
)
def test_names_of_all_kinds_of_attacks_are_suggested(wrong, near):
    with pytest.raises(UnknownName, match=f"Did you mean '{near}'"):
        Spec.of(SPEC | {"attack": wrong})
