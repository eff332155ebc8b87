"""The backdoor: where the trigger goes, whose data change, what is measured, and who is fooled."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from byzopt.attacks import Adversary, Backdoor
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.experiments import simulate
from byzopt.tasks import Digits, LogisticRegression, ModuleTask, models
from byzopt.tasks.models import mlp
from byzopt.tasks.partitions import IID

CLASSES = 10


def pictures(shape=(1, 28, 28), m=8, seed=0):
    images = torch.rand(m, *shape, generator=torch.Generator().manual_seed(seed))
    return images, torch.arange(m) % CLASSES


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 8), (5, 5), (784,), (64,)])
def test_the_trigger_is_a_bright_square_in_the_lower_right_corner_and_nothing_else(shape):
    images, _ = pictures(shape)
    side = shape[-1] if len(shape) > 1 else int(shape[0] ** 0.5)
    marked = Backdoor(size=3).triggered(images)
    assert marked.shape == images.shape
    for new, old in zip(marked.reshape(8, -1, side, side), images.reshape(8, -1, side, side), strict=True):
        corner = torch.zeros(side, side, dtype=torch.bool)
        for row in range(side - 3, side):
            for column in range(side - 3, side):
                corner[row, column] = True
        assert (new[:, corner] == images.max()).all()
        assert torch.equal(new[:, ~corner], old[:, ~corner])


@pytest.mark.parametrize("share, count", [(0.5, 4), (0.05, 1), (1.0, 8)])
def test_a_share_of_samples_gets_trigger_and_target_together(share, count):
    images, labels = pictures()
    attack = Backdoor(target=9, share=share)
    before = images.clone(), labels.clone()
    seen, taught = attack.infect(images, labels, CLASSES)
    changed = (seen != images).flatten(1).any(dim=1)
    assert changed.sum() == count
    assert torch.equal(taught, torch.where(changed, 9, labels))
    assert torch.equal(seen[changed], attack.triggered(images)[changed])
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])


def test_the_goal_leaves_out_images_of_the_target_class():
    images, labels = pictures(m=20)
    seen, wanted = Backdoor(target=3).goal(images, labels, CLASSES)
    assert len(seen) == 18
    assert torch.equal(wanted, torch.full((18,), 3))
    assert torch.equal(seen, Backdoor(target=3).triggered(images)[labels != 3])


@pytest.mark.parametrize("shape", [(1, 28, 27), (63,), (), (1, 28, 28, 5)])
def test_samples_that_are_no_square_images_are_refused(shape):
    with pytest.raises(InvalidInput, match="square"):
        Backdoor().triggered(torch.rand(4, *shape))


def test_whole_numbers_are_no_images():
    with pytest.raises(InvalidInput, match="square"):
        Backdoor().triggered(torch.ones(4, 64, dtype=torch.long))


def test_what_does_not_fit_the_task_is_refused():
    images, labels = pictures((64,))
    with pytest.raises(InvalidInput, match="side 8"):
        Backdoor(size=9).triggered(images)
    with pytest.raises(InvalidInput, match=r"0\.\.9"):
        Backdoor(target=10).infect(images, labels, CLASSES)
    with pytest.raises(InvalidInput, match="images"):
        Backdoor().poison(LogisticRegression().build(Cohort.of(5, 1), 0), (4,))
    regression = ModuleTask(mlp((64, 1), 0), functional.mse_loss, [(images, images[:, :1])] * 3, batch=2)
    with pytest.raises(InvalidInput, match="backdoor needs integer labels"):
        Backdoor().poison(regression, (2,))


@pytest.mark.parametrize("wrong", [{"target": -1}, {"size": 0}, {"share": 0.0}, {"share": 1.5}])
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidInput):
        Backdoor(**wrong)


def test_only_the_given_workers_data_change():
    task = Digits(batch=8).build(Cohort.of(5, (1, 4)), 0)
    poisoned = Backdoor(share=1.0).poison(task, (1, 4))
    for t in (1, 2, 30):
        clean, bad = task.draw(t), poisoned.draw(t)
        for i in (0, 2, 3):
            assert torch.equal(clean.inputs[i], bad.inputs[i])
            assert torch.equal(clean.targets[i], bad.targets[i])
        for i in (1, 4):
            assert torch.equal(bad.inputs[i], Backdoor().triggered(clean.inputs[i]))
            assert (bad.targets[i] == 0).all()
    assert task.draw(1).targets[1].any()  # the task itself stays as it was


def test_the_poisoned_task_measures_the_success_on_other_classes_and_all_else_as_before():
    task = Digits().build(Cohort.of(5, 1), 0)
    poisoned = Backdoor(target=7).poison(task, (4,))
    x = task.start()
    figures = poisoned.measure(x)
    (inputs, labels) = Digits().images()[1]
    inputs = inputs.clone()
    inputs[:, 6:, 6:] = 1
    module = mlp((64, 64, 10), 0)
    torch.nn.utils.vector_to_parameters(x, module.parameters())
    answers = module(inputs.flatten(1)).argmax(dim=1)
    fooled = (answers[labels != 7] == 7).double().mean()
    assert figures.pop("backdoor_success") == pytest.approx(float(fooled))
    assert figures == task.measure(x)


def test_images_with_channels_are_poisoned_in_a_convolutional_task():
    images, labels = pictures((1, 28, 28), m=12)
    task = ModuleTask(models.mnist_cnn(0), functional.cross_entropy, [(images, labels)] * 3, batch=4)
    poisoned = Backdoor(share=1.0, target=2).poison(task, (0,))
    batch = poisoned.draw(1)
    assert (batch.inputs[0, :, 0, -2:, -2:] == images.max()).all()
    assert (batch.targets[0] == 2).all()
    assert poisoned.grads(task.start(), batch).isfinite().all()
    assert 0 <= poisoned.measure(task.start())["backdoor_success"] <= 1


@pytest.mark.parametrize("scale, factor", [(None, 3.5), (10.0, 10.0)])
def test_the_message_is_the_workers_own_scaled_to_replace_the_model(scale, factor):
    rows = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    adversary = Adversary(Backdoor(scale=scale), Cohort.of(7, 2), 2)
    sent, _ = adversary.forge_rows((), 1, rows[0], rows, torch.Generator(), lambda rows: rows[0])
    assert torch.equal(sent[5:], factor * rows[5:])
    if scale is None:
        assert torch.allclose(sent.mean(dim=0), rows[5:].mean(dim=0) + rows[:5].sum(dim=0) / 7)


def trained(rule, seed=0):
    task = Digits(batch=32, partition=IID()).build(Cohort.of(10, 2), seed)
    attack = Backdoor(target=0, size=3, scale=20.0)
    outcome = simulate(task, rule, lr=0.1, rounds=120, f=2, attack=attack, seed=seed, eval_every=120)
    return outcome.metrics


def test_the_mean_learns_the_backdoor_and_a_robust_rule_does_not():
    fooled, safe = trained("mean"), trained("nnm >> rfa")
    assert fooled["backdoor_success"] > 0.9
    assert safe["backdoor_success"] < 0.1
    assert safe["accuracy"] > 0.8


def test_equal_seeds_give_equal_runs():
    one, two = trained("nnm >> rfa"), trained("nnm >> rfa")
    assert one == two
