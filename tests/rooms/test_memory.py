"""Runs that cannot fit into memory are refused before anything is allocated, with what they would take."""

from __future__ import annotations

import pytest

from byzopt.certificates.breaking import break_rule
from byzopt.certificates.promised import spec_promise
from byzopt.errors import InvalidInput
from byzopt.experiments import Spec
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.specs.loading import presets
from byzopt.experiments.trials.memory import available_memory, check_memory, check_processes
from byzopt.tasks import TASKS

SPEC = {"task": {"name": "quadratic", "d": 3}, "rule": "mean", "n": 7, "f": 1, "rounds": 2, "lr": 0.1}
GPT = {"name": "shakespeare", "width": 1 << 30, "heads": 1}
TOO_LARGE = {
    "workers": {"n": 10**9 * 1000},
    "coordinates": {"task": {"name": "quadratic", "d": 1 << 50}},
    "a minibatch": {"task": {"name": "mnist", "batch": 1 << 50}},
    "another minibatch": {"task": {"name": "logistic_regression", "batch": 1 << 50}},
    "a layer": {"task": {"name": "digits", "hidden": [1 << 50]}},
    "a language model": {"task": GPT},
    "a released language model": {"task": GPT | {"name": "shakespeare_released"}},
    "layers": {"task": {"name": "shakespeare", "layers": 1 << 50}},
    "a released minibatch": {"task": {"name": "mnist_released", "batch": 1 << 50}},
    "products of all pairs of rows": {"n": 10**8, "rule": "krum"},
    "products in a chain": {"n": 10**8, "rule": "nnm >> median"},
    "products in a wrapper": {"n": 10**8, "rule": "fail_closed(rule='krum')"},
}


@pytest.mark.parametrize("change", TOO_LARGE.values(), ids=list(TOO_LARGE))
def test_what_cannot_fit_is_refused_and_says_how_much_it_would_take(change, monkeypatch):
    monkeypatch.setattr("byzopt.experiments.trials.memory.available_memory", lambda: 1 << 40)
    spec = Spec.of(SPEC | change)
    for use in (lambda: prepare_spec(spec, {}), lambda: spec_promise(spec)):
        with pytest.raises(InvalidInput, match=r"fit into the 1,024.0 GiB of memory.*at least [\d,.]+ GiB"):
            use()


def test_what_is_told_is_the_least_that_is_needed(monkeypatch):
    spec = Spec.of(SPEC)
    need = 7 * (3 * 8 + 40)
    monkeypatch.setattr("byzopt.experiments.trials.memory.available_memory", lambda: need)
    check_memory(7, spec.task.worker_bytes, spec.rule, "It")
    prepare_spec(spec, {})
    monkeypatch.setattr("byzopt.experiments.trials.memory.available_memory", lambda: need - 1)
    with pytest.raises(InvalidInput, match="should fit"):
        prepare_spec(spec, {})


def test_searches_and_processes_are_held_to_it_too(monkeypatch):
    with pytest.raises(InvalidInput, match="should fit"):
        break_rule("krum", 10**9, 3)
    with pytest.raises(InvalidInput, match="should fit"):
        break_rule("mean", 7, 1, d=1 << 50)
    with pytest.raises(InvalidInput, match="should fit"):
        check_processes(Spec.of(SPEC | {"n": 10**6}), 10**6)
    check_processes(Spec.of(SPEC), 2)


def test_this_machine_says_how_much_it_has_and_all_presets_fit():
    from byzopt import load

    assert 1 << 28 < available_memory() < 1 << 60
    for name in presets():
        spec = load(name)
        check_memory(spec.n, spec.task.worker_bytes, spec.rule, name)
        assert spec.task.worker_bytes > 0


def test_a_batch_is_at_most_all_samples():
    for task in ("digits", "logistic_regression"):
        with pytest.raises(
            InvalidInput, match=r"`batch` should be at most all .* training samples. Found 100000"
        ):
            prepare_spec(Spec.of(SPEC | {"task": {"name": task, "batch": 100_000}}), {})


def test_counts_of_released_tasks_are_checked():
    for name, key in (
        ("mnist_released", "batch"),
        ("mnist_released", "rounds"),
        ("shakespeare_released", "layers"),
        ("shakespeare_released", "dropout"),
        ("quartic_released", "d"),
    ):
        with pytest.raises(InvalidInput, match=key):
            TASKS.build({"name": name, key: -1})
