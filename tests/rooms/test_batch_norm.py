"""Batch statistics: each worker's own in training, nobody's kept, those of honest batches where measured."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from byzopt import simulate
from byzopt.errors import InvalidInput
from byzopt.rng import seed_of
from byzopt.tasks import ModuleTask
from byzopt.tasks.grads import WorkerGradients, lent_rng
from tests.reference.gradients import gradient

N, F, B, SEED = 5, 1, 8, 3


class Residual(nn.Module):
    """Two 3 x 3 convolutions with batch norms, and a way around them."""

    def __init__(self, wide_in: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide_in, wide, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.around = nn.Sequential()
        if stride != 1 or wide_in != wide:
            self.around = nn.Sequential(nn.Conv2d(wide_in, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        y += self.around(x)
        return functional.relu(y)


class ResNet(nn.Module):
    """ResNet-18's shape for small images, its widths divided."""

    def __init__(self, width: int, blocks: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages, wide_in = [], width
        for k in range(4):
            wide = width * 2**k
            for j in range(blocks):
                stages.append(Residual(wide_in, wide, 2 if k and not j else 1))
                wide_in = wide
        self.stages = nn.Sequential(*stages)
        self.linear = nn.Linear(wide_in, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(functional.relu(self.bn1(self.conv1(x))))
        return self.linear(functional.avg_pool2d(x, 2).view(x.size(0), -1))


def images(m: int, seed: int, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    """Three classes that differ in colour and stripes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (m,), generator=generator)
    noise = torch.randn(m, 3, 16, 16, generator=generator, dtype=dtype)
    stripes = torch.sin(torch.arange(16, dtype=dtype) * (1 + labels.unsqueeze(1)))
    colour = functional.one_hot(labels, 3).to(dtype).view(m, 3, 1, 1)
    return noise + colour + stripes.view(m, 1, 1, 16), labels


def resnet(width: int = 2, blocks: int = 1) -> nn.Module:
    with lent_rng(0):
        return ResNet(width, blocks)


def task(module: nn.Module, workers=None, **options) -> ModuleTask:
    settings = {"batch": B, "seed": SEED, "dtype": torch.float64, "byzantine": F} | options
    workers = workers or [images(20 + 3 * i, i) for i in range(N)]
    with pytest.warns(UserWarning, match="no worker reports and no rule combines"):
        return ModuleTask(module, functional.cross_entropy, workers, **settings)


@pytest.mark.parametrize("strategy", ["grouped", "vmap", "loop"])
def test_rows_are_those_of_a_resnet_in_training_mode_on_each_workers_batch(strategy):
    module = resnet().double()
    problem = task(module, strategy=strategy)
    x, batch = problem.start() + 0.01, problem.draw(2)
    rows = problem.grads(x, batch)
    for i in range(N):
        expected, _ = gradient(module, functional.cross_entropy, x, batch.inputs[i], batch.targets[i])
        torch.testing.assert_close(rows[i], expected, rtol=1e-9, atol=1e-11)  # thousands of terms a sum
    assert torch.equal(problem.grads(x, batch), rows)
    torch.testing.assert_close(problem.grads_of(x, batch, slice(1, 3)), rows[1:3], rtol=1e-9, atol=1e-11)
    inputs = batch.inputs.clone()
    inputs[4] *= 100
    assert torch.equal(problem.grads(x, batch._replace(inputs=inputs))[:4], rows[:4])


def test_full_gradients_and_objectives_take_the_statistics_of_all_of_a_workers_samples(monkeypatch):
    monkeypatch.setattr(WorkerGradients, "most", 5)  # no piece may have statistics of its own
    module = resnet().double()
    problem, whole = task(module), task(module, batch="full")
    x = problem.start() + 0.01
    full, values = problem.grads(x, problem.full()), []
    for i, shard in enumerate(problem.pool.shards):
        expected, value = gradient(module, functional.cross_entropy, x, *problem.pool.at(shard))
        torch.testing.assert_close(full[i], expected, rtol=1e-9, atol=1e-11)
        values.append(value)
    torch.testing.assert_close(whole.grads(x, whole.draw(1)), full, rtol=1e-9, atol=1e-11)
    loss, slope = problem.objective(x)
    assert loss == pytest.approx(sum(values[: N - F]) / (N - F), rel=1e-12)
    torch.testing.assert_close(slope, full[: N - F].mean(0), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("most", [7, 1000])
def test_figures_are_measured_with_mean_statistics_of_honest_batches_at_the_point(most, monkeypatch):
    monkeypatch.setattr(WorkerGradients, "most", most)
    monkeypatch.setattr("byzopt.tasks.modules.SETTLING", 2 * (N - F) * B)
    test, module = images(30, 99), resnet().double()
    problem = task(module, test=test)
    x = problem.start() + 0.01
    problem.grads(x + 1, problem.draw(9))  # leaves nothing behind
    figures = problem.measure(x)

    twin = resnet().double().train()
    torch.nn.utils.vector_to_parameters(x, twin.parameters())
    norms = [layer for layer in twin.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = None  # torch's own name for a plain average
    with torch.no_grad():
        for t in (1, 2):
            for i in range(N - F):
                twin(problem.draw(t).inputs[i])
        logits = twin.eval()(test[0])
    assert figures["loss"] == pytest.approx(float(functional.cross_entropy(logits, test[1])), rel=1e-9)
    assert figures["accuracy"] == float((logits.argmax(1) == test[1]).double().mean())
    assert problem.measure(x) == figures
    liar = problem.cohort.byzantine[0]
    flipped = problem.relabelled([liar], lambda labels, classes: classes - 1 - labels)
    assert flipped.measure(x) == figures


def test_a_resnet_learns_under_attack(monkeypatch):
    monkeypatch.setattr("byzopt.tasks.modules.SETTLING", 2 * (N - F) * B)
    workers = [images(24, i, torch.float32) for i in range(N)]
    problem = task(resnet(), workers, test=images(60, 99, torch.float32), dtype=torch.float32)
    assert problem.strategy == "grouped"
    outcome = simulate(problem, rule="nnm >> median", attack="ipm", lr=0.2, rounds=10, f=F)
    assert outcome.status == "completed"
    assert outcome.metrics["accuracy"] > 0.6  # a third by chance


def test_a_run_is_the_same_to_the_bit_when_run_again():
    points = []
    for _ in range(2):
        with lent_rng(0):
            module = nn.Sequential(nn.Flatten(), nn.Linear(768, 4), nn.BatchNorm1d(4), nn.Dropout(0.3))
        problem = task(module)
        x = problem.start()
        for t in range(1, 4):
            problem.measure(x)
            x = x - 0.1 * problem.grads(x, problem.draw(t)).mean(0)
        points.append(x)
    assert torch.equal(*points)


def test_dropout_before_a_batch_norm_draws_for_each_worker():
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(768, 4), nn.BatchNorm1d(4)).double()
    with lent_rng(0):
        nn.init.normal_(module[2].weight, std=0.05)
    problem = task(module)
    x, batch = problem.start(), problem.draw(4)
    rows = problem.grads(x, batch)
    for i in range(N):
        seed = seed_of(SEED, "dropout", 4, i)
        expected, _ = gradient(module, functional.cross_entropy, x, batch.inputs[i], batch.targets[i], seed)
        torch.testing.assert_close(rows[i], expected, rtol=1e-10, atol=1e-12)
    assert problem.measure(x) == problem.measure(x)


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(3, affine=True, track_running_stats=True)])
def test_instance_norms_with_running_statistics_go_the_same_way(norm):
    module = nn.Sequential(norm, nn.Flatten(), nn.Linear(768, 3)).double()
    problem = task(module)
    x, batch = problem.start() + 0.01, problem.draw(1)
    rows = problem.grads(x, batch)
    for i in range(N):
        expected, _ = gradient(module, functional.cross_entropy, x, batch.inputs[i], batch.targets[i])
        torch.testing.assert_close(rows[i], expected, rtol=1e-10, atol=1e-12)
    assert problem.measure(x) == problem.measure(x)


def test_a_norm_that_keeps_nothing_measures_a_set_as_one_batch(monkeypatch):
    monkeypatch.setattr(WorkerGradients, "most", 7)
    module = nn.Sequential(nn.Flatten(), nn.Linear(768, 3), nn.BatchNorm1d(3, track_running_stats=False))
    module = module.double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem = ModuleTask(
            module,
            functional.cross_entropy,
            [images(20, 1)] * 3,
            batch=20,
            test=images(30, 2),
            dtype=torch.float64,
        )
    inputs, labels = images(30, 2)
    expected = float(functional.cross_entropy(module.eval()(inputs), labels).detach())
    assert problem.measure(problem.start())["loss"] == pytest.approx(expected, rel=1e-10)


def test_one_sample_is_no_batch():
    with pytest.raises(
        InvalidInput, match=r"BatchNorm2d should be given at least 2 samples .* Raise `batch`"
    ):
        ModuleTask(resnet(), functional.cross_entropy, [images(20, 1)] * 3, batch=1)
    shards = [images(20, 1), images(1, 2)]
    with pytest.raises(InvalidInput, match="at least 2 samples"):
        ModuleTask(resnet(), functional.cross_entropy, shards, batch="full")
    problem = task(resnet(), shards, byzantine=0)
    with pytest.raises(InvalidInput, match="at least 2 samples"):
        problem.grads(problem.start(), problem.full())
