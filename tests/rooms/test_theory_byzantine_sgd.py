"""The formulas of ByzantineSGD: orientation figures, bounds, epochs, promises."""

from __future__ import annotations

from dataclasses import replace
from math import log, sqrt
from typing import Any

import pytest
from scipy.optimize import minimize_scalar

from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.methods import ByzantineSGD, SafeguardSGD
from byzopt.theory import byzantine_epochs as epochs
from byzopt.theory import byzantine_limits as limits
from byzopt.theory import byzantine_sgd as theory
from byzopt.theory import safeguard
from byzopt.theory.byzantine_epochs import Curved
from byzopt.theory.byzantine_sgd import GuardSetting
from byzopt.theory.promise import Constants
from tests.bounded import Bowl, Setup

AT = GuardSetting(10, 4, 2000, 1.0, 1.0)


def test_orientation_figures():
    assert AT.log == pytest.approx(15.6718, abs=1e-4)
    assert theory.thresholds(AT).b == pytest.approx(708.165, abs=1e-3)
    assert theory.thresholds(AT).b / sqrt(2000) == pytest.approx(15.835, abs=1e-3)


@pytest.mark.parametrize(
    "rule, select, test", [("default", 2, 4), ("proved", 2**1.5, 2**2.5), ("printed", 4, 4)]
)
def test_thresholds_by_rule(rule, select, test):
    found = theory.thresholds(GuardSetting(7, 2, 300, 0.3, 5.0, 0.01), rule)
    unit = 0.3 * sqrt(300 * log(16 * 7 * 300 / 0.01))
    assert found == pytest.approx((4 * 5 * unit, test * unit, select * unit))


@pytest.mark.parametrize("error2, w", [("lemma", 64), ("triangle", 196), ("printed", 32)])
@pytest.mark.parametrize("f", [0, 3])
def test_the_step_minimises_the_bound(error2, w, f):
    at = GuardSetting(12, f, 5000, 0.7, 2.0)
    step = theory.smooth_step(at, 0.5, error2)
    big = 0.49 * (8 * at.log / 12 + w * (f / 12) ** 2)
    rest = 8 * 2 * 0.7 * sqrt(at.log / 5000 / 12) + 32 * f / 12 * 2 * 0.7 * sqrt(at.log / 5000)
    bound = theory.smooth_bound(at, 0.5, step, error2)
    assert step < 1
    assert bound.total == pytest.approx(2 * 2 * sqrt(big / 5000) + rest)
    best = minimize_scalar(
        lambda s: theory.smooth_bound(at, 0.5, s, error2).total, bounds=(1e-6, 1), method="bounded"
    )
    assert best.x == pytest.approx(step, rel=1e-3)
    rough = theory.nonsmooth_step(at, 3.0, error2)
    best = minimize_scalar(
        lambda s: theory.nonsmooth_bound(at, 3.0, s, error2).total, bounds=(1e-6, 1), method="bounded"
    )
    assert best.x == pytest.approx(rough, rel=1e-3)


def test_steps_are_capped_and_without_noise_the_cap_is_all():
    assert theory.smooth_step(replace_noise(0.0), 4.0) == 1 / 8
    assert theory.smooth_bound(replace_noise(0.0), 4.0, 1 / 8).total == pytest.approx(8 / 2000)
    with pytest.raises(InvalidInput, match=r"1/\(2L\)"):
        theory.smooth_bound(AT, 4.0, 0.2)


def replace_noise(noise: float) -> GuardSetting:
    return replace(AT, noise=noise)


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("lengths", ["theory", "practical"])
def test_every_epoch_halves_the_radius_within_its_bound(smooth, lengths):
    problem = Curved(20, 4, 0.5, 3.0, 0.2, 2.0 if smooth else None, None if smooth else 1.5)
    made = epochs.schedule(problem, 6, lengths)
    for s, epoch in enumerate(made):
        assert epoch.radius == 3.0 / 2**s
        if lengths == "theory":
            at = GuardSetting(20, 4, epoch.rounds, 0.5, epoch.radius, 0.05 / 6)
            bound = (
                theory.smooth_bound(at, 2.0, epoch.step)
                if smooth
                else theory.nonsmooth_bound(at, 1.5, epoch.step)
            )
            assert bound.total <= 0.2 * epoch.radius**2 / 8
    assert made[-1].rounds / made[-2].rounds == pytest.approx(4, rel=0.1)


def test_the_number_of_epochs_reaches_the_accuracy():
    problem = Curved(20, 4, 0.5, 3.0, 0.2, 2.0)
    for eps in (10.0, 1e-2, 1e-5):
        count = epochs.epochs_to(problem, eps)
        assert 0.2 * (3.0 / 2 ** (count - 1)) ** 2 / 8 <= eps or count == 1
        assert count == 1 or 0.2 * (3.0 / 2 ** (count - 3)) ** 2 / 8 > eps


