"""The released code of arXiv:2603.12512: its random numbers, its data order, its algorithms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from byzopt.attacks import ATTACKS, Adversary
from byzopt.cohort import Cohort
from byzopt.errors import MissingData
from byzopt.experiments.running import run
from byzopt.methods import METHODS
from byzopt.reproductions.loading import load_reproduction
from byzopt.rng import stream
from byzopt.tasks import TASKS

COHORT = Cohort.of(20, 3)


def twin(attack, rate, ours, seed, rounds):
    """The released quartic with CM, straight from NumPy: ‖aggregate‖ of the last round."""
    numbers = np.random.RandomState(0)
    shifts = [1e-6 * numbers.randn(10) for _ in range(16)]
    shifts = np.stack([*shifts, -sum(shifts)])
    numbers = np.random.RandomState(seed) if seed else numbers
    x, u = np.ones(10), np.zeros(10)
    for k in range(1, rounds + 1):
        g = 4 * min(np.linalg.norm(x), 100) ** 2 * x + 1e-5 * numbers.randn(20, 10)
        g[:17] += shifts
        rows = {"bit_flip": -g[17:], "zero": np.zeros((3, 10))}[attack]
        rows = np.vstack([g[:17], rows])
        apart = np.linalg.norm(rows[:, None] - rows, axis=2)
        mixed = np.stack([rows[np.argsort(one, kind="stable")[:17]].mean(axis=0) for one in apart])
        a = np.median(mixed, axis=0)
        u = 0.9 * u + (a / np.linalg.norm(a) if ours else a)
        x = x - (rate / np.sqrt(k) if ours else rate) * u
    return np.linalg.norm(a)


@pytest.mark.parametrize(
    "attack, method, rate, seed",
    [("BF", "Ours", 0.1, 0), ("Mimic", "Base", 0.02, 1)],
)
def test_the_quartic_is_the_released_one_round_by_round(attack, method, rate, seed):
    it = load_reproduction("byz-nsgdm/table1").chosen([f"quartic,as-released,{attack},CM,{method}"], [seed])
    spec = replace(it.parts[0].sweep.specs()[0], rounds=200, eval_every=200)
    assert spec.lr == rate
    name = {"BF": "bit_flip", "Mimic": "zero"}[attack]
    assert run(spec).metrics["aggregate_norm"] == pytest.approx(
        twin(name, rate, method == "Ours", seed, 200), rel=1e-9
    )


def test_noise_of_a_round_does_not_hang_on_what_was_asked_before():
    task, other = (TASKS.build("quartic_released").build(COHORT, 0) for _ in range(2))
    late = task.draw(5)
    assert torch.equal(task.draw(2), other.draw(2))
    assert torch.equal(other.draw(5), late)
    first = np.random.RandomState(0)
    first.randn(160)
    assert np.array_equal(
        TASKS.build("quartic_released").build(COHORT, 0).draw(1), 1e-5 * first.randn(20, 10)
    )


def test_gradients_are_cut_as_released():
    task = TASKS.build("quartic_released").build(COHORT, 1)
    rows = task.grads(torch.full((10,), 1e4, dtype=torch.float64), task.draw(1))
    assert torch.linalg.vector_norm(rows, dim=1).sub(1000).abs().max() < 1e-9
    assert not task.grads(torch.full((10,), float("nan"), dtype=torch.float64), task.draw(1)).any()


def test_momentum_at_the_server():
    method = METHODS.build({"name": "server_sgdm", "eta": 0.25}).build(None or _mean(), 0.5)
    ball = METHODS.build({"name": "server_sgdm", "eta": 0.25, "momentum": "heavy_ball"}).build(_mean(), 0.5)
    from byzopt.layout import Layout
    from byzopt.servers import ServerContext

    x0, site = torch.tensor([1.0, -2.0]), ServerContext(Layout.flat(2))
    g = [torch.tensor([4.0, 0.0]), torch.tensor([0.0, 8.0])]
    for one, factor in ((method, 0.25), (ball, 1.0)):
        state = one.step.init(x0, site)
        for row in g:
            state = one.step.tell(state, row)
        u1 = factor * g[0]
        u2 = 0.75 * u1 + factor * g[1]
        assert torch.allclose(one.step.answer(state), x0 - 0.5 * (u1 + u2))


def test_raw_gradients_are_those_before_momentum():
    cohort, d = Cohort.of(5, 2), 3
    attack = ATTACKS.build({"name": "raw_gradient", "attack": "bit_flip", "eta": 0.1})
    adversary = Adversary(attack, cohort, 2)
    g = torch.randn(4, 5, d, dtype=torch.float64, generator=stream(0, "g"))
    v, state = torch.zeros(5, d, dtype=torch.float64), adversary.start(torch.zeros(d, dtype=torch.float64))
    for t in range(4):
        v = 0.9 * v + g[t]
        rows, state = adversary.forge_rows(state, t + 1, torch.zeros(d), v, stream(0), lambda rows: rows[0])
        assert torch.allclose(rows[3:], -g[t, 3:])
        assert torch.equal(rows[:3], v[:3])


def _mean():
    from byzopt.aggregators import rule_from

    return rule_from("mean", f=0)


@pytest.fixture(scope="module")
def mnist():
    try:
        return TASKS.build({"name": "mnist_released", "eval_samples": 32}).build(COHORT, 0)
    except MissingData as error:
        pytest.skip(str(error))


def test_mnist_in_the_released_order(mnist):
    first = mnist.pool.source[mnist._sampler.draw(1)]
    assert first[0, :3].tolist() == [33172, 6421, 17709]
    assert first[17, :3].tolist() == [36044, 1776, 2619]
    labels = [mnist.pool.targets[shard].bincount(minlength=10).tolist() for shard in mnist.pool.shards]
    assert labels[1] == [2393, 1137, *[0] * 8]
    assert labels[16] == [10, *[0] * 8, 3520]
    assert mnist.layout.d == 1_199_882
    second = mnist._sampler.draw(31)  # the second epoch begins
    again = torch.randperm(3530, generator=torch.Generator().manual_seed(1))[:64]
    assert torch.equal(second[0], mnist.pool.shards[0][again])


def test_one_mask_serves_all_workers_and_rounds(mnist):
    x, batch = mnist.start(), mnist.draw(1)
    same = type(batch)(
        batch.inputs[:1].expand(2, *batch.inputs.shape[1:]), batch.targets[:1].expand(2, -1), 7
    )
    rows = mnist.grads(x, same)
    assert torch.allclose(rows[0], rows[1], atol=1e-6)
    assert torch.allclose(mnist.grads_of(x, batch, slice(0, 1))[0], rows[0], atol=1e-5)
