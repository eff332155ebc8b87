"""Gradients at points of workers' own, and several samples in a round."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from byzopt.cohort import Cohort
from byzopt.engines import GradientCount
from byzopt.engines.batched_round import BatchedOracles
from byzopt.errors import InvalidInput
from byzopt.tasks import TASKS, LogisticRegression, ModuleTask, Quadratic, Quartic
from byzopt.tasks.crowd import together
from byzopt.tasks.grads import WorkerGradients, lent_rng, sequence_cross_entropy
from byzopt.tasks.grads.dense import Dense
from byzopt.tasks.grads.own_points import OwnPointsProbe
from byzopt.tasks.grads.plain import Looped, Vmapped
from byzopt.tasks.models import GPT, mlp, mnist_cnn
from byzopt.tasks.quadratic import QuadraticTask
from byzopt.workers import Oracle
from tests.small_tasks import build

COHORT = Cohort.of(4, 1)
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")


def scattered(task, n: int | None = None) -> Tensor:
    """A point for each worker, all different."""
    generator = torch.Generator().manual_seed(3)
    x = task.start()
    steps = torch.randn(n or task.n, len(x), generator=generator, dtype=torch.float64)
    return x + 0.1 * steps.to(x)


def one_by_one(task, points: Tensor, batch, who) -> Tensor:
    """The definition: n calls for one worker each."""
    return torch.cat([task.grads_of(x, batch, slice(i, i + 1)) for x, i in zip(points, who, strict=True)])


def close(task, rows: Tensor, expected: Tensor) -> bool:
    """To the rounding of sums over the samples: float32 for images and text, float64 else."""
    tolerance = 1e-12 if rows.dtype == torch.float64 else 2e-5
    return bool((rows - expected).norm() <= tolerance * expected.norm().clamp_min(1e-30))


@pytest.mark.parametrize("name", [name for name in TASKS if "shakespeare" not in name])
def test_gradients_at_own_points_are_those_of_one_call_for_each_worker(name):
    task = build(name)
    points, batch = scattered(task), task.draw(2)
    assert close(task, task.grads_at(points, batch), one_by_one(task, points, batch, range(task.n)))
    few = slice(1, 3)
    assert close(task, task.grads_at(points[few], batch, few), one_by_one(task, points[few], batch, (1, 2)))
    same = task.start().expand(task.n, -1)
    assert close(task, task.grads_at(same, batch), task.grads(task.start(), batch))


@pytest.mark.parametrize("recipe", [Quadratic(spread=0.3), LogisticRegression(batch=0)])
def test_all_of_a_workers_data_at_its_own_point(recipe):
    task = recipe.build(COHORT, 0)
    points, batch = scattered(task), task.full()
    assert close(task, task.grads_at(points, batch), one_by_one(task, points, batch, range(task.n)))


def data(batch: int | str = 3) -> ModuleTask:
    generator = torch.Generator().manual_seed(0)
    pairs = [
        (
            torch.randn(6 + i, 5, generator=generator, dtype=torch.float64),
            torch.randint(3, (6 + i,), generator=generator),
        )
        for i in range(4)
    ]
    module = mlp((5, 4, 3), 0).double()
    return ModuleTask(module, functional.cross_entropy, pairs, batch=batch, dtype=torch.float64, wd=0.1)


@pytest.mark.parametrize("batch", [3, "full"])
def test_a_module_at_own_points(batch):
    task = data(batch)
    points, sample = scattered(task), task.draw(1)
    assert close(task, task.grads_at(points, sample), one_by_one(task, points, sample, range(4)))


@pytest.mark.parametrize("shape", [(20,), (4, 4, 20), (3, 20), (4, 19), (0, 20)])
def test_anything_but_a_point_for_each_worker_is_refused(shape):
    task = Quadratic().build(COHORT, 0)
    points = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(InvalidInput, match=r"Points of workers' own should have shape \[4, 20\]"):
        task.grads_at(points, task.draw(1))
    with pytest.raises(InvalidInput, match=r"shape \[4, 20\]"):
        GradientCount().oracle(task, 1, 0).at(points)


def test_a_class_that_takes_gradients_otherwise_inherits_no_fast_way():
    class Doubled(QuadraticTask):
        def grads(self, x: Tensor, batch: Tensor) -> Tensor:
            return 2 * super().grads(x, batch)

    plain = Quadratic().build(COHORT, 0)
    task = Doubled(COHORT, plain.curvatures, plain.centres, plain.noise, 0)
    points, batch = scattered(task), task.draw(1)
    assert close(task, task.grads_at(points, batch), 2 * plain.grads_at(points, batch))


class Normed(nn.Module):
    """Lets a worker's samples look at each other, and nobody else's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last((h - h.mean(dim=0)).tanh())


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


WAYS = {
    "chain": (lambda: mlp((6, 5, 4), 0), Dense),
    "samples that look at each other": (Normed, Vmapped),
    "dropout": (Noisy, Vmapped),
    "convolution": (lambda: nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten()), Looped),
}