@pytest.mark.parametrize("rounds", [1, 100, 5000, 10**7])
def test_epochs_within_rounds_use_them_all(rounds):
    problem = Curved(20, 4, 0.5, 3.0, 0.2, 2.0)
    made = epochs.within(problem, rounds, "practical")
    assert sum(epoch.rounds for epoch in made) == rounds
    if len(made) > 1:
        full = epochs.schedule(problem, len(made), "practical")
        assert [e.rounds for e in made[:-1]] == [e.rounds for e in full[:-1]]
        assert made[-1].rounds >= full[-1].rounds
        longer = epochs.schedule(problem, len(made) + 1, "practical")
        assert sum(e.rounds for e in longer) > rounds


def test_epochs_know_exactly_one_of_l_and_m():
    with pytest.raises(InvalidInput, match="one of L and M"):
        epochs.schedule(Curved(9, 1, 1.0, 1.0, 1.0), 2)


def test_lower_bounds_scale_as_stated():
    one = limits.convex_rounds(20, 0.3, 1.0, 2.0, 0.1)
    assert limits.convex_rounds(20, 0.3, 1.0, 2.0, 0.05) == pytest.approx(4 * one)
    assert limits.convex_floor(20, 0.3, 1.0, 2.0, round(one)) == pytest.approx(0.1, rel=1e-3)
    assert limits.strongly_convex_rounds(10**9, 0.2, 1.0, 2.0, 0.1) == pytest.approx(1.0)


def test_error_terms_and_the_rounds_of_a_constant_bias():
    assert theory.error1(AT) == pytest.approx(sqrt(2000 * AT.log) * (4 * sqrt(10) + 64))
    assert theory.error2(AT, "printed") == pytest.approx(4 * AT.log / 10 + 16 * 0.16)
    assert theory.caught_by(0.5, 2.0, 10.0) == 2560


def known(**more: Any) -> Constants:
    """A convex problem of which everything but what theorems ask for besides is known."""
    own = {"attackers": 4, "rule": "mean", "convex": True, "sampling": "fresh", "zeta": 0.0, "sigma": 1.0}
    return Constants(n=10, f=4, d=5, rounds=200, **own | more)


@pytest.mark.parametrize("seeds", [(0,), pytest.param((1, 2), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("attack", ["none", "hug", "straddle", "a_only"])
def test_the_promise_holds_in_runs(attack, seeds):
    recipe = ByzantineSGD(noise=1.0, diameter=1.0)
    promise = recipe.promise(known(bound=1.0, diameter=1.0, lipschitz=1.0))
    assert promise.bound == pytest.approx(
        theory.smooth_bound(replace(AT, rounds=200), 1.0, promise.steps["lr"]).total
    )
    for seed in seeds:
        end = Setup(last=200, lr=promise.steps["lr"]).run(recipe, attack, seed)[-1]
        task = Bowl(Cohort.of(10, 4))
        assert task.measure(end.x)["loss"] <= promise.bound


def test_what_a_promise_lacks_is_named():
    recipe = ByzantineSGD(noise=1.0, diameter=1.0)
    told = recipe.promise(known(diameter=1.0)).missing
    assert [reason.partition(":")[0] for reason in told] == ["unknown", "unknown"]
    assert "no longer than V" in told[0]
    assert "L-smooth" in told[1]
    rough = replace(recipe, average="nonsmooth")
    assert "‖∇f‖ <= M" in rough.promise(known(bound=1.0, diameter=1.0)).missing[0]
    assert rough.promise(known(bound=1.0, diameter=1.0, gradient=2.0)).bound > 0
    learnt = ByzantineSGD().promise(known(bound=1.0, diameter=1.0, lipschitz=1.0))
    assert learnt.bound is None
    assert len(learnt.missing) == 2  # neither V nor D is given to the method


def test_safeguard_formulas():
    assert safeguard.threshold(100, 2000, 10, 0.5) == pytest.approx(4 * 10 * sqrt(AT.log))
    scales = safeguard.scales(10, 4, 50, 0.1, 2.0)
    assert scales.variance == pytest.approx(0.26)
    assert scales.short * scales.step == pytest.approx(1)
    assert scales.long == pytest.approx(scales.short / sqrt(0.1))
    assert scales.rounds == pytest.approx(2 * 50 * 0.26 / 1e-4)
    assert safeguard.scales(10, 4, 50, 0.1, 2.0, second_order=False).rounds * 50 == pytest.approx(
        scales.rounds
    )
    promise = SafeguardSGD(windows=(100,)).promise(Constants(n=10, f=4, d=5, rounds=2000, bound=0.5))
    assert promise.steps["threshold_0"] == pytest.approx(40 * sqrt(AT.log))
    assert promise.bound is None
