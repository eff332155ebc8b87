"""What every task promises: gradients that are functions of the point and a sample that repeats."""

from __future__ import annotations

import random
from functools import lru_cache
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.tasks import Task, TaskRecipe
from byzopt.testing.checks import Requirement, equal, holds, normal

COHORT = Cohort(4, (1,))


def build(recipe: TaskRecipe, cohort: Cohort = COHORT, seed: int = 0) -> Task:
    """A fresh task for few workers, one of whom lies."""
    return recipe.build(cohort, seed)


@lru_cache(maxsize=4)
def shared(recipe: TaskRecipe) -> Task:
    """One task for all checks that only read it: a task holds no state that a round changes."""
    return build(recipe)


def nearby(x: Tensor) -> Tensor:
    """A point near `x` `[d]`, the same each time."""
    return x + 0.1 * normal(*x.shape, seed=7, dtype=x.dtype).to(x.device)


def starts_at_a_finite_point(recipe: TaskRecipe) -> None:
    """The start is one flat finite vector `[d]` that fits the layout and needs no gradient."""
    task = shared(recipe)
    x = task.start()
    holds(x.shape == (task.layout.d,), f"shape {list(x.shape)} with a layout of {task.layout.d} coordinates")
    holds(x.is_floating_point() and x.isfinite().all() and not x.requires_grad, f"{x.dtype}")


def is_a_function_of_its_seed(recipe: TaskRecipe) -> None:
    """Equal seeds build equal tasks: start, samples, gradients and figures."""
    first, second = shared(recipe), build(recipe)
    x = nearby(first.start())
    holds(equal(first.start(), second.start()), "two starts")
    holds(equal(first.draw(2), second.draw(2)), "two samples of round 2")
    holds(equal(first.grads(x, first.draw(2)), second.grads(x, second.draw(2))), "two sets of gradients")
    holds(first.measure(x) == second.measure(x), "two sets of figures")


def differs_between_seeds(recipe: TaskRecipe) -> None:
    """Another seed gives other gradients."""
    first, second = shared(recipe), build(recipe, seed=1)
    x = nearby(first.start())
    holds(not equal(first.grads(x, first.draw(1)), second.grads(x, second.draw(1))), "the same gradients")


def keeps_the_seed_of_its_data_apart(recipe: TaskRecipe) -> None:
    """Where data have a seed of their own, it alone decides on them, and the run's on what else is drawn."""
    try:
        same, other = recipe.build_on(COHORT, 0, 0), recipe.build_on(COHORT, 1, 0)
    except InvalidInput:
        return
    first = shared(recipe)
    x = nearby(first.start())
    rows = first.grads(x, first.draw(1))
    holds(equal(rows, same.grads(x, same.draw(1))), "others where the seeds are equal")
    holds(first.measure(x) == other.measure(x), "other figures where only the run's seed differs")
    holds(not equal(rows, other.grads(x, other.draw(1))), "the same samples under another seed of the run")


def draws_each_round_anew(recipe: TaskRecipe) -> None:
    """A round's sample depends on the seed and the round, not on what was drawn before."""
    used, fresh = shared(recipe), build(recipe)
    in_order = [used.draw(t) for t in (1, 2, 3)]
    for t in (3, 1, 2):
        holds(equal(fresh.draw(t), in_order[t - 1]), f"another sample of round {t} in another order")
    holds(not equal(in_order[0], in_order[1]), "the same sample in rounds 1 and 2")


def gives_one_finite_row_for_each_worker(recipe: TaskRecipe) -> None:
    """Gradients are `[n, d]` in the dtype and on the device of the point, finite, without a graph."""
    task = shared(recipe)
    x = task.start()
    rows = task.grads(x, task.draw(1))
    holds(rows.shape == (COHORT.n, task.layout.d), f"shape {list(rows.shape)}")
    holds((rows.dtype, rows.device) == (x.dtype, x.device), f"{rows.dtype} on {rows.device}")
    holds(rows.isfinite().all() and not rows.requires_grad, "rows with NaN, Inf or a graph")


def repeats_gradients_on_one_sample(recipe: TaskRecipe) -> None:
    """The same point on the same sample has the same gradients, also after another point was asked for."""
    task = shared(recipe)
    x, batch = task.start(), task.draw(1)
    first = task.grads(x, batch).clone()
    task.grads(nearby(x), batch)
    holds(equal(task.grads(x, batch), first), "other gradients")


