"""Every registered task, at a size that tests can afford."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from byzopt.cohort import Cohort
from byzopt.errors import MissingData
from byzopt.tasks import TASKS, Task, TaskRecipe
from byzopt.testing.tasks import COHORT

# Sizes that keep this suite fast; a task that is not named here runs with its defaults.
OWN = Path(__file__).parent / "files" / "digits.npz"  # 120 training and 40 test images
SMALL: dict[str, dict[str, Any]] = {
    "data_set": {"data": str(OWN), "batch": 8, "hidden": [16]},
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
    try:
        return small(name).build(cohort, seed)
    except MissingData as error:
        pytest.skip(str(error))
