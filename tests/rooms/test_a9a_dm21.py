"""Byz-DM21 against single momentum in the paper's setting on a9a, shortened.

The whole, 15,000 rounds and three seeds, is `byzopt reproduce byz-dm21/a9a`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import pytest
import torch

from byzopt.cohort import Cohort
from byzopt.experiments import Spec
from byzopt.experiments.trials.batched import BatchedTrials, batch_groups
from byzopt.experiments.trials.outcome import Outcome
from byzopt.experiments.trials.prepared import PreparedRun, RunSettings, prepare
from byzopt.tasks import TASKS
from byzopt.tasks.data import find

TASK = {
    "name": "logistic_regression",
    "data": "a9a",
    "l2": 0.00056,
    "unit_norm": True,
    "batch": 1,
    "partition": "strided",
    "byzantine_data": "honest",
}
LIES = {
    "ALIE": {"name": "alie", "z": "quantile", "sign": -1},
    "IPM": {"name": "ipm", "scale": 0.1},
    "SF": {"name": "sign_flip", "of": "drawn"},
}
needs_a9a = pytest.mark.skipif(find("a9a") is None, reason="a9a is not on disk (BYZOPT_DATA_DIR)")


def spec(method: str, eta: float = 0.1, rounds: int = 1200, **more: object) -> Spec:
    recipe = {"name": method, "eta": eta, "compressor": {"name": "top_k", "k": 1}}
    data = {"n": 20, "f": 8, "rule": "nnm >> median", "rounds": rounds, "lr": 0.5}
    return Spec.of(data | {"task": TASK, "method": recipe, "eval_every": rounds // 12} | more)


def played(specs: Sequence[Spec]) -> list[Outcome]:
    found = {}
    for members in batch_groups(specs):
        runs = [ready(specs[i]) for i in members]
        found |= dict(
            zip(members, BatchedTrials(runs, None, lambda i, r: None).run(lambda t: False), strict=True)
        )
    return [found[i] for i in range(len(specs))]


def ready(one: Spec) -> PreparedRun:
    task = one.task.build(one.cohort, one.seed)
    method = one.method.build(one.rule, one.lr, one.rounds)
    return prepare(task, method, RunSettings(one.attack, one.f, one.seed, one.rounds, one.interval))


def loss(outcome: Outcome) -> float:
    return mean(record["loss"] for record in outcome.records[-3:])


@needs_a9a
@pytest.mark.slow
def test_two_averages_beat_one_at_equal_settings_under_every_attack():
    methods = ("byz_ef21_sgdm", "byz_dm21")
    found = played([spec(m, attack=LIES[lie]) for m in methods for lie in LIES])
    single, double = found[: len(LIES)], found[len(LIES) :]
    for one, two in zip(single, double, strict=True):
        assert 0.3657 < loss(two) < loss(one) < 0.45


@needs_a9a
@pytest.mark.slow
def test_where_double_momentum_is_unstable_the_others_are_not():
    """η = 0.01, γ = 0.5: γL = 0.057 lies beyond the limit 0.0203 of two averages."""
    methods = ("byz_dm21", "byz_ef21_sgdm", "byz_vr_dm21")
    specs = [spec(m, eta=0.01, rounds=3000, n=12, f=0, attackers=0) for m in methods]
    double, single, reduced = played(specs)
    assert max(record["loss"] for record in double.records[-6:]) > 0.6
    assert loss(single) < 0.372
    assert loss(reduced) < 0.372


@needs_a9a
def test_the_released_way_to_deal_the_data():
    task = TASKS.build(TASK).build(Cohort.of(20, 8), 0)
    owned = [set(task.order[task.bounds[i] : task.bounds[i + 1]].tolist()) for i in range(20)]
    assert sorted(set().union(*owned[:12])) == list(range(32561))
    assert sum(map(len, owned[:12])) == 32561
    assert [owned[i] for i in range(12, 20)] == owned[:8]
    assert {len(part) for part in owned[:12]} == {2713, 2714}
    assert task.draw(1).shape == (20, 1)
    assert set(task.truth.tolist()) == {0, 1}
    assert torch.linalg.vector_norm(task.store, dim=1).max() == pytest.approx(1)


def test_flipped_labels_change_the_byzantine_gradients_and_no_others():
    task = TASKS.build({"name": "logistic_regression", "byzantine_data": "honest"}).build(Cohort.of(5, 2), 0)
    flipped = task.relabelled((3, 4), lambda labels, classes: classes - 1 - labels)
    x = torch.full((20,), 0.1, dtype=torch.float64)
    true, false = task.grads(x, task.draw(1)), flipped.grads(x, task.draw(1))
    assert true[:3].equal(false[:3])
    assert (true[3:] != false[3:]).any(dim=1).all()
    # log(1 + e^z) - y z: the two slopes of a sample sum to (2 σ(z) - 1) a, and twice the pull of l2.
    seen = task.store[task.order[task.draw(1)]][3:]
    pull = 2 * torch.sigmoid(seen @ x) - 1
    both = (pull.unsqueeze(-1) * seen).mean(dim=1) + 2 * 0.01 * x
    torch.testing.assert_close(true[3:] + false[3:], both, rtol=1e-12, atol=1e-12)
