"""Task recipes out of functions that make tasks, and out of task classes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import isfunction
from typing import Any

import numpy as np
import torch

from byzopt.cohort import Cohort
from byzopt.errors import require, said
from byzopt.own_files import called, recipe_from
from byzopt.rng import seed_of
from byzopt.tasks.base import TASKS, Task, TaskRecipe

FILLED = ("cohort", "n", "byzantine", "seed")  # parameters that come from the spec


def task_recipe(part: Any) -> type[TaskRecipe] | None:
    """The recipe's class of a function that returns a task, or of a class that is one; None for others.

    Its parameters are the keys of the table, but for those that a spec fills in: `cohort`, its number of
    workers `n`, the ids `byzantine`, and `seed`, from which all follows that it draws, also from the global
    generators of PyTorch (on the CPU), NumPy and Python. `tested` is that of the function or class, by
    default True.
    """
    if not isfunction(part) and not (isinstance(part, type) and issubclass(part, Task)):
        return None
    recipe = recipe_from(part, TaskRecipe, FILLED, _build)
    recipe.tested = bool(getattr(part, "tested", True))
    return recipe


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let what is drawn from global generators follow from `seed`, and leave them as they were."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _build(recipe: Any, cohort: Cohort, seed: int) -> Task:
    known = {"cohort": cohort, "n": cohort.n, "byzantine": cohort.byzantine, "seed": seed}
    with _seeded(seed_of(seed, "own task")):
        made = called(recipe, known)
    if isinstance(made, TaskRecipe):
        made = made.build(cohort, seed)
    what = f"`{recipe.call.__name__}`"
    require(isinstance(made, Task), what, "return a Task", said(made))
    fits = made.cohort == cohort
    workers = f"n = {made.cohort.n}, Byzantine {list(made.cohort.byzantine)}"
    wanted = f"have the spec's workers, n = {cohort.n}, Byzantine {list(cohort.byzantine)}"
    remedy = f"Let {what} take `cohort`, or `n` and `byzantine`: a spec fills them in."
    require(fits, f"The task of {what}", wanted, workers, remedy)
    task: Task = made
    return task


TASKS.adapts(Task, task_recipe)