def takes_gradients_at_points_of_workers_own(recipe: TaskRecipe) -> None:
    """`grads_at` gives each worker the gradient that a call for it alone does, and refuses one point."""
    task = shared(recipe)
    x, batch = nearby(task.start()), task.draw(1)
    points = torch.stack([x + 0.01 * i * (x - task.start()) for i in range(COHORT.n)])
    rows = task.grads_at(points, batch)
    each = [task.grads_of(point, batch, slice(i, i + 1)) for i, point in enumerate(points)]
    expected, limit = torch.cat(each), torch.finfo(rows.dtype).eps ** 0.5
    far = float((rows - expected).norm() / expected.norm().clamp_min(torch.finfo(rows.dtype).tiny))
    holds(far <= limit, f"rows that differ by {far} of their length from those of a call for each worker")
    try:
        task.grads_at(x, batch)
    except InvalidInput:
        return
    holds(False, "an answer to one point of all workers")


def writes_to_nothing(recipe: TaskRecipe) -> None:
    """Neither the point nor the sample is written to, and a round leaves no trace in the task."""
    task = shared(recipe)
    x, batch = task.start(), task.draw(1)
    before = x.clone()
    task.grads(x, batch)
    task.measure(x)
    holds(equal(x, before), "a point that was changed")
    holds(equal(batch, task.draw(1)), "a sample that was changed")
    holds(equal(task.start(), before), "another start")


def measures_finite_figures_with_a_loss(recipe: TaskRecipe) -> None:
    """Figures of merit are finite floats; `loss` is one of them, and `accuracy` lies in [0, 1]."""
    task = shared(recipe)
    figures = task.measure(task.start())
    holds("loss" in figures, f"the figures {sorted(figures)}")
    holds(all(type(value) is float and isfinite(value) for value in figures.values()), f"{figures}")
    holds(0 <= figures.get("accuracy", 0.0) <= 1, f"an accuracy of {figures.get('accuracy')}")


def touches_no_global_generator(recipe: TaskRecipe) -> None:
    """No global generator is read or moved, of torch, NumPy or Python: randomness comes from the seed."""
    task = shared(recipe)
    x = nearby(task.start())
    first = task.grads(x, task.draw(1))
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        torch.manual_seed(123)
        np.random.seed(123)
        random.seed(123)
        held = torch.get_rng_state(), _numbers(), random.getstate()
        again = build(recipe)
        rows = again.grads(x, again.draw(1))
        again.measure(x)
        moved = (
            not equal(held[0], torch.get_rng_state())
            or (held[1] != _numbers())
            or held[2] != random.getstate()
        )
        holds(not moved, "a global generator that was moved")
        holds(equal(rows, first), "other gradients under another global seed")
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def lowers_the_loss_along_the_full_gradient(recipe: TaskRecipe) -> None:
    """A short step against the mean honest full gradient lowers the measured loss, where there is one."""
    task = shared(recipe)
    x = nearby(task.start())
    try:
        batch = task.full()
    except InvalidInput:
        return
    slope = task.grads(x, batch)[list(COHORT.honest)].mean(dim=0)
    step = 1e-2 / float(slope.norm())
    before, after = task.measure(x)["loss"], task.measure(x - step * slope)["loss"]
    holds(after < before, f"a loss of {after} after {before}")


def relabels_those_workers_alone(recipe: TaskRecipe) -> None:
    """Changed labels change the gradients of those workers and no other; without labels it says so."""
    task = shared(recipe)
    x, batch = nearby(task.start()), task.draw(1)
    before = task.grads(x, batch).clone()
    try:
        poisoned = task.relabelled((1, 3), lambda labels, classes: classes - 1 - labels)
    except InvalidInput:
        return
    changed = (poisoned.grads(x, poisoned.draw(1)) != before).any(dim=1).tolist()
    holds(changed == [False, True, False, True], f"changed rows {changed} for workers 1 and 3")
    holds(equal(task.grads(x, batch), before), "a task that was changed itself")


def has_figures_of_single_workers_that_liars_cannot_touch(recipe: TaskRecipe) -> None:
    """`measure_workers` has finite figures for each honest worker, which no label of a liar changes."""
    task = shared(recipe)
    x = nearby(task.start())
    try:
        figures = task.measure_workers(x)
    except InvalidInput:
        return
    holds(set(figures) in ({"loss"}, {"loss", "accuracy"}), f"the figures {sorted(figures)}")
    for values in figures.values():
        holds(
            len(values) == len(COHORT.honest), f"{len(values)} values for {len(COHORT.honest)} honest workers"
        )
        holds(all(isinstance(value, float) and isfinite(value) for value in values), f"{values}")
    try:
        flipped = task.relabelled(COHORT.byzantine, lambda labels, classes: classes - 1 - labels)
    except InvalidInput:
        return
    holds(flipped.measure_workers(x) == figures, "other figures when liars change their labels")