@pytest.mark.parametrize("name", WAYS)
def test_each_module_is_taken_in_a_way_that_agrees_with_a_loop(name):
    make, way = WAYS[name]
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(4, 3, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(4, (4, 3), generator=generator)
    with lent_rng(0):
        module = make().double()
    fast = WorkerGradients(module, functional.cross_entropy, (inputs, targets))
    slow = WorkerGradients(module, functional.cross_entropy, (inputs, targets), "loop")
    points = fast.start + 0.3 * torch.randn(4, fast.layout.d, generator=generator, dtype=torch.float64)
    rows = fast.at(points, inputs, targets, 5, range(4))
    assert isinstance(fast._way_at_own_points, way)
    # What is drawn hangs on (seed, round, worker) alone, so that a worker alone has the same row.
    alone = [slow(points[i], inputs[i : i + 1], targets[i : i + 1], 5, [i]) for i in range(4)]
    assert torch.allclose(rows, torch.cat(alone), rtol=1e-11, atol=1e-13)


class MeanOfPoints:
    """A way that mixes the workers' points."""

    def __init__(self, pure) -> None:
        self.way, self.module = Looped(pure), pure.module

    def fill_at(self, rows, points, *rest) -> None:
        mixed = points + 1e-12 * points.mean(dim=0)
        self.way.fill_at(rows, mixed, *rest)


def test_a_way_that_lets_one_worker_s_point_reach_another_is_found_out():
    inputs, targets = torch.randn(4, 3, 6, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.int64)
    gradients = WorkerGradients(mlp((6, 5, 4), 0).double(), functional.cross_entropy, (inputs, targets))
    probe = OwnPointsProbe(gradients.corner, gradients.start)
    assert "another worker's point" in probe.objection(MeanOfPoints(gradients.pure))
    assert probe.objection(Vmapped(gradients.pure)) == ""


@pytest.mark.parametrize("module", ["gpt", "cnn"])
def test_text_and_images_at_own_points(module):
    generator = torch.Generator().manual_seed(2)
    if module == "gpt":
        inputs = torch.randint(7, (3, 2, 5), generator=generator)
        made, targets, loss = GPT(7, 5, 1, 2, 8, 0.1, 0), inputs, sequence_cross_entropy
    else:
        inputs = torch.randn(3, 2, 1, 28, 28, generator=generator)
        made, targets, loss = mnist_cnn(0), torch.tensor([[1, 2], [3, 4], [5, 6]]), functional.cross_entropy
    fast = WorkerGradients(made, loss, (inputs, targets))
    points = fast.start + 0.01 * torch.randn(3, fast.layout.d, generator=generator)
    rows = fast.at(points, inputs, targets, 1, range(3))
    slow = WorkerGradients(made, loss, (inputs, targets), "loop")
    alone = [slow(points[i], inputs[i : i + 1], targets[i : i + 1], 1, [i]) for i in range(3)]
    assert (rows - torch.cat(alone)).norm() <= 1e-5 * rows.norm()


def test_the_samples_of_a_round_follow_those_of_the_round_before():
    task = Quadratic().build(COHORT, 0)
    x, count = task.start(), GradientCount()
    draws = []
    for t in (1, 2):
        oracle = count.oracle(task, t, 0, samples=3)
        draws += [oracle.fresh(k)(x) for k in range(3)]
        assert torch.equal(oracle(x), oracle.fresh(0)(x))
        assert torch.equal(oracle.fresh(2).fresh(1)(x), oracle.fresh(1)(x))
    assert all(torch.equal(rows, task.grads(x, task.draw(1 + k))) for k, rows in enumerate(draws))
    assert count.gradients == 2 * 7
    for k in (-1, 3):
        with pytest.raises(InvalidInput, match="one of its 3"):
            oracle.fresh(k)


def test_an_oracle_of_one_sample_at_the_servers_point_says_so():
    oracle = Oracle(1, lambda x: x.expand(3, -1), lambda x: x.expand(3, -1))
    assert oracle.fresh(0) is oracle
    with pytest.raises(InvalidInput, match="drawn where there are several"):
        oracle.fresh(1)
    with pytest.raises(InvalidInput, match="at the server's point alone"):
        oracle.at(torch.zeros(3, 2))


@pytest.mark.parametrize(
    "recipe", [Quadratic(spread=0.2), Quartic(), LogisticRegression(), TASKS.build("quartic_released")]
)
def test_runs_in_step_have_the_gradients_of_runs_alone(recipe):
    tasks = [recipe.build(COHORT, seed) for seed in (0, 1, 2)]
    oracles = BatchedOracles(2, together(tasks), (0, 1, 2), samples=2)
    points = torch.stack([scattered(task) + r for r, task in enumerate(tasks)])
    both = oracles.of((0, 1, 2)).fresh(1).at(points)
    alone = [
        GradientCount().oracle(task, 2, 0, samples=2).fresh(1).at(p)
        for task, p in zip(tasks, points, strict=True)
    ]
    assert torch.allclose(both, torch.stack(alone), rtol=1e-13, atol=0)
    assert torch.equal(oracles.of(1).fresh(1).at(points[1]), alone[1])
    assert oracles.calls == [1.0, 2.0, 1.0]
    with pytest.raises(InvalidInput, match="Points of workers' own"):
        oracles.of((0, 1, 2)).at(points[:, 0])
