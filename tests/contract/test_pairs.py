"""Every method, task and compressor together: they run, or are refused before round 1 with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from typing import Any

import pytest

from byzopt.aggregators import Mean
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput, Status
from byzopt.experiments import simulate
from byzopt.methods import METHODS, Method
from byzopt.methods.base import with_counts
from byzopt.tasks import TASKS, Task
from byzopt.wire import COMPRESSORS
from tests.short_methods import short
from tests.small_tasks import build

N, F = 7, 2
UNBIASED = (
    "br_csgd",
    "br_diana",
    "byz_vr_marina",
    "byz_vr_marina2",
    "byz_vr_marina_pp",
    "byz_dasha_page",
    "rosdhb",
)
CONTRACTIVE = ("byz_dm21", "byz_vr_dm21", "byz_ef21", "byz_ef21_bc", "byz_ef21_sgdm", "ef_sign")
PASSLESS = ("mnist_released", "shakespeare_released")  # whose data are their minibatches
LARGE = ("mnist", "shakespeare")  # there a full pass takes a second: here it is one batch
HEAVY = (*LARGE, *PASSLESS)
QUICK = ("quartic", "digits")  # a compressor knows of a task its dimension alone: one low, one high


@cache
def parts_of(method: str) -> Method:
    """The parts of a method, whose traits say what it needs."""
    return with_counts(METHODS.build(method), N, F).build(Mean(), 0.01, 3)


@cache
def task_of(name: str) -> Task:
    task = build(name, Cohort.of(N, F))
    if name in LARGE:
        sample = task.draw(1)
        task.full = lambda: sample  # type: ignore[method-assign]
    return task


def variants() -> Iterator[tuple[str, dict[str, Any]]]:
    """All methods as they are, and with each compressor in each place for one."""
    for method in METHODS:
        yield method, {}
        places = {field.name for field in fields(METHODS.build(method))} & {"compressor", "down"}  # type: ignore[arg-type]
        yield from ((method, {place: name}) for place in sorted(places) for name in COMPRESSORS)


VARIANTS = list(variants())


def outcome(task: Task, method: str, parameters: dict[str, Any], rounds: int = 3) -> str:
    """How a few rounds end; the reason where they are refused."""
    guards = parts_of(method).filter.assumes_one_distribution
    rule, wish = ("mean", {"differing": True}) if guards else ("nnm >> trimmed_mean", {})
    try:
        recipe = METHODS.build(short(method) | wish | parameters)
        return str(simulate(task, rule, 0.01, rounds, F, recipe, "alie", placement="message").status)
    except InvalidInput as refusal:
        return str(refusal)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in TASKS]
)
def test_it_runs_or_says_why_not(name):
    """Nothing but `InvalidInput` ever leaves, and it says what is wrong, by which rule."""
    for method in METHODS:
        if name == "mnist_released" and method not in ("byz_vr_dm21", "byz_ef21"):
            continue  # a second each
        runs_or_says(name, method, {})


SMALL = [name for name in TASKS if name not in HEAVY]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SMALL]
)
def test_it_runs_with_each_compressor_or_says_why_not(name):
    for method, parameters in VARIANTS:
        if parameters:
            runs_or_says(name, method, parameters)


def runs_or_says(name, method, parameters):
    task = task_of(name)
    found = outcome(task, method, parameters, rounds=2 if name in HEAVY else 3)
    if parts_of(method).needs_proxy:
        assert "a loss that the server owns" in found
        return
    made = {place: COMPRESSORS.build(what) for place, what in parameters.items()}
    if method in UNBIASED and any(not one.unbiased for one in made.values()):
        assert "should be unbiased. Found" in found, (method, parameters)
    elif method in CONTRACTIVE and not all(
        one.contracts and one.alpha(task.layout.d) for one in made.values()
    ):
        assert "should be contractive. Found" in found, (method, parameters)
    elif "full" in parts_of(method).worker.needs and name in PASSLESS:
        assert "no full gradients" in found, method
    else:
        assert found == Status.COMPLETED, (method, parameters, found)


def test_every_method_with_a_compressor_is_classed():
    assert {method for method, parameters in VARIANTS if parameters} == {*UNBIASED, *CONTRACTIVE}


@pytest.mark.parametrize("method", METHODS)
def test_a_task_with_a_loss_of_its_own_serves_every_method(method):
    task = TASKS.build({"name": "quadratic", "proxy": "worker"}).build(Cohort.of(N, F), 0)
    assert outcome(task, method, {}) == Status.COMPLETED


@pytest.mark.parametrize("method", METHODS)
def test_a_task_that_cannot_replay_a_sample_refuses_variance_reduction_alone(method):
    task = TASKS.build({"name": "quadratic", "proxy": "worker"}).build(Cohort.of(N, F), 0)
    stream = type("Stream", (type(task),), {"replays": False})
    task.__class__ = stream
    found = outcome(task, method, {})
    if "replay" in parts_of(method).worker.needs:
        assert "should have gradients at two points on one sample" in found
    else:
        assert found == Status.COMPLETED
