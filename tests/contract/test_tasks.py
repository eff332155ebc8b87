"""What every registered task promises. A new task is tested here by being registered."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from byzopt.cohort import Cohort
from byzopt.errors import MissingData
from byzopt.tasks import TASKS, Task, TaskRecipe
from byzopt.testing import checks_of
from byzopt.testing.tasks import COHORT, nearby

# Sizes that keep this suite fast; a task that is not named here runs with its defaults.
SMALL: dict[str, dict[str, Any]] = {
    "logistic_regression": {"batch": 8, "partition": {"name": "dirichlet", "alpha": 0.5}},
    "digits": {"batch": 8, "hidden": [16]},
    "mnist": {"batch": 8, "hidden": [16]},
    "shakespeare": {"context": 32, "batch": 4, "layers": 1, "heads": 2, "width": 8, "eval_samples": 64},
    "mnist_released": {"batch": 2, "eval_samples": 16},
    "shakespeare_released": {"batch": 1, "eval_samples": 2}
    | {"context": 32, "layers": 1, "heads": 2, "width": 8},
}


def small(name: str) -> TaskRecipe:
    """A registered task at a size that tests can afford."""
    return TASKS.build({"name": name} | SMALL.get(name, {}))


def build(name: str, cohort: Cohort = COHORT, seed: int = 0) -> Task:
    """A fresh task, or a skip where its data are not on disk: tests do not download."""
    with patch("byzopt.tasks.data.store.urlopen", side_effect=OSError("tests do not download")):
        try:
            return small(name).build(cohort, seed)
        except MissingData as error:
            pytest.skip(str(error))


# Tasks whose passes over all data take long: there a few samples a worker are looked at.
WIDE = ("mnist_released", "shakespeare_released", "shakespeare")
ALONE = "has_figures_of_single_workers_that_liars_cannot_touch"
CHECKS = [
    check
    for check in checks_of(*(small(name) for name in TASKS))
    if not (check.part.name in WIDE and check.promise.name == ALONE)
]


@pytest.mark.parametrize("check", CHECKS, ids=[check.name for check in CHECKS])
def test_what_every_task_promises(check):
    with patch("byzopt.tasks.data.store.urlopen", side_effect=OSError("tests do not download")):
        try:
            check()
        except MissingData as error:
            pytest.skip(str(error))


@pytest.mark.parametrize("name", WIDE)
def test_figures_of_single_workers_on_a_few_samples(name):
    task = copy(build(name))
    task.pool = replace(task.pool, shards=tuple(shard[:8] for shard in task.pool.shards))
    x = nearby(task.start())
    figures = task.measure_workers(x)
    assert set(figures) in ({"loss"}, {"loss", "accuracy"})
    assert all(len(values) == len(COHORT.honest) for values in figures.values())
    flipped = task.relabelled(COHORT.byzantine, lambda labels, classes: classes - 1 - labels)
    assert flipped.measure_workers(x) == figures
