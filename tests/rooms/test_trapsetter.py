"""Trapsetter, and the loss of attackers' own data: who is handed it, of what, and who is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from byzopt.attacks import ATTACKS, Adversary, Attack, Knowledge, Limited, OwnLoss, Sleeper, Trapsetter, View
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.experiments import Spec, simulate
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.trials.batched import BatchedTrials
from byzopt.layout import Layout
from byzopt.rng import stream
from byzopt.tasks import Digits, LogisticRegression, Quadratic, Quartic, Task
from tests.reference import attacks as twin

SPEC = {"method": "robust_gd", "rule": "median", "lr": 0.1, "eval_every": 5}
LAYOUT = Layout(("weight", "bias"), ((3, 2), (2,)))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bumpy(x):
    return (x * (3 * x).sin()).sum() + x.square().sum()


def lie(attack, x, rows, b=2, seed=3, function=bumpy, layout=LAYOUT, t=1):
    known = OwnLoss.of(function)
    losses = OwnLoss(known.value, known.slope, layout)
    adversary = Adversary(attack, Cohort.of(len(rows), b), b)
    seen = (adversary.start(x), t, x, rows, stream(seed, "attack", t), lambda rows: rows.mean(dim=0))
    return adversary.forge_rows(*seen, losses=losses)[0]


def directions(x, seed, draws, radius):
    """Two of them, drawn as in `lie`, by loops over tensors of the model."""
    generator, numbers = stream(seed, "attack", 1), torch.empty(2, len(x), dtype=torch.float64)
    rows = (
        numbers.uniform_(generator=generator) if draws == "uniform" else numbers.normal_(generator=generator)
    )
    found = []
    for row in rows.tolist():
        way, place = [], 0
        for size in LAYOUT.sizes:
            part, mine = row[place : place + size], x.tolist()[place : place + size]
            length = sum(v * v for v in part) ** 0.5
            way += [radius * sum(v * v for v in mine) ** 0.5 / length * v for v in part]
            place += size
        found.append(way)
    return found


@pytest.mark.parametrize("draws", ["uniform", "normal"])
@pytest.mark.parametrize(("radius", "steps"), [(0.03, 2), (2.0, 1), (0.5, 3)])
def test_the_lie_is_that_of_the_twin(draws, radius, steps):
    x, rows = drawn(8, seed=1), drawn(7, 8, seed=2)
    attack = Trapsetter(pull=0.7, radius=radius, steps=steps, draws=draws)
    ways = directions(x, 3, draws, radius)
    value = lambda point: float(bumpy(torch.tensor(point, dtype=torch.float64)))  # noqa: E731
    expected = twin.trapsetter(x.tolist(), rows[5:].tolist(), ways, value, 7, 0.7, steps)
    forged = lie(attack, x, rows)
    # A dozen operations on numbers of size one, each to 2e-16.
    assert forged[5].tolist() == pytest.approx(expected, rel=1e-11, abs=1e-12)
    assert torch.equal(forged[5], forged[6])


def test_the_plain_mean_leads_into_the_trap_where_honest_rows_agree():
    x, rows = drawn(8, seed=1), drawn(1, 8, seed=2).expand(7, -1)
    attack = Trapsetter(pull=10.0, radius=0.3)
    trap = x - 0.1 * lie(attack, x, rows).mean(dim=0)  # a step of 1/pull
    ways = torch.tensor(directions(x, 3, "uniform", 0.3), dtype=torch.float64)
    grid = attack.grid(x, ways)
    assert len(grid) == 25
    # Rows are some 10 (n/b) times as long as what is left of them: 1e-14 of the point.
    assert float((grid - trap).abs().amax(dim=1).min()) < 1e-13
    assert float(bumpy(trap)) == pytest.approx(max(float(bumpy(point)) for point in grid), rel=1e-12)


def test_at_zero_and_where_the_loss_is_nothing_it_is_the_reversed_mean_and_stays_finite():
    rows = drawn(7, 8, seed=2)
    reversed_mean = -5 / 2 * rows[5:].mean(dim=0)
    assert torch.allclose(lie(Trapsetter(), torch.zeros(8, dtype=torch.float64), rows)[5], reversed_mean)
    nowhere = lie(Trapsetter(radius=5.0), drawn(8), rows, function=lambda x: (x - x).sum() / 0)
    assert nowhere.isfinite().all()


def test_losses_that_are_not_finite_are_the_worst():
    def ends(x):
        return torch.where(x.square().sum() > centre, x.new_tensor(float("nan")), -x.square().sum())

    x, rows = drawn(8, seed=1), drawn(1, 8, seed=2).expand(7, -1)
    centre = float(x.square().sum())
    trap = x - 0.1 * lie(Trapsetter(pull=10.0, radius=0.5), x, rows, function=ends).mean(dim=0)
    assert float(trap.square().sum()) > centre


# What is handed out.


def tasks():
    cohort = Cohort.of(6, (1, 4))
    return {
        "quadratic": Quadratic(d=5, spread=0.2).build(cohort, 0),
        "quartic": Quartic(d=5).build(cohort, 0),
        "logistic": LogisticRegression(batch=8).build(cohort, 0),
        "linear": Digits(model="linear", batch=8).build(cohort, 0),
        "mlp": Digits(model="mlp", batch=8, wd=0.01).build(cohort, 0),
    }


@pytest.mark.parametrize("name", ["quadratic", "quartic", "logistic", "linear", "mlp"])
def test_the_loss_is_that_of_the_liars_own_data_in_the_run_as_it_stands(name):
    task = tasks()[name]
    asked = []

    @dataclass(frozen=True)
    class Curious(Attack):
        name: ClassVar[str] = "curious"
        knows: ClassVar[frozenset[Knowledge]] = frozenset({"own", "loss"})

        def forge(self, view: View, generator: torch.Generator) -> torch.Tensor:
            points = torch.stack([view.x, 1.1 * view.x + 0.1])
            asked.append((points, view.loss(points), view.loss.slopes(points)))
            return view.own

    simulate(task, "median", lr=0.01, rounds=2, f=2, attack=Curious())
    points, values, slopes = asked[-1]
    for point, value, slope in zip(points, values, slopes, strict=True):
        mine = [task.loss_of(point, (i,)) for i in (1, 4)]
        # Pixels and labels are float32 in digits: sums of some hundred of them to 1e-6.
        assert float(value) == pytest.approx(sum(mine) / 2, rel=1e-5)
        rows = task.grads(point, task.full())[[1, 4]].mean(dim=0)
        assert float((slope - rows).norm()) <= 1e-5 * float(rows.norm())


def test_poisoned_data_are_the_liars_own():
    task = tasks()["linear"]
    flipped = ATTACKS.build("label_flip").poison(task, (1, 4))
    x = drawn(task.layout.d, seed=1).float()
    assert flipped.loss_of(x, (1,)) != task.loss_of(x, (1,))
    assert flipped.loss_of(x, (0,)) == task.loss_of(x, (0,))


def test_who_did_not_declare_it_is_not_handed_it():
    cohort, rows = Cohort.of(4, 1), drawn(4, 3)
    view = View(1, rows[0], rows, cohort, 1, frozenset({"own"}), None, losses=OwnLoss.of(bumpy))
    with pytest.raises(InvalidInput, match="look at 'loss'"):
        view.loss  # noqa: B018
    alone = View(1, rows[0], rows, cohort, 1, frozenset({"loss"}), None)
    with pytest.raises(InvalidInput, match="rows alone"):
        alone.loss  # noqa: B018
    with pytest.raises(InvalidInput, match="rows alone"):
        Trapsetter()(rows, byzantine=1)
    with pytest.raises(InvalidInput, match=r"shape \[p, d\]"):
        OwnLoss.of(bumpy)(rows[0])
    assert Adversary(ATTACKS.build("alie"), cohort, 1).losses(None) is None


def test_a_task_that_cannot_tell_is_refused_before_the_run():
    class Silent(type(Quadratic().build(Cohort.of(4, 1), 0))):  # type: ignore[misc]
        loss_of = Task.loss_of

    silent = Quadratic().build(Cohort.of(4, 1), 0)
    silent.__class__ = Silent
    with pytest.raises(InvalidInput, match="`loss_of`"):
        simulate(silent, "median", lr=0.1, rounds=2, f=1, attack="trapsetter")


@pytest.mark.parametrize("threat", ["omniscient", "no_rule", "own_data", "one_round_late"])
def test_every_threat_model_leaves_liars_their_own_loss(threat):
    x, rows = drawn(8, seed=1), drawn(7, 8, seed=2)
    plain = lie(Trapsetter(), x, rows)
    assert torch.equal(lie(Limited(Trapsetter(), threat), x, rows), plain)
    assert torch.equal(lie(Sleeper(Trapsetter(), until=0), x, rows), plain)


def test_with_samples_of_the_workers_it_counts_those_who_are_there():
    cohort, x, rows = Cohort.of(6, (1, 4)), drawn(8, seed=1), drawn(1, 8, seed=2).expand(6, -1)
    present = torch.tensor([True, True, True, False, False, True])
    here = rows.where(present.unsqueeze(1), torch.zeros(()).double())
    adversary = Adversary(Trapsetter(pull=10.0), cohort, 2)
    seen = ((), 1, x, here, stream(0), lambda rows: rows.mean(dim=0))
    forged = adversary.forge_rows(*seen, present, OwnLoss.of(bumpy))[0]
    trap = x - 0.1 * forged[present].mean(dim=0)
    assert float(bumpy(trap)) >= float(bumpy(x)) - 1e-9


@pytest.mark.parametrize("participants", [{"name": "all"}, {"name": "bernoulli", "p": 0.7}])
def test_runs_in_a_batch_are_those_alone(participants):
    task = {"name": "quadratic", "d": 6}
    given = {"task": task, "n": 8, "f": 2, "attack": "trapsetter", "participants": participants, "rounds": 5}
    specs = [Spec.of(SPEC | given | {"seed": seed}) for seed in (0, 1)]
    both = BatchedTrials([prepare_spec(one, {}) for one in specs], None, lambda i, record: None)
    for spec, end in zip(specs, both.run(lambda t: False), strict=True):
        alone = BatchedTrials([prepare_spec(spec, {})], None, lambda i, record: None).run(lambda t: False)[0]
        torch.testing.assert_close(end.x, alone.x, rtol=1e-11, atol=1e-12)  # sums in another order


@pytest.mark.slow
def test_it_hurts_the_plain_mean_more_than_a_robust_rule():
    task = Digits(model="linear", batch=32).build(Cohort.of(20, 3), 0)
    given = {"lr": 0.1, "rounds": 100, "f": 3, "attack": Trapsetter()}
    found = {rule: simulate(task, rule, **given).metrics["loss"] for rule in ("mean", "nnm >> rfa")}
    assert found["mean"] > found["nnm >> rfa"]