def has_the_slope_of_each_workers_loss(recipe: TaskRecipe) -> None:
    """A full gradient is the slope of that worker's own loss, which is measured where it alone is honest.

    Compared along random directions, in float64: elsewhere finite differences would measure rounding.
    """
    x = nearby(shared(recipe).start())
    if x.dtype != torch.float64:
        return
    for worker in range(COHORT.n):
        alone = build(recipe, Cohort(COHORT.n, tuple(i for i in range(COHORT.n) if i != worker)))
        try:
            row = alone.grads(x, alone.full())[worker]
        except InvalidInput:
            return
        for seed in range(3):
            way = normal(*x.shape, seed=seed).to(x.device)
            way, width = way / way.norm(), 1e-5
            rise = alone.measure(x + width * way)["loss"] - alone.measure(x - width * way)["loss"]
            slope, expected = rise / (2 * width), float(row @ way)
            holds(
                abs(slope - expected) <= 1e-6 * abs(expected) + 1e-8,
                f"{expected} where the loss rises by {slope}",
            )


def tells_the_loss_of_some_workers(recipe: TaskRecipe) -> None:
    """Where `loss_of` tells the loss of some workers, it is the mean of theirs, `slope_of` its gradient, and
    that of the honest the value of the objective.

    Compared along random directions, in float64: elsewhere finite differences would measure rounding.
    """
    check_losses(shared(recipe))


def check_losses(task: Task) -> None:
    """`tells_the_loss_of_some_workers` of a task that is built already. Errors: `BrokenPromise`."""
    x, honest = nearby(task.start()), COHORT.honest
    try:
        each = [task.loss_of(x, (i,)) for i in range(COHORT.n)]
    except InvalidInput:
        return
    exact = x.dtype == torch.float64
    limit = 1e-9 if exact else 1e-4
    mean, both = sum(each[i] for i in (1, 3)) / 2, task.loss_of(x, (1, 3))
    holds(abs(both - mean) <= limit * max(abs(mean), 1), f"{both} where the mean is {mean}")
    rows = torch.stack([task.slope_of(x, (i,)) for i in (1, 3)]).mean(dim=0)
    slope = task.slope_of(x, (1, 3))
    far = float((slope - rows).norm() / rows.norm())
    holds(far <= limit, f"a gradient that differs by {far} of its length from the mean")
    try:
        value, row = task.objective(x)
    except InvalidInput:
        pass
    else:
        shift = task.loss_of(task.start(), honest) - task.objective(task.start())[0]
        told = task.loss_of(x, honest) - shift  # an objective may leave out a constant
        holds(abs(told - value) <= limit * max(abs(value), 1), f"{told} where the objective is {value}")
        holds(float((task.slope_of(x, honest) - row).norm() / row.norm()) <= limit, "another gradient")
    for seed in range(3 if exact else 0):
        way, width = normal(*x.shape, seed=seed).to(x.device), 1e-5
        way /= way.norm()
        rise = task.loss_of(x + width * way, (1, 3)) - task.loss_of(x - width * way, (1, 3))
        found, expected = rise / (2 * width), float(slope @ way)
        # Central differences: width² of the third derivative, and eps/width of the loss's rounding.
        holds(abs(found - expected) <= 1e-6 * abs(expected) + 1e-8, f"{expected}, the loss rises by {found}")


def _numbers() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()
    return (kind, np.asarray(keys).tobytes(), *rest)


PROMISES = (
    Requirement(starts_at_a_finite_point),
    Requirement(is_a_function_of_its_seed),
    Requirement(differs_between_seeds),
    Requirement(keeps_the_seed_of_its_data_apart),
    Requirement(draws_each_round_anew),
    Requirement(gives_one_finite_row_for_each_worker),
    Requirement(repeats_gradients_on_one_sample),
    Requirement(takes_gradients_at_points_of_workers_own),
    Requirement(writes_to_nothing),
    Requirement(measures_finite_figures_with_a_loss),
    Requirement(touches_no_global_generator),
    Requirement(lowers_the_loss_along_the_full_gradient),
    Requirement(relabels_those_workers_alone),
    Requirement(has_figures_of_single_workers_that_liars_cannot_touch),
    Requirement(has_the_slope_of_each_workers_loss),
    Requirement(tells_the_loss_of_some_workers),
)
