"""Quadratics, the quartic and logistic regression against closed forms, plain loops, published constants."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.registry import plain
from byzopt.rng import stream
from byzopt.tasks import TASKS, Digits, LogisticRegression, Quadratic, Quartic
from byzopt.tasks.data import find
from byzopt.tasks.logistic import LogisticTask
from byzopt.tasks.optimum import optimum
from byzopt.tasks.partitions import Dirichlet, SortedByLabel

COHORT = Cohort.of(7, 2)
UNEQUAL = LogisticRegression(partition=Dirichlet(0.3), batch=5)


def point(d: int, seed: int = 0) -> Tensor:
    return torch.randn(d, dtype=torch.float64, generator=stream(seed, "point"))


def loop_loss_and_gradient(
    features: Tensor, labels: Tensor, x: Tensor, l2: float
) -> tuple[float, list[float]]:
    """The mean logistic loss and its gradient, sample by sample in plain Python."""
    loss, slope = 0.0, [0.0] * len(x)
    for a, y in zip(features.tolist(), labels.tolist(), strict=True):
        z = sum(p * q for p, q in zip(a, x.tolist(), strict=True))
        chance = 1 / (1 + math.exp(-z))
        loss -= math.log(chance if y else 1 - chance) / len(labels)
        slope = [s + (chance - y) * p / len(labels) for s, p in zip(slope, a, strict=True)]
    ridge = l2 / 2 * sum(c * c for c in x.tolist())
    return loss + ridge, [s + l2 * c for s, c in zip(slope, x.tolist(), strict=True)]


def own_data(task: LogisticTask, i: int) -> tuple[Tensor, Tensor]:
    mine = slice(task.bounds[i], task.bounds[i + 1])
    return task.features[mine], task.labels[mine]


# Quadratic


def test_quadratic_eigenvalues_are_geometric_between_mu_and_l():
    spectrum = Quadratic(d=5, mu=0.01, L=100.0).build(COHORT, 0).spectrum
    assert spectrum.tolist() == pytest.approx([0.01, 0.1, 1.0, 10.0, 100.0])
    assert Quadratic(d=1, mu=0.5, L=3.0).build(COHORT, 0).spectrum.tolist() == [3.0]


def test_the_honest_gradients_cancel_at_the_known_optimum():
    task = Quadratic(heterogeneity=3.0).build(COHORT, 0)
    rows = task.grads(task.optimum, task.full())
    assert rows[list(COHORT.honest)].mean(dim=0).abs().max() < 1e-14
    assert rows.abs().max() > 0.1
    assert set(task.measure(task.optimum).values()) == {0.0}


def test_quadratic_measures_are_the_closed_forms():
    task = Quadratic(d=2, mu=1.0, L=4.0).build(COHORT, 0)
    found = task.measure(task.optimum + torch.tensor([3.0, 1.0], dtype=torch.float64))
    assert found == pytest.approx({"loss": (9 + 4) / 2, "grad_norm": 5.0, "distance": math.sqrt(10)})


def test_quadratic_noise_has_the_stated_variance_and_no_mean():
    task = Quadratic(d=10, noise=0.7).build(COHORT, 0)
    drawn = torch.stack([task.draw(t) for t in range(1, 1001)])
    assert drawn.square().sum(dim=2).mean().item() == pytest.approx(0.49, rel=0.05)
    assert drawn.mean(dim=(0, 1)).abs().max() < 0.015


def test_quadratic_noise_zero_gives_exact_gradients():
    task = Quadratic(noise=0.0).build(COHORT, 0)
    x = task.start()
    assert task.grads(x, task.draw(3)).equal(task.grads(x, task.full()))


def test_heterogeneity_is_the_spread_of_the_workers_optima():
    centres = torch.cat([Quadratic(d=10, heterogeneity=2.0).build(COHORT, s).centres for s in range(200)])
    assert centres.square().sum(dim=1).mean().item() == pytest.approx(4.0, rel=0.05)
    alike = Quadratic(heterogeneity=0.0, noise=0.0).build(COHORT, 0)
    rows = alike.grads(alike.start(), alike.draw(1))
    assert rows.equal(rows[:1].expand_as(rows))


# Quartic


def test_quartic_shifts_cancel_over_the_honest_and_spare_the_byzantine():
    task = Quartic(shift_variance=1.0).build(COHORT, 0)
    assert task.shifts[list(COHORT.honest)].sum(dim=0).abs().max() < 1e-14
    assert task.shifts[list(COHORT.byzantine)].abs().max() == 0


def test_quartic_starts_at_the_papers_gradient_norm():
    task = Quartic().build(COHORT, 0)
    assert task.measure(task.start()) == pytest.approx({"loss": 100.0, "grad_norm": 4 * 10**1.5})


# Logistic regression


@pytest.mark.parametrize(
    "recipe", [UNEQUAL, LogisticRegression(unit_norm=True)], ids=["unequal", "unit norm"]
)
def test_full_gradients_equal_a_plain_loop_over_samples(recipe):
    task = recipe.build(COHORT, 0)
    x = point(task.layout.d)
    rows = task.grads(x, task.full())
    for i in range(task.n):
        _, slope = loop_loss_and_gradient(*own_data(task, i), x, recipe.l2)
        assert rows[i].tolist() == pytest.approx(slope, rel=1e-12, abs=1e-14)


def test_minibatch_gradients_equal_a_plain_loop_over_the_drawn_samples():
    task = UNEQUAL.build(COHORT, 0)
    x, batch = point(task.layout.d), task.draw(4)
    rows = task.grads(x, batch)
    for i in range(task.n):
        seen = batch[i]
        assert bool(((seen >= task.bounds[i]) & (seen < task.bounds[i + 1])).all())
        _, slope = loop_loss_and_gradient(task.features[seen], task.labels[seen], x, UNEQUAL.l2)
        assert rows[i].tolist() == pytest.approx(slope, rel=1e-12, abs=1e-14)


def test_the_measured_loss_is_the_mean_over_honest_workers_not_over_samples():
    task = UNEQUAL.build(COHORT, 0)
    x = point(task.layout.d)
    losses = [loop_loss_and_gradient(*own_data(task, i), x, UNEQUAL.l2)[0] for i in COHORT.honest]
    found = task.measure(x)
    assert found["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    mean = task.grads(x, task.full())[list(COHORT.honest)].mean(dim=0)
    assert found["grad_norm"] == pytest.approx(float(mean.norm()), rel=1e-12)


def test_the_mean_of_one_epochs_minibatches_is_the_full_gradient():
    task = LogisticRegression(batch=40).build(Cohort.of(10), 0)  # shards of 200: 5 rounds an epoch
    x = point(task.layout.d)
    mean = torch.stack([task.grads(x, task.draw(t)) for t in range(6, 11)]).mean(dim=0)
    torch.testing.assert_close(mean, task.grads(x, task.full()), rtol=1e-12, atol=1e-14)


def test_batch_zero_draws_everything():
    task = LogisticRegression(batch=0).build(COHORT, 0)
    x = point(task.layout.d)
    assert task.grads(x, task.draw(1)).equal(task.grads(x, task.full()))


def test_loss_stays_accurate_where_scores_are_large():
    task = LogisticRegression(l2=0.0).build(Cohort.of(1), 0)
    x = 1e4 * point(task.layout.d)
    scores = (task.features @ x) * (1 - 2 * task.labels)
    assert task.measure(x)["loss"] == pytest.approx(float(scores.clamp_min(0).mean()), rel=1e-6)


def test_relabelled_data_poison_the_gradients_but_not_the_measure():
    task = UNEQUAL.build(COHORT, 0)
    poisoned = task.relabelled(COHORT.byzantine, lambda labels, classes: classes - 1 - labels)
    x = point(task.layout.d)
    for i in COHORT.byzantine:
        features, labels = own_data(task, i)
        _, slope = loop_loss_and_gradient(features, 1 - labels, x, UNEQUAL.l2)
        assert poisoned.grads(x, task.full())[i].tolist() == pytest.approx(slope, rel=1e-12, abs=1e-14)
    honest_too = task.relabelled(range(7), lambda labels, classes: classes - 1 - labels)
    assert honest_too.measure(x) == task.measure(x)


def test_sorted_synthetic_data_give_workers_one_label():
    task = LogisticRegression(partition=SortedByLabel()).build(Cohort.of(10), 0)
    mixed = [i for i in range(10) if len(own_data(task, i)[1].unique()) > 1]
    assert len(mixed) <= 1


def test_unit_norm_scales_every_row_to_length_one():
    lengths = LogisticRegression(unit_norm=True).build(COHORT, 0).features.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


@pytest.mark.skipif(find("a9a") is None, reason="a9a is not on disk (BYZOPT_DATA_DIR)")
def test_a9a_with_unit_rows_has_the_published_smoothness_and_minimum():
    l2 = 0.00056
    task = LogisticRegression(data="a9a", l2=l2, unit_norm=True, batch=0).build(Cohort.of(1), 0)
    features, x = task.features, task.start()
    ridge = l2 * torch.eye(123, dtype=torch.float64)
    covariance = features.T @ features / len(features)
    assert float(torch.linalg.eigvalsh(covariance)[-1]) / 4 + l2 == pytest.approx(0.113766, abs=5e-7)
    for _ in range(8):  # Newton's method
        chance = torch.sigmoid(features @ x)
        curvature = (features * (chance * (1 - chance)).unsqueeze(1)).T @ features / len(features) + ridge
        x = x - torch.linalg.solve(curvature, task.grads(x, task.full())[0])
    found = task.measure(x)
    assert found["grad_norm"] < 1e-12
    assert found["loss"] == pytest.approx(0.3656807, abs=5e-8)


@pytest.mark.skipif(find("w8a") is None, reason="w8a is not on disk (BYZOPT_DATA_DIR)")
def test_w8a_starts_at_log_two_and_gradient_descent_lowers_it():
    task = LogisticRegression(data="w8a", unit_norm=True, batch=0).build(COHORT, 0)
    x = task.start()
    assert (task.layout.d, task.measure(x)["loss"]) == (300, pytest.approx(math.log(2)))
    x = x - task.grads(x, task.full()).mean(dim=0)
    assert task.measure(x)["loss"] < 0.68


# Recipes


@pytest.mark.parametrize("recipe", [Quadratic(d=3, L=2.0), Quartic(d=4), UNEQUAL], ids=lambda r: r.name)
def test_recipes_survive_the_way_through_plain_data(recipe):
    assert TASKS.build(plain(recipe)) == recipe


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: Quadratic(d=0), "`d`"),
        (lambda: Quadratic(mu=0.0), "0 < mu <= L"),
        (lambda: Quadratic(mu=2.0, L=1.0), "0 < mu <= L"),
        (lambda: Quadratic(noise=-1.0), "`noise` and `heterogeneity`"),
        (lambda: Quadratic(heterogeneity=float("nan")), "`heterogeneity`.*finite"),
        (lambda: Quartic(shift_variance=float("nan")), "`shift_variance`.*finite"),
        (lambda: LogisticRegression(l2=-1.0), "`l2`"),
        (lambda: LogisticRegression(l2=float("inf")), "`l2`"),
        (lambda: LogisticRegression(batch=-1), "`batch`"),
        (lambda: TASKS.build({"name": "logistic_regression", "data": "iris"}), "`data`"),
    ],
)
def test_parameters_out_of_range_are_errors(make, match):
    with pytest.raises(InvalidInput, match=match):
        make()


def test_tasks_with_one_honest_objective_share_its_optimum():
    recipe = Digits(model="linear", batch="full", wd=1e-2, dtype="float64", byzantine_data="mirror", gap=True)
    clean, attacked, other = (recipe.build(Cohort.of(6 + f, f), seed) for f, seed in ((0, 0), (1, 0), (1, 1)))
    assert clean.lowest.solved is attacked.lowest.solved
    assert clean.lowest.solved is not other.lowest.solved
    found = optimum(attacked, attacked.start(), precision=1e-10)
    assert attacked.lowest.value == pytest.approx(found.value, abs=1e-12)
    shared = replace(recipe, byzantine_data="share")
    assert shared.build(Cohort.of(7, 1), 0).lowest.solved is not clean.lowest.solved
