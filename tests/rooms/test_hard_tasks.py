"""The hard instances, the adversary that makes their signs alike, and the limits they come from."""

from __future__ import annotations

from math import erf, sqrt

import pytest
import torch

from byzopt.attacks import Indistinguishable
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.experiments import Spec, run
from byzopt.rng import stream
from byzopt.tasks import HardLin, HardQuad, Quadratic
from byzopt.tasks.hard import sign
from byzopt.theory import byzantine_limits as limits

HARD = [HardLin(theta=0.3, noise=0.5), HardQuad(mu=3.0, distance=0.1, noise=0.5)]


@pytest.mark.parametrize("recipe", HARD, ids=lambda r: r.name)
def test_messages_are_slope_and_noise(recipe):
    signs = set()
    for seed in range(12):
        task, x = recipe.build(Cohort.of(40, 4), seed), torch.tensor([0.7], dtype=torch.float64)
        lean = 0.3 * sign(seed) * (1 if recipe.name == "hard_lin" else -1)
        signs.add(sign(seed))
        mean = 0.0 if recipe.name == "hard_lin" else 2.1
        rows = torch.stack([task.grads(x, task.draw(t)) for t in range(1, 60)])
        assert float(rows.mean()) == pytest.approx(mean + lean, abs=0.05)
        assert float(rows.std()) == pytest.approx(0.5, abs=0.03)
        torch.testing.assert_close(task.grads(x, task.full()), torch.full((40, 1), mean + lean).double())
    assert signs == {1.0, -1.0}


def test_the_gap_is_below_eps_in_the_correct_half_only():
    task = HardLin(theta=0.3, diameter=2.0).build(Cohort.of(5, 1), 1)
    side = -1.0 if float(task.lean) > 0 else 1.0
    for x, correct in ((0.1, 1.0), (-0.1, 0.0), (2.0, 1.0)):
        figures = task.measure(torch.tensor([side * x]).double())
        assert figures["correct"] == correct
        assert figures["loss"] == pytest.approx(0.3 * (2 - x))
        assert (figures["loss"] < 0.6) == bool(correct)


def test_the_quadratic_ends_at_its_distance():
    task = HardQuad(mu=3.0, distance=0.1).build(Cohort.of(5, 1), 2)
    figures = task.measure(torch.tensor([0.1 * sign(2)]).double())
    assert figures["loss"] == pytest.approx(0, abs=1e-15)
    assert figures["correct"] == 1


def test_clipped_noise_is_bounded():
    task = HardLin(theta=0.1, clip=0.5, noise=2.0).build(Cohort.of(30, 0), 0)
    assert max(float((task.grads(task.start(), task.draw(t)) - task.lean).abs().max()) for t in (1, 2)) <= 1


def _worlds(rounds: int, theta: float, n: int, seeds: int) -> dict[str, float]:
    """How often odd-symmetric rules of the workers' means are right, with liars by lot."""
    share, right = limits.fraction(theta, 1.0, rounds), {"mean": 0, "median": 0, "trimmed": 0}
    for seed in range(seeds):
        lots = torch.rand(n, generator=stream(seed, "lots"))
        liars = tuple((lots < share).nonzero().flatten().tolist())
        task = HardLin(theta=theta).build(Cohort.of(n, 0), seed).mirrored(liars, rounds)
        means = torch.cat([task.draw(t) + task.lean for t in range(1, rounds + 1)], dim=1).mean(dim=1)
        kept = means.sort().values[n // 5 : n - n // 5]
        for name, said in (("mean", means.mean()), ("median", means.median()), ("trimmed", kept.mean())):
            right[name] += bool(said * task.lean > 0)
    return {name: count / seeds for name, count in right.items()}


@pytest.mark.parametrize("n", [11, 101, 1001])
@pytest.mark.slow
def test_every_rule_is_right_half_the_time_at_the_exact_fraction(n):
    assert all(0.4 <= share <= 0.6 for share in _worlds(3, 0.15, n, 1000).values())


def test_a_weaker_crowd_of_liars_is_seen_through():
    share = limits.fraction(0.15, 1.0, 3)
    assert share > 0.05
    right = 0
    for seed in range(100):
        task = HardLin(theta=0.15).build(Cohort.of(1001, 0), seed)
        liars = tuple(range(int(1001 * share / 4)))
        task = task.mirrored(liars, 3)
        said = sum(task.draw(t).mean() + task.lean for t in (1, 2, 3))
        right += bool(said * task.lean > 0)
    assert right >= 90


@pytest.mark.parametrize("delta, theta", [(0.1, 0.05), (0.3, 0.2), (0.45, 0.5)])
def test_rounds_below_which_signs_cannot_be_told(delta, theta):
    rounds = limits.indistinguishable_rounds(delta, 1.0, theta)
    assert erf(theta * sqrt(rounds / 2)) == pytest.approx(delta / (1 - delta))
    assert limits.indistinguishable_rounds_small(delta, 1.0, theta) <= rounds
    assert limits.fraction(theta, 1.0, max(1, int(rounds))) <= delta or rounds < 1
    assert limits.indistinguishable_rounds_small(0.01, 1.0, theta) == pytest.approx(
        limits.indistinguishable_rounds(0.01, 1.0, theta), rel=1e-3
    )


def test_below_the_limit_the_method_itself_guesses():
    """Eight of forty lie where a' is just below 1/5."""
    right, seeds = 0, 60
    for seed in range(seeds):
        attackers = (torch.rand(40, generator=stream(seed, "w")) < limits.fraction(0.1, 1.0, 10)).nonzero()
        chosen = tuple(attackers.flatten().tolist())[:19]
        data = {"task": {"name": "hard_lin", "theta": 0.1}, "rule": "mean", "rounds": 10, "lr": 0.05}
        data |= {"attack": {"name": "indistinguishable", "rounds": 10}, "n": 40, "f": 19, "seed": seed}
        method = {"name": "byzantine_sgd", "noise": 3.5, "diameter": 1.0}
        found = run(Spec.of(data | {"method": method, "attackers": list(chosen)}))
        right += found.metrics["correct"] == 1
    assert 0.3 <= right / seeds <= 0.7


def test_other_tasks_are_refused():
    with pytest.raises(InvalidInput, match="secret sign"):
        Indistinguishable().poison(Quadratic().build(Cohort.of(5, 1), 0), (4,))
