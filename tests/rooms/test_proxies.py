"""The server's own loss of every task that has one; objectives, optima and true gaps; fast full gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.experiments import Spec
from byzopt.rng import stream
from byzopt.servers.inner import value_and_grad
from byzopt.tasks import (
    Digits,
    LogisticRegression,
    ModuleTask,
    Quadratic,
    ServerProxy,
    Task,
    WorkerProxy,
)
from byzopt.tasks.grads import Softmax
from byzopt.tasks.models import mlp
from byzopt.tasks.optimum import optimum
from byzopt.tasks.partitions import Dirichlet

COHORT = Cohort(6, (1, 4))
LINEAR = Digits(
    model="linear", batch="full", wd=0.01, dtype="float64", byzantine_data="mirror", partition=Dirichlet(0.5)
)
RECIPES = [
    Quadratic(spread=0.3, noise=0.0, heterogeneity=1.0),
    LogisticRegression(batch=0, l2=0.05),
    LINEAR,
    replace(LINEAR, model="mlp", hidden=(8,)),
]
IDS = ["quadratic", "logistic", "linear", "mlp"]


def somewhere(task: Task, seed: int = 0) -> torch.Tensor:
    x = task.start()
    return x + 0.1 * torch.randn(x.shape, dtype=x.dtype, generator=stream(seed, "somewhere"))


@pytest.mark.parametrize("recipe", RECIPES, ids=IDS)
@pytest.mark.parametrize("worker", [0, 3])
def test_a_workers_proxy_is_its_whole_local_loss(recipe, worker):
    task = replace(recipe, proxy=WorkerProxy(worker)).build(COHORT, 0)
    plain = recipe.build(COHORT, 0)
    x = somewhere(task)
    rows = task.grads(x, task.full())
    torch.testing.assert_close(rows, plain.grads(x, plain.full()), rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(value_and_grad(task.proxy(), x)[1], rows[worker], rtol=1e-10, atol=1e-13)
    assert plain.proxy() is None


@pytest.mark.parametrize("recipe", RECIPES, ids=IDS)
def test_the_servers_own_loss_is_nobodys_row(recipe):
    task = replace(recipe, proxy=ServerProxy()).build(COHORT, 0)
    x = somewhere(task)
    slope = value_and_grad(task.proxy(), x)[1]
    assert task.grads(x, task.full()).shape == (6, task.layout.d)
    assert min(float((row - slope).norm()) for row in task.grads(x, task.full())) > 1e-6


@pytest.mark.parametrize("recipe", RECIPES, ids=IDS)
def test_a_proxy_of_a_liar_or_of_nobody_is_refused(recipe):
    for worker in (1, 6, -1):
        with pytest.raises(InvalidInput, match=r"honest|lie in"):
            replace(recipe, proxy=WorkerProxy(worker)).build(COHORT, 0)


@pytest.mark.parametrize("recipe", RECIPES, ids=IDS)
def test_the_objective_is_the_mean_honest_loss_with_its_gradient(recipe):
    task = recipe.build(COHORT, 0)
    x, way = somewhere(task), somewhere(task, 1)
    _, slope = task.objective(x)
    rows = task.grads(x, task.full())[list(COHORT.honest)]
    torch.testing.assert_close(slope, rows.mean(dim=0), rtol=1e-11, atol=1e-14)
    rise = task.objective(x + 1e-5 * way)[0] - task.objective(x - 1e-5 * way)[0]
    assert rise / 2e-5 == pytest.approx(float(slope @ way), rel=1e-6, abs=1e-8)
    if recipe.name == "digits":  # and so is the mean of the proxies of all honest workers
        proxies = [replace(recipe, proxy=WorkerProxy(i)).build(COHORT, 0).proxy() for i in COHORT.honest]
        mean = sum(float(q(x)) for q in proxies) / len(proxies)
        assert task.objective(x)[0] == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("recipe", RECIPES[:3], ids=IDS[:3])
def test_the_optimum_has_a_gradient_below_a_billionth_and_gap_zero(recipe):
    task = replace(recipe, gap=True).build(COHORT, 0)
    found = optimum(task)
    assert found.grad_norm < 1e-9
    assert float(task.objective(found.x)[1].norm()) < 1e-9
    figures = task.measure(task.start())
    assert figures["gap"] == pytest.approx(task.objective(task.start())[0] - found.value, rel=1e-9)
    assert abs(task.measure(found.x)["gap"]) < 1e-12
    assert "gap" not in recipe.build(COHORT, 0).measure(task.start())


def test_a_spread_of_hessians_keeps_the_mean_and_gives_similarity():
    task = Quadratic(d=8, mu=0.1, L=2.0, spread=0.4, heterogeneity=1.0, proxy=WorkerProxy(2)).build(COHORT, 3)
    plain = Quadratic(d=8, mu=0.1, L=2.0).build(COHORT, 3)
    torch.testing.assert_close(task.spectrum, plain.spectrum)
    assert float((task.curvatures[2] - task.spectrum).abs().max()) > 0.05
    assert float(task.curvatures.min()) > 0
    rows = task.grads(task.optimum, task.full())
    assert float(rows[list(COHORT.honest)].mean(dim=0).abs().max()) < 1e-14


def test_a_gap_that_does_not_exist_is_refused():
    with pytest.raises(InvalidInput, match="gap"):
        replace(LINEAR, wd=0.0, gap=True)
    with pytest.raises(InvalidInput, match="gap"):
        replace(LINEAR, model="mlp", gap=True)
    with pytest.raises(InvalidInput, match="objective"):
        Task.objective(Quadratic().build(COHORT, 0), torch.zeros(20))


def test_pigs_without_a_proxy_is_refused_before_round_0(tmp_path):
    from byzopt.experiments import run

    for method in ("pigs", "aeg_prox"):
        spec = Spec.of(
            {"task": "quadratic", "rule": "mean", "method": method, "attack": "none", "rounds": 3, "lr": 1.0}
        )
        with pytest.raises(InvalidInput, match="without a proxy"):
            run(spec, out=tmp_path / method)
        assert not (tmp_path / method).exists()


def test_a_proxy_can_be_spelled_in_a_spec():
    data = {"task": {"name": "quadratic", "proxy": "worker"}, "rule": "mean", "method": "pigs"}
    spec = Spec.of(data | {"attack": "none", "rounds": 3, "lr": 1.0})
    assert spec.task.proxy == WorkerProxy(0)
    assert Spec.of(spec.data).id == spec.id
    other = Spec.of(data | {"attack": "none", "rounds": 3, "lr": 1.0, "task": {"name": "quadratic"}})
    assert other.data["task"].get("proxy") is None


# Full gradients of softmax regression


def test_fast_full_gradients_are_autograds_for_unequal_workers():
    generator = torch.Generator().manual_seed(0)
    sizes = (3, 17, 1, 9)
    data = [
        (torch.randn(m, 5, generator=generator).double(), torch.randint(4, (m,), generator=generator))
        for m in sizes
    ]
    task = ModuleTask(
        mlp((5, 4), 0), functional.cross_entropy, data, batch="full", dtype=torch.float64, wd=0.3
    )
    x = somewhere(task)
    assert task._linear() is not None
    for row, (inputs, labels) in zip(task.grads(x, task.draw(1)), data, strict=True):
        leaf = x.clone().requires_grad_()
        weight, bias = leaf[:20].view(4, 5), leaf[20:]
        loss = functional.cross_entropy(inputs @ weight.T + bias, labels) + 0.15 * leaf @ leaf
        (expected,) = torch.autograd.grad(loss, leaf)
        torch.testing.assert_close(row, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("piece", [1, 4, 512])
def test_pieces_add_up_for_losses_gradients_and_the_servers_loss(monkeypatch, piece):
    monkeypatch.setattr("byzopt.tasks.grads.softmax.PIECE", piece)
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(m, 5, generator=generator), torch.randint(4, (m,))) for m in (7, 9, 5)]
    given = {"batch": "full", "dtype": torch.float64, "wd": 0.3, "byzantine": 1, "proxy": 1}
    task = ModuleTask(mlp((5, 4), 0), functional.cross_entropy, data, **given)
    leaf = somewhere(task).requires_grad_()

    def loss(i):
        scores = data[i][0].double() @ leaf[:20].view(4, 5).T + leaf[20:]
        return functional.cross_entropy(scores, data[i][1]) + 0.15 * leaf @ leaf

    value, slope = task.objective(leaf.detach())
    mean = (loss(0) + loss(1)) / 2
    assert value == pytest.approx(mean.item(), rel=1e-14)
    torch.testing.assert_close(slope, *torch.autograd.grad(mean, leaf), rtol=1e-12, atol=1e-14)
    owned = task.proxy()(leaf)
    assert owned.item() == pytest.approx(loss(1).item(), rel=1e-14)
    wanted = torch.autograd.grad(loss(1), leaf)[0]
    torch.testing.assert_close(torch.autograd.grad(3 * owned, leaf)[0], 3 * wanted, rtol=1e-12, atol=1e-14)


def test_a_point_is_computed_once_and_rows_are_the_callers_own(monkeypatch):
    task = LINEAR.build(COHORT, 0)
    fast, calls, x = task._linear(), [], somewhere(task)
    computed = fast._computed
    monkeypatch.setattr(fast, "_computed", lambda at: calls.append(1) or computed(at))
    first, slope = task.grads(x, task.full()), task.objective(x)[1]
    kept = first.clone()
    first.zero_()
    assert torch.equal(task.grads(x.clone(), task.full()), kept)
    assert len(calls) == 1
    torch.testing.assert_close(slope, kept[list(COHORT.honest)].mean(dim=0))
    x[0] += 1
    assert not torch.equal(task.grads(x, task.full()), kept)
    assert len(calls) == 2


def test_the_fast_way_is_taken_for_one_linear_layer_alone():
    inputs, labels = torch.randn(6, 5), torch.randint(3, (6,))
    cases = [
        (mlp((5, 3), 0), functional.cross_entropy, True),
        (torch.nn.Sequential(torch.nn.Linear(5, 3, bias=False)), functional.cross_entropy, True),
        (torch.nn.Linear(5, 3), torch.nn.CrossEntropyLoss(), True),
        (torch.nn.Linear(5, 3), torch.nn.CrossEntropyLoss(label_smoothing=0.1), False),
        (mlp((5, 4, 3), 0), functional.cross_entropy, False),
        (torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.ReLU()), functional.cross_entropy, False),
    ]
    for module, loss, fits in cases:
        task = ModuleTask(module, loss, [(inputs, labels)] * 2, batch="full")
        assert Softmax.fits(module, loss, task.layout) is fits
        assert task._gradients.softmax is fits
        x = task.start()
        slow = torch.cat([task._full_gradient(x, shard) for shard in task.pool.shards])
        torch.testing.assert_close(task.grads(x, task.full()), slow, rtol=1e-5, atol=1e-6)


def test_mirrored_liars_hold_an_honest_workers_samples_and_take_none_away():
    mirrored, shared = LINEAR.build(COHORT, 0), replace(LINEAR, byzantine_data="share").build(COHORT, 0)
    x = somewhere(mirrored)
    rows = mirrored.grads(x, mirrored.full())
    assert torch.equal(rows[1], rows[0])
    assert torch.equal(rows[4], rows[2])
    sizes = [sum(len(task.pool.shards[i]) for i in COHORT.honest) for task in (mirrored, shared)]
    assert sizes[0] == 1442 > sizes[1]


def test_label_flips_reach_the_fast_way_and_leave_the_objective():
    task = LINEAR.build(COHORT, 0)
    flipped = task.relabelled(COHORT.byzantine, lambda labels, classes: classes - 1 - labels)
    x = somewhere(task)
    changed = (task.grads(x, task.full()) != flipped.grads(x, flipped.full())).any(dim=1)
    assert changed.tolist() == [False, True, False, False, True, False]
    assert task.objective(x)[0] == flipped.objective(x)[0]


def test_pooling_and_a_zero_start():
    task = replace(LINEAR, pool=2, initial="zero").build(COHORT, 0)
    assert task.layout.d == 10 * (16 + 1)
    assert not bool(task.start().any())
    whole, pooled = LINEAR.build(COHORT, 0).pool.inputs, task.pool.inputs
    torch.testing.assert_close(pooled[:, 0], whole.view(-1, 8, 8)[:, :2, :2].mean(dim=(1, 2)))
