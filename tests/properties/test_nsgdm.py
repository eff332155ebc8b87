"""Byz-NSGDM as arXiv:2603.12512 states it: equality with a slow twin, its inequalities, and its floors."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import sqrt

import numpy as np
import pytest
import torch

from byzopt.aggregators import NNM, RFA, Aggregator, Krum, Mean, Median, TrimmedMean
from byzopt.attacks import ALIE, IPM, Attack, BitFlip, Gaussian, Mimic, NoAttack, NotANumber
from byzopt.cohort import Cohort
from byzopt.methods import ByzNSGDM
from byzopt.schedules import Anytime, FixedHorizon, InverseSqrt, Schedule
from byzopt.tasks import Quartic
from byzopt.theory import nsgdm as theory
from tests.products import sampled
from tests.reference import nsgdm as twin
from tests.running import finish, play

KRUM, MEDIAN, GEOMETRIC = NNM(f=3) >> Krum(f=3), NNM(f=3) >> Median(f=3), NNM(f=3) >> RFA(f=3)
STILL = replace(Quartic(), noise_variance=0.0)

TWIN_PAIRS = {
    "nnm-krum-bit_flip": (
        NNM(f=2) >> Krum(f=2),
        BitFlip(),
        lambda r: twin.krum(twin.nnm(r, 2), 2),
        twin.bit_flip,
    ),
    "nnm-median-alie": (NNM(f=2) >> Median(), ALIE(), lambda r: twin.median(twin.nnm(r, 2)), twin.alie),
    "nnm-trim-ipm": (
        NNM(f=2) >> TrimmedMean(f=2),
        IPM(scale=1.0),
        lambda r: twin.trimmed_mean(twin.nnm(r, 2), 2),
        twin.inner_product,
    ),
    "krum-alie": (Krum(f=2), ALIE(), partial(twin.krum, f=2), twin.alie),
    "nnm-rfa-alie": (
        NNM(f=2) >> RFA(f=2, iterations=8, nu_absolute=0.1, start="zero"),
        ALIE(),
        lambda r: twin.rfa(twin.nnm(r, 2), 8, np.zeros(4), 0.1),
        twin.alie,
    ),
    "median-mimic": (Median(), Mimic(rounds=0, scale=1.0), twin.median, twin.inner_product),
    "mean-none": (Mean(), NoAttack(), twin.mean, twin.no_attack),
}


@pytest.mark.parametrize("pair, schedule", sampled(TWIN_PAIRS, [InverseSqrt(), Anytime()]))
def test_full_run_equals_the_slow_twin(pair: str, schedule: Schedule):
    rule, attack, aggregate, forged = TWIN_PAIRS[pair]
    n, last, recipe = 9, 200, replace(Quartic(), d=4)
    task = recipe.build(Cohort.of(n, 2), seed=5)
    noise = [task.draw(t).numpy() for t in range(1, last + 1)]
    path = twin.run(
        np.ones(4),
        lambda i, k, x: 4 * float(x @ x) * x + task.shifts[i].numpy() + noise[k - 1][i],
        n,
        range(7),
        aggregate,
        forged,
        [0.1 * schedule.gamma(k) for k in range(1, last + 1)],
        [schedule.eta(k, 0.1) for k in range(1, last + 1)],
    )
    ours = play(ByzNSGDM(schedule=schedule), rule, attack, recipe, n, 2, lr=0.1, last=last, seed=5)
    for snapshot, x in zip(ours, path[1:], strict=True):
        np.testing.assert_allclose(snapshot.x.numpy(), x, rtol=0, atol=1e-10)


def test_without_faults_trimmed_mean_after_nnm_walks_as_the_mean():
    run = {"byzantine": 0, "last": 100}
    ours = play(ByzNSGDM(), NNM(f=0) >> TrimmedMean(f=0), **run)
    for a, b in zip(ours, play(ByzNSGDM(), Mean(), **run), strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("attack", [BitFlip(), ALIE(), Mimic(), IPM()], ids=lambda a: a.name)
def test_both_momentum_conventions_walk_the_same_path_under_homogeneous_attacks(attack: Attack):
    average, ball = (play(ByzNSGDM(momentum=m), MEDIAN, attack, last=150) for m in ("average", "heavy_ball"))
    for a, b in zip(average, ball, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("attack", [BitFlip(), ALIE(), Mimic(rounds=5)], ids=lambda a: a.name)
@pytest.mark.parametrize("rule", [KRUM, MEDIAN, Mean()], ids=repr)
def test_descent_inequality_holds_in_every_round(rule: Aggregator, attack: Attack):
    task = STILL.build(Cohort.of(20, 3), seed=0)
    shifts = task.shifts[:17]
    lengths = [float(s.norm()) for s in shifts]
    x = task.start()
    tightest = np.inf
    for snapshot in play(ByzNSGDM(), rule, attack, STILL, lr=0.2, last=150):
        gamma = 0.2 / sqrt(snapshot.state.t)
        gradient = 4 * (x @ x) * x
        mean_norm = float((gradient + shifts).norm(dim=1).mean())
        error = float((gradient - snapshot.aggregate).norm())
        for l1 in (0.5, 2.0, 8.0):
            constants = theory.quartic(l1, lengths, 1.0)
            right = theory.descent_bound(
                float(x @ x) ** 2, float(gradient.norm()), error, gamma, constants.l0, l1, mean_norm
            )
            left = float(snapshot.x @ snapshot.x) ** 2
            assert left <= right * (1 + 1e-12)
            tightest = min(tightest, right / left)
        x = snapshot.x
    assert tightest < 10  # the right side is near enough to the left for this to be a test


@pytest.mark.parametrize(
    "attack", [ALIE(), pytest.param(BitFlip(), marks=pytest.mark.slow)], ids=lambda a: a.name
)
def test_theorem_1_bounds_the_mean_of_twenty_runs(attack: Attack):
    last, kappa = 60, MEDIAN.kappa_linear(20)
    assert kappa is not None
    norms = torch.zeros(20, last, dtype=torch.float64)
    l1 = 1.5
    gamma0 = theory.max_gamma0(l1, kappa)
    bounds = []
    for seed in range(20):
        task = Quartic().build(Cohort.of(20, 3), seed)
        lengths = task.shifts[:17].norm(dim=1).tolist()
        problem = theory.quartic(l1, lengths, sqrt(10), sigma=sqrt(10 * 1e-5))
        bounds.append(theory.theorem_bound(problem, kappa, last, gamma0, printed=False).total)
        run = play(ByzNSGDM(schedule=FixedHorizon()), MEDIAN, attack, lr=gamma0, last=last, seed=seed)
        norms[seed] = torch.stack([4 * s.asked.norm() ** 3 for s in run])
    measured = float(norms.mean(dim=0).min())
    assert measured <= min(bounds)
    assert min(bounds) < 1e4 * measured


FIELD = [BitFlip(), ALIE(), NotANumber()]
SLOW = [NoAttack(), Mimic(), ALIE(sign=-1), IPM(), Gaussian()]


@pytest.mark.parametrize(
    "attack", [*FIELD, *(pytest.param(attack, marks=pytest.mark.slow) for attack in SLOW)], ids=repr
)
def test_identical_workers_have_no_floor_under_any_attack(attack: Attack):
    task = replace(Quartic(), shift_variance=0.0)
    run = play(ByzNSGDM(schedule=Anytime()), MEDIAN, attack, task, lr=0.5, last=800)
    norms = [4 * float(s.asked.norm()) ** 3 for s in run]
    # The minimum itself would be luck, for the path is aimed at the origin; a mean of the tail bounds it.
    after_50, after_200, after_800 = (np.mean(norms[T * 3 // 4 : T]) for T in (50, 200, 800))
    assert after_800 < after_200 / 1.5 < after_50 / 3


@pytest.mark.parametrize(
    "attack", [ALIE(), pytest.param(BitFlip(), marks=pytest.mark.slow)], ids=lambda a: a.name
)
def test_floor_of_unlike_workers_is_proportional_to_their_heterogeneity(attack: Attack):
    zetas, floors = [], []
    for variance in (1e-5, 1e-3, 1e-1):
        task = replace(STILL, shift_variance=variance)
        shifts = task.build(Cohort.of(20, 3), 0).shifts[:17]
        zetas.append(float(shifts.square().sum(dim=1).mean().sqrt()))
        tail = [4 * float(s.x.norm()) ** 3 for s in play(ByzNSGDM(), MEDIAN, attack, task, lr=0.2, last=700)][
            -100:
        ]
        floors.append(float(np.mean(tail)))
    slopes = np.diff(np.log(floors)) / np.diff(np.log(zetas))
    assert ((slopes > 0.8) & (slopes < 1.2)).all()


# Section 6 as written: true gradient norms over runs. One run is asked to come within a factor 1.6 of them,
# because the shifts are drawn anew for each seed and move the floor by about that much.
RANGES = {"bit_flip": (0.012, 0.016), "mimic": (0.017, 0.022), "alie": (0.017, 0.018)}


@pytest.mark.parametrize("rule, attack", sampled([KRUM, GEOMETRIC, MEDIAN], [BitFlip(), Mimic(), ALIE()]))
def test_quartic_as_written_ends_at_its_byzantine_floor(rule: Aggregator, attack: Attack):
    tail = list(play(ByzNSGDM(), rule, attack, lr=0.2, last=800))[-100:]
    true = np.median([4 * float(s.x.norm()) ** 3 for s in tail])
    aggregate = np.median([s.report()["aggregate_norm"] for s in tail])
    low, high = RANGES[attack.name]
    assert low / 1.6 <= true <= high * 1.6
    assert 1e-4 <= aggregate <= 4e-3
    assert aggregate < true / 4  # the two metrics tell different stories


def test_floor_under_attack_does_not_depend_on_the_rate():
    ends = [finish(play(ByzNSGDM(), MEDIAN, BitFlip(), STILL, lr=lr, last=500)).x for lr in (0.1, 0.3)]
    assert float((ends[0] - ends[1]).norm()) < 0.1 * float(ends[0].norm())
