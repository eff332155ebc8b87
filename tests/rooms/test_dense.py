"""Chains of linear layers written out, and data that tasks share."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from byzopt.cohort import Cohort
from byzopt.tasks import Digits, LogisticRegression
from byzopt.tasks.grads import Loss, WorkerGradients, lent_rng
from byzopt.tasks.grads.dense import Dense
from byzopt.tasks.grads.randomness import CannotGroupError
from byzopt.tasks.models import mlp

N, B = 5, 7
COHORT = Cohort.of(6, 2)


def samples(width: int, classes: int | None = 10, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(N, B, width, generator=generator, dtype=torch.float64)
    if classes is None:
        return inputs, torch.randn(N, B, 3, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(classes, (N, B), generator=generator)


def tied() -> nn.Module:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(first, second)


def chains() -> dict[str, tuple[nn.Module, Loss, int | None]]:
    with lent_rng(0):
        return {
            "W1": (mlp((784, 128, 64, 10), 0), functional.cross_entropy, 10),
            "softmax": (mlp((12, 10), 0), functional.cross_entropy, 10),
            "loss as a module": (mlp((12, 9, 10), 0), nn.CrossEntropyLoss(), 10),
            "squares": (mlp((12, 9, 3), 0), functional.mse_loss, None),
            "no biases": (
                nn.Sequential(nn.Linear(12, 8, bias=False), nn.ReLU(), nn.Linear(8, 10, bias=False)),
                functional.cross_entropy,
                10,
            ),
            "two lines in a row": (
                nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 10)),
                functional.cross_entropy,
                10,
            ),
        }


@pytest.mark.parametrize("name", chains())
def test_written_out_gradients_are_those_of_a_loop(name: str) -> None:
    module, loss, classes = chains()[name]
    module = module.double()
    data = samples(module[0].in_features, classes)  # type: ignore[index]
    fast, slow = WorkerGradients(module, loss, data), WorkerGradients(module, loss, data, "loop")
    assert isinstance(fast._way, Dense)
    x = slow.start + 0.1 * torch.randn(slow.layout.d, dtype=torch.float64)
    expected = slow(x, *data, 1)
    torch.testing.assert_close(fast(x, *data, 1), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(fast.still(x, *data), expected, rtol=1e-12, atol=1e-14)


def test_targets_that_do_not_count_are_left_out_as_torch_does() -> None:
    module, (inputs, targets) = mlp((12, 9, 10), 0).double(), samples(12)
    targets[0, 2:], targets[3, 0] = -100, -100
    fast = WorkerGradients(module, functional.cross_entropy, (inputs, targets))
    slow = WorkerGradients(module, functional.cross_entropy, (inputs, targets), "loop")
    rows = fast(fast.start, inputs, targets, 1)
    torch.testing.assert_close(rows, slow(slow.start, inputs, targets, 1), rtol=1e-12, atol=1e-14)


def test_large_logits_neither_overflow_nor_vanish() -> None:
    module, (inputs, targets) = mlp((12, 10), 0).double(), samples(12)
    fast = WorkerGradients(module, functional.cross_entropy, (inputs, targets))
    slow = WorkerGradients(module, functional.cross_entropy, (inputs, targets), "loop")
    x = 1e5 * fast.start
    assert fast(x, inputs, targets, 1).isfinite().all()
    torch.testing.assert_close(fast(x, inputs, targets, 1), slow(x, inputs, targets, 1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)),
        nn.Sequential(nn.ReLU(), nn.Linear(4, 3)),
        tied(),
        nn.Sequential(nn.Linear(4, 3), nn.ReLU()),
        nn.Linear(4, 3),
        nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 3)),
    ],
    ids=[
        "another function",
        "nothing before ReLU",
        "tied",
        "ReLU at the end",
        "no chain",
        "a frozen layer",
    ],
)
def test_what_is_no_such_chain_is_left_to_others(module: nn.Module) -> None:
    data = torch.randn(N, B, 4), torch.randint(3, (N, B))
    gradients = WorkerGradients(module, functional.cross_entropy, data)
    with pytest.raises(CannotGroupError):
        Dense(gradients.pure)
    assert not isinstance(gradients._way, Dense)


def test_a_hook_that_changes_a_layer_is_noticed() -> None:
    module = mlp((12, 9, 10), 0).double()
    module[0].register_forward_hook(lambda layer, inputs, output: 2 * output)
    data = samples(12)
    fast = WorkerGradients(module, functional.cross_entropy, data)
    slow = WorkerGradients(module, functional.cross_entropy, data, "loop")
    assert not isinstance(fast._way, Dense)
    torch.testing.assert_close(fast(fast.start, *data, 1), slow(slow.start, *data, 1))


def test_tasks_on_the_same_images_hold_them_once() -> None:
    tasks = [Digits(hidden=(width,)).build(COHORT, seed) for width, seed in ((4, 0), (4, 1), (8, 2))]
    assert len({task.pool.inputs.data_ptr() for task in tasks}) == 1
    flipped = tasks[0].relabelled((4, 5), lambda labels, classes: classes - 1 - labels)
    assert flipped.pool.inputs.data_ptr() == tasks[1].pool.inputs.data_ptr()
    other = Digits(dtype="float64").build(COHORT, 0)
    assert other.pool.inputs.dtype == torch.float64
    torch.testing.assert_close(other.pool.inputs.float(), tasks[0].pool.inputs)


def test_logistic_regressions_on_the_same_data_hold_them_once() -> None:
    a, b, other = (LogisticRegression(batch=b).build(COHORT, seed) for b, seed in ((4, 7), (0, 7), (4, 8)))
    assert a.store is b.store
    assert a.store is not other.store  # synthetic data hang on the seed


def test_data_are_let_go_when_no_task_holds_them() -> None:
    first = LogisticRegression().build(COHORT, 12345)
    known = first.store.clone()
    del first
    assert LogisticRegression().build(COHORT, 12345).store.equal(known)
