"""Bounds of theorems against measured runs on quadratics: every method that promises one, under attack."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean
from typing import Any

import pytest

from byzopt.aggregators import rule_from
from byzopt.certificates.estimates import estimate_constants
from byzopt.cohort import Cohort
from byzopt.experiments import simulate
from byzopt.methods import METHODS, ByzantineSGD
from byzopt.tasks import HardLin, Quadratic, Task, WorkerProxy
from byzopt.theory.promise import Constants, Promise
from tests.bounded import Bowl, Setup
from tests.products import sampled
from tests.running import play

RULE = "nnm >> trimmed_mean"
TOP = {"name": "top_k", "ratio": 0.5}
# What a method takes from the constants of the task, and the rest of its recipe.
GIVEN = {"rule": "mean", "convex": True, "sampling": "fresh", "zeta": 0.0, "sigma": 1.0}
TAKES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "robust_gd": ((), {}),
    "nag": (("mu",), {}),
    "accelerated_extragradient": (("mu",), {}),
    "pigs": (("mu", "delta"), {}),
    "aeg_prox": (("mu", "delta"), {}),
    "byz_dm21": ((), {"eta": 0.2, "compressor": TOP}),
    "byz_nsgdm": ((), {"schedule": "fixed_horizon"}),
}
ATTACKS = ["none", "sign_flip", "alie", "optimal_alie", "optimal_ipm", "gaussian"]


def built(noise: float, spread: float, seed: int = 0) -> Task:
    recipe = Quadratic(
        d=6, mu=0.05, noise=noise, heterogeneity=0.3, spread=spread, proxy=WorkerProxy(0), gap=True
    )
    return recipe.build(Cohort.of(21, 2), seed)


def promised(name: str, task: Task, rounds: int) -> tuple[Any, Promise, Constants]:
    known = estimate_constants(task, rule_from(RULE, f=2), 2, rounds)
    needs, rest = TAKES[name]
    recipe = METHODS.build({"name": name} | {key: getattr(known, key) for key in needs} | rest)
    known = replace(known, unmet=0, watched=rounds)
    promise = recipe.promise(known)
    assert promise.bound is not None, promise.missing
    return recipe, promise, known


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ["robust_gd", "nag", "accelerated_extragradient", "pigs", "aeg_prox"])
@pytest.mark.slow
def test_gaps_of_exact_gradients_stay_below_the_bound_after_any_number_of_rounds(name, attack):
    for spread in (0.0, 0.02):
        task = built(0.0, spread)
        recipe, promise, known = promised(name, task, 150)
        lr = promise.steps["lr"]
        outcome = simulate(task, RULE, lr, 150, 2, recipe, attack, eval_every=10)
        for record in outcome.records:
            if record["t"] < 1:
                continue
            bound = recipe.promise(replace(known, rounds=int(record["t"]))).bound
            assert record["gap"] <= bound


SOME = ["sign_flip", "alie", *(pytest.param(name, marks=pytest.mark.slow) for name in ("none", "ipm"))]


@pytest.mark.parametrize("attack", SOME)
def test_mean_squares_of_double_momentum_stay_below_the_bound(attack):
    found, bounds = [], []
    for seed in range(4):
        task = built(0.5, 0.0, seed)
        recipe, promise, _ = promised("byz_dm21", task, 200)
        run = play(recipe, rule_from(RULE, f=2), attack, task, 21, 2, promise.steps["lr"], 200, seed)
        found.append(mean(task.measure(snapshot.asked)["grad_norm"] ** 2 for snapshot in run))
        bounds.append(promise.bound)
    assert mean(found) <= mean(bounds)


@pytest.mark.parametrize("attack", SOME)
def test_least_gradients_of_normalised_momentum_stay_below_the_bound(attack):
    found, bounds = [], []
    for seed in range(4):
        task = built(0.5, 0.0, seed)
        recipe, promise, _ = promised("byz_nsgdm", task, 200)
        run = play(recipe, rule_from(RULE, f=2), attack, task, 21, 2, promise.steps["lr"], 200, seed)
        found.append(min(task.measure(snapshot.asked)["grad_norm"] for snapshot in run))
        bounds.append(promise.bound)
    assert mean(found) <= mean(bounds)


def test_no_method_with_a_bound_is_left_out():
    known = Constants(
        n=21, f=2, d=6, rounds=100, attackers=2, tolerated=2, rule="mean", convex=True, sampling="fresh",
        unmet=0, watched=100, start_gradient=1.0, start_rows=1.0, lipschitz=1.0, local=1.0, sample=1.0,
        passes=1.0, l0=1.0, l1=0.0, mu=0.1,
        sigma=0.1, bound=0.2, zeta=0.0, g=0.0, b=0.0, delta=0.1, diameter=1.0, gradient=1.0, gap=1.0,
        star_gap=0.1, kappa_linear=0.5, kappa_squared=0.5,
    )  # fmt: skip
    bounded = {}
    for name in METHODS:
        rest = {
            "byz_nsgdm": {"schedule": "fixed_horizon"},
            "byzantine_sgd": {"noise": 0.2, "diameter": 1.0},
        }.get(name, {})
        promise = METHODS.build({"name": name} | rest).promise(known)
        bounded[name] = promise is not None and promise.bound is not None
    assert {name for name, has in bounded.items() if has} == {*TAKES, "byzantine_sgd"}


@pytest.mark.parametrize(
    "attack, average",
    sampled(
        ["none", "sign_flip", "alie", "hug", "straddle", "sleeper", "a_only"],
        ["smooth", "nonsmooth"],
    ),
)
def test_gaps_of_byzantine_sgd_stay_below_the_bound(attack, average):
    recipe = ByzantineSGD(noise=1.0, diameter=1.0, average=average)
    known = Constants(
        n=10, f=4, d=5, rounds=150, attackers=4, bound=1.0, diameter=0.5, lipschitz=1.0, gradient=1.5, **GIVEN
    )
    promise = recipe.promise(known)
    for seed in range(3):
        end = Setup(last=150, lr=promise.steps["lr"]).run(recipe, attack, seed)[-1]
        assert Bowl(Cohort.of(10, 4)).measure(end.x)["loss"] <= promise.bound


def test_epochs_of_theory_keep_their_word():
    """A thousandth of the noise, for which theory's lengths can be run."""
    curved = ByzantineSGD(noise=1e-3, diameter=1.0, epochs="theory", mu=1.0, L=1.0, n=10, f=2)
    known = Constants(
        n=10, f=2, d=5, rounds=400, attackers=2, bound=1e-3, diameter=0.5, lipschitz=1.0, mu=1.0, **GIVEN
    )
    promise = curved.promise(known)
    assert promise.steps["epochs"] > 1
    for attack in ("none", "hug", "straddle"):
        end = Setup(f=2, last=400, lr=1.0, noise=1e-3).run(curved, attack)[-1]
        assert Bowl(Cohort.of(10, 2)).measure(end.x)["loss"] <= promise.bound
    practical = replace(curved, epochs="practical").promise(known)
    assert practical.bound is None
    assert "as long as in theory" in practical.missing[0]


def test_a_linear_objective_has_a_bound_and_wrong_constants_have_none():
    task = HardLin(theta=0.1, noise=1.0, clip=3.0).build(Cohort.of(20, 4), 0)
    known = estimate_constants(task, rule_from("mean"), 4, 400)
    recipe = ByzantineSGD(noise=3.0, diameter=1.0)
    promise = recipe.promise(known)
    assert promise.bound > 0
    assert promise.missing == ()
    low = replace(recipe, noise=0.5).promise(known)
    assert "no longer than V" in low.missing[0]
    near = replace(known, diameter=2.0)
    assert "D = 1" in recipe.promise(near).missing[0]
    still = recipe.promise(replace(known, lipschitz=0.0, bound=0.0))
    assert still.bound > 0  # V as declared
    assert "no step is too long" in replace(recipe, noise=0.0).promise(replace(known, bound=0.0)).missing[0]
