"""What every registered task promises. A new task is tested here by being registered."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import pytest

from byzopt.errors import MissingData
from byzopt.tasks import TASKS
from byzopt.testing import checks_of
from byzopt.testing.tasks import COHORT, check_losses, nearby
from tests.small_tasks import build, small

# Tasks whose passes over all data take long: there a few samples a worker are looked at.
WIDE = ("mnist_released", "shakespeare_released", "shakespeare")
SLOW = ("mnist_released", "shakespeare")  # others have images and text too, and are quicker
LOSSES = "tells_the_loss_of_some_workers"
ALONE = "has_figures_of_single_workers_that_liars_cannot_touch"


def marked(name):
    return pytest.mark.slow if name in SLOW else ()


CHECKS = [
    pytest.param(check, marks=marked(check.part.name), id=check.name)
    for check in checks_of(*(small(name) for name in TASKS))
    if not (check.part.name in WIDE and check.promise.name in (ALONE, LOSSES))
]


@pytest.mark.parametrize("check", CHECKS)
def test_what_every_task_promises(check):
    try:
        check()
    except MissingData as error:
        pytest.skip(str(error))


@pytest.fixture
def on_few_samples(name):
    task = copy(build(name))
    task.pool = replace(task.pool, shards=tuple(shard[:8] for shard in task.pool.shards))
    return task


@pytest.mark.parametrize("name", [pytest.param(name, marks=marked(name)) for name in WIDE])
def test_losses_of_workers_on_a_few_samples(on_few_samples):
    check_losses(on_few_samples)


@pytest.mark.parametrize("name", [pytest.param(name, marks=marked(name)) for name in WIDE])
def test_figures_of_single_workers_on_a_few_samples(on_few_samples):
    task = on_few_samples
    x = nearby(task.start())
    figures = task.measure_workers(x)
    assert set(figures) in ({"loss"}, {"loss", "accuracy"})
    assert all(len(values) == len(COHORT.honest) for values in figures.values())
    flipped = task.relabelled(COHORT.byzantine, lambda labels, classes: classes - 1 - labels)
    assert flipped.measure_workers(x) == figures
