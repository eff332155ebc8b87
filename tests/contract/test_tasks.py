"""What every registered task promises. A new task is tested here by being registered."""

from __future__ import annotations

import random
from copy import copy
from dataclasses import replace
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput, MissingData
from byzopt.rng import stream
from byzopt.tasks import TASKS, Task

COHORT = Cohort(4, (1,))
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


def build(name: str, cohort: Cohort = COHORT, seed: int = 0) -> Task:
    """A fresh task, or a skip where its data are not on disk: tests do not download."""
    with patch("byzopt.tasks.data.store.urlopen", side_effect=OSError("tests do not download")):
        try:
            return TASKS.build({"name": name} | SMALL.get(name, {})).build(cohort, seed)
        except MissingData as error:
            pytest.skip(str(error))


@cache
def shared(name: str) -> Task:
    """One task for all the tests that only read it; a task holds no state that a round changes."""
    return build(name)


def same(a: Any, b: Any) -> bool:
    """Equality of batches: tensors, tuples of them, or None."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def nearby(x: Tensor, seed: int = 0) -> Tensor:
    return x + 0.1 * torch.randn(x.shape, dtype=x.dtype, generator=stream(seed, "nearby"))


def full_batch(task: Task) -> Any:
    try:
        return task.full()
    except InvalidInput as error:
        pytest.skip(str(error))


@pytest.fixture(params=list(TASKS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_start_is_one_flat_finite_vector_that_fits_the_layout(name):
    x = shared(name).start()
    assert x.shape == (shared(name).layout.d,)
    assert x.is_floating_point()
    assert bool(x.isfinite().all())
    assert not x.requires_grad


def test_equal_seeds_build_equal_tasks(name):
    first, second = shared(name), build(name)
    assert first.start().equal(second.start())
    assert same(first.draw(2), second.draw(2))
    x = nearby(first.start())
    assert first.grads(x, first.draw(2)).equal(second.grads(x, second.draw(2)))
    assert first.measure(x) == second.measure(x)


def test_different_seeds_give_different_gradients(name):
    first, second = shared(name), build(name, seed=1)
    x = nearby(first.start())
    assert not first.grads(x, first.draw(1)).equal(second.grads(x, second.draw(1)))


def test_a_draw_depends_on_its_round_and_not_on_earlier_draws(name):
    used, fresh = shared(name), build(name)
    in_order = [used.draw(t) for t in (1, 2, 3)]
    assert same(fresh.draw(3), in_order[2])
    assert same(fresh.draw(1), in_order[0])
    assert same(used.draw(2), in_order[1])
    assert not same(in_order[0], in_order[1])


def test_gradients_are_one_finite_row_for_each_worker_in_the_dtype_of_the_point(name):
    task = shared(name)
    x = task.start()
    rows = task.grads(x, task.draw(1))
    assert rows.shape == (COHORT.n, task.layout.d)
    assert (rows.dtype, rows.device) == (x.dtype, x.device)
    assert bool(rows.isfinite().all())
    assert not rows.requires_grad


def test_one_sample_gives_the_same_gradients_again_after_another_point(name):
    task = shared(name)
    x, batch = task.start(), task.draw(1)
    other = nearby(x)
    there, elsewhere = task.grads(x, batch).clone(), task.grads(other, batch).clone()
    assert task.grads(x, batch).equal(there)
    assert there.equal(elsewhere) == (name == "hard_lin")  # a linear loss has one slope


def test_the_point_and_the_batch_are_not_written_to(name):
    task = shared(name)
    x, batch = task.start(), task.draw(1)
    before = x.clone()
    task.grads(x, batch)
    task.measure(x)
    assert x.equal(before)
    assert same(batch, task.draw(1))
    assert task.start().equal(before)


def test_measures_are_finite_numbers_with_a_loss(name):
    figures = shared(name).measure(shared(name).start())
    assert "loss" in figures
    assert all(type(value) is float and np.isfinite(value) for value in figures.values())
    assert 0 <= figures.get("accuracy", 0.0) <= 1


def test_every_honest_worker_has_figures_of_its_own_that_liars_cannot_touch(name):
    task = copy(shared(name))
    if hasattr(task, "pool"):  # a few samples a worker, because passes over all data take long
        task.pool = replace(task.pool, shards=tuple(shard[:8] for shard in task.pool.shards))
    x = nearby(task.start())
    before, found = x.clone(), task.measure_workers(x)
    assert torch.equal(x, before)
    assert set(found) in ({"loss"}, {"loss", "accuracy"})
    for values in found.values():
        assert len(values) == len(COHORT.honest)
        assert all(isinstance(value, float) and np.isfinite(value) for value in values)
    assert all(0 <= value <= 1 for value in found.get("accuracy", ()))
    try:
        flipped = task.relabelled(COHORT.byzantine, lambda labels, classes: classes - 1 - labels)
    except InvalidInput:
        return
    assert flipped.measure_workers(x) == found


def test_the_mean_honest_full_gradient_lowers_the_measured_loss(name):
    task = shared(name)
    x = nearby(task.start())
    slope = task.grads(x, full_batch(task))[list(COHORT.honest)].mean(dim=0)
    step = 1e-2 / float(slope.norm())
    assert task.measure(x - step * slope)["loss"] < task.measure(x)["loss"]


@pytest.mark.parametrize("worker", range(COHORT.n))
def test_a_full_gradient_is_the_slope_of_that_workers_own_loss(name, worker):
    """With one honest worker the measured loss is its own; compared along random directions."""
    x = nearby(shared(name).start())
    if x.dtype != torch.float64:
        pytest.skip(f"{name} runs in {x.dtype}: finite differences would measure rounding.")
    alone = build(name, Cohort(COHORT.n, tuple(i for i in range(COHORT.n) if i != worker)))
    row = alone.grads(x, full_batch(alone))[worker]
    for seed in range(3):
        way = torch.randn(x.shape, dtype=x.dtype, generator=stream(seed, "direction"))
        way, width = way / way.norm(), 1e-5
        rise = alone.measure(x + width * way)["loss"] - alone.measure(x - width * way)["loss"]
        assert rise / (2 * width) == pytest.approx(float(row @ way), rel=1e-6, abs=1e-8)


def test_relabelling_changes_the_gradients_of_those_workers_only(name):
    task = shared(name)
    x, batch = nearby(task.start()), task.draw(1)
    before = task.grads(x, batch).clone()
    try:
        poisoned = task.relabelled((1, 3), lambda labels, classes: classes - 1 - labels)
    except InvalidInput as error:
        assert "labels" in str(error)  # noqa: PT017 - a task without labels has to say so
        return
    changed = (poisoned.grads(x, poisoned.draw(1)) != before).any(dim=1)
    assert changed.tolist() == [False, True, False, True]
    assert task.grads(x, batch).equal(before)


def test_no_global_generator_is_touched(name):
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    task = build(name)
    x = task.start()
    task.grads(x, task.draw(1))
    task.measure(x)
    assert torch.get_rng_state().equal(states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


def test_the_global_generator_changes_nothing(name):
    torch.manual_seed(123)
    task = build(name)
    assert task.start().equal(shared(name).start())
    x = nearby(task.start())
    assert task.grads(x, task.draw(1)).equal(shared(name).grads(x, shared(name).draw(1)))
