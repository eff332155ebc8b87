"""Constants that tasks state hold everywhere; estimates fit each other and the path; certificates."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from itertools import pairwise
from math import inf, sqrt

import pytest
import torch

from byzopt.aggregators import rule_from
from byzopt.certificates.audit import audit
from byzopt.certificates.curvature import hessian
from byzopt.certificates.estimates import estimate_constants
from byzopt.certificates.promised import bound_curve, complete_constants, spec_constants, spec_promise
from byzopt.certificates.refuted import check_stated_constants
from byzopt.certificates.smoothness import fit_to_path, honest_gradients, reconcile_estimates
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.experiments import Spec
from byzopt.methods import METHODS
from byzopt.rng import stream
from byzopt.tasks import LogisticRegression, Quadratic, Quartic, Task, WorkerProxy
from byzopt.theory.byzantine_sgd import tail

COHORT = Cohort.of(8, 2)
TASKS: dict[str, Task] = {
    "logistic": LogisticRegression(batch=3, l2=0.02).build(COHORT, 1),
    "logistic, all data": LogisticRegression(batch=0, l2=0.0, unit_norm=True).build(COHORT, 2),
    "quadratic": Quadratic(d=5, mu=0.1, spread=0.4, heterogeneity=1.0, proxy=WorkerProxy(0)).build(COHORT, 3),
    "quadratic, alike": Quadratic(d=5, mu=0.1, heterogeneity=1.0, noise=0.0).build(COHORT, 4),
    "quartic": Quartic(d=4, shift_variance=0.3).build(COHORT, 5),
}


def points(task: Task, count: int = 12) -> list[torch.Tensor]:
    generator = stream(0, "points")
    d = task.layout.d
    scales = [10 ** (k / 4 - 2) for k in range(count)]
    return [
        task.start() + s * torch.randn(d, dtype=torch.float64, generator=generator).to(task.start())
        for s in scales
    ]


@pytest.mark.parametrize("name", TASKS)
def test_what_a_task_states_holds_at_points_near_and_far(name):
    task, told = TASKS[name], TASKS[name].stated()
    seen = [(x, honest_gradients(task, x)) for x in points(task)]
    curves = told.get("curves") or ((told["l0"], told["l1"]),)
    for x, rows in seen:
        mean = rows.mean(dim=0)
        variance = float((rows - mean).square().sum(dim=1).mean())
        for g, b in told.get("pairs", ()):
            assert variance <= (g**2 + b**2 * float(mean @ mean)) * (1 + 1e-9)
        if told.get("zeta") is not None:
            assert sqrt(variance) == pytest.approx(told["zeta"], rel=1e-6)
        for y, others in seen:
            length, change = float((x - y).norm()), (rows - others).norm(dim=1)
            if length == 0:
                continue
            if told.get("lipschitz") is not None:
                assert float((rows - others).mean(dim=0).norm()) <= told["lipschitz"] * length * (1 + 1e-9)
                assert float(change.square().mean().sqrt()) <= told["local"] * length * (1 + 1e-9)
            if length < 0.1:  # near enough for the ends to stand for the way between them
                longest = torch.maximum(rows.norm(dim=1), others.norm(dim=1)) * 1.05
                for l0, l1 in curves:
                    assert bool((change <= (l0 + l1 * longest) * length * (1 + 1e-9)).all())


def test_smoothness_of_logistic_regression_is_reached_at_the_origin():
    task = TASKS["logistic"]
    told, x = task.stated(), task.start()
    whole = hessian(lambda y: task.objective(y)[1], x)
    # Central differences of width 6e-6 are off by about 1e-10.
    assert told["lipschitz"] == pytest.approx(float(torch.linalg.eigvalsh(whole)[-1]), rel=1e-8)
    assert told["lipschitz"] <= told["local"] <= told["sample"]
    assert told["local"] <= told["l0"]


def test_minibatches_are_less_smooth_than_their_mean():
    """In the mean square: by Jensen ℓ >= L_i, and for one sample a E‖a‖² (a'v)² says how much."""
    one = LogisticRegression(batch=1, l2=0.0, unit_norm=True).build(COHORT, 2).stated()
    all_data = TASKS["logistic, all data"].stated()
    assert one["sample"] > 1.4 * one["local"] > 0
    assert all_data["sample"] == all_data["local"]


def test_gaussian_noise_escapes_a_length_as_seldom_as_is_said():
    drawn = torch.randn(200_000, 6, dtype=torch.float64, generator=stream(0, "tail"))
    lengths = 0.3 * drawn.norm(dim=1)
    for length in (1.2, 1.5, 1.8):
        assert float((lengths > length).double().mean()) <= tail(length, 0.3, 6, 1)
    lone = (0.3 * drawn[:, 0].abs() > 0.6).double().mean()
    assert float(lone) == pytest.approx(tail(0.6, 0.3, 1, 1), rel=0.05)
    assert tail(0.1, 0.3, 6, 10) == 1.0
    assert tail(1.0, 0.0, 6, 10) == 0.0


def test_estimates_that_contradict_each_other_or_the_path_are_raised_and_it_is_said():
    task = TASKS["quadratic"]
    path = [task.start(), task.optimum, task.start() / 2]
    low = {"lipschitz": 0.01, "local": 0.005, "sample": 0.001, "l0": 0.0, "l1": 1e-3, "curves": ((0.0, 0.0),)}
    low |= {"sigma": 2.0, "bound": 0.5, "mu": 5.0, "start_gradient": 1.0, "gap": 2.0}
    found, notes = reconcile_estimates(task, low, {}, [path])
    assert found["lipschitz"] >= 0.25  # ‖∇f‖²/(2 gap)
    assert found["lipschitz"] <= found["local"] <= found["sample"]
    assert found["l0"] > 0.1
    ((l0, l1),) = found["curves"]
    assert l0 >= found["l0"]
    assert l1 == 0.0
    assert found["bound"] == 2.0
    assert found["mu"] == found["lipschitz"]
    assert {note.partition(" ")[0] for note in notes} == {"lipschitz", "local", "sample", "l0", "bound", "mu"}
    kept, none = reconcile_estimates(task, low, dict(low), [path])  # what is stated stays
    assert kept == low
    assert none == []
    for x, y in pairwise(path):
        a, b = honest_gradients(task, x), honest_gradients(task, y)
        longest = torch.maximum(a.norm(dim=1), b.norm(dim=1))
        allowed = (found["l0"] + found["l1"] * longest) * float((x - y).norm())
        assert bool(((a - b).norm(dim=1) <= allowed * (1 + 1e-9)).all())


def test_constants_fit_the_path_of_a_run():
    task = TASKS["logistic"]
    known = estimate_constants(task, rule_from("median", f=2), 2, 10)
    low = replace(known, l0=1e-3, l1=0.0, exact=frozenset())
    after = fit_to_path(task, low, points(task, 4))
    assert after.l0 > 0.01
    assert any("path" in note for note in after.notes)
    assert fit_to_path(task, known, points(task, 4)) == known  # what is certain fits


QUARTIC = {
    "n": 12, "f": 2, "rounds": 20, "lr": 0.01, "rule": "nnm >> rfa", "attack": "alie", "eval_every": 5,
    "method": {"name": "byz_nsgdm", "schedule": "fixed_horizon"}, "task": {"name": "quartic", "d": 4},
}  # fmt: skip


def test_theorem_1_has_a_number_where_every_answer_is_certified():
    spec = Spec.of(QUARTIC)
    known, told = spec_promise(spec)
    assert spec.rule.kappa_linear(12) is None
    assert known.origin == "certified"
    assert 0 < known.kappa_linear < inf
    assert told.bound is not None
    assert any("certified in every round" in premise for premise in told.estimated)  # noise: one run of many
    seen = audit(spec)
    assert seen.worst == (known.kappa_squared, known.kappa_linear)
    assert seen.linear_hat <= seen.worst[1]
    assert seen.certified.bound == pytest.approx(told.bound)
    assert seen.proved["byz_nsgdm"].bound is None


def test_certificates_in_records_stand_for_the_rounds_that_were_recorded():
    spec = Spec.of(QUARTIC)
    start = spec_constants(spec)
    record = {"certified_linear": 2.5, "certified_squared": 3.0}
    some = complete_constants(spec, start, records=[record | {"t": t} for t in (5, 10, 15, 20)])
    assert (some.origin, some.kappa_linear, some.kappa_squared) == ("recorded", 2.5, 3.0)
    assert any("that were recorded" in p for p in spec.method.promise(some).estimated)
    every = complete_constants(spec, start, records=[record | {"t": t} for t in range(1, 21)])
    assert every.origin == "certified"
    none = {"t": 10, "certified_linear": inf, "certified_squared": inf}
    lost = complete_constants(spec, start, records=[record | {"t": 5}, none])
    told = spec.method.promise(lost)
    assert told.bound is None
    assert any("could be certified" in reason for reason in told.missing)
    assert bound_curve(spec, start, records=[record | {"t": 20}]).promise.bound is not None


def test_what_else_fails_is_told_where_no_certificate_would_help():
    spec = Spec.of(QUARTIC | {"lr": 1e9})
    known, told = spec_promise(spec)
    assert known.origin == "proved"  # no run was played
    assert told.bound is None
    assert any("Whatever it is" in reason and "γ0 is at most" in reason for reason in told.missing)


def test_an_audit_without_any_spread_says_infinite_and_promises_nothing():
    task = {"name": "quadratic", "d": 3, "noise": 0.0, "heterogeneity": 0.0}
    spec = Spec.of(
        {"n": 6, "f": 2, "rounds": 4, "lr": 0.1, "rule": "mean", "attack": "sign_flip", "method": "robust_gd"}
        | {"task": task}
    )
    found = audit(spec)
    assert found.kappa_hat == found.linear_hat == inf
    assert found.zeta_squared == inf
    assert found.measured["robust_gd"].bound is None
    assert any("infinite" in reason for reason in found.measured["robust_gd"].missing)
    assert METHODS.build("robust_gd").promise(found.known).bound is None


def stating(told: dict[str, object]) -> Task:
    """A quadratic that states other constants than its own: L = 1, mu = 0.1, zeta about 0.5."""
    task = copy(Quadratic(d=3, mu=0.1, heterogeneity=0.5, noise=0.3).build(COHORT, 0))
    task.stated = lambda: type(task).stated(task) | told  # type: ignore[method-assign]
    return task


@pytest.mark.parametrize(
    "told",
    [
        {"lipschitz": 0.1},
        {"local": 0.1},
        {"sample": 0.1},
        {"l0": 0.1},
        {"curves": ((0.1, 0.0),)},
        {"zeta": 0.01},
        {"pairs": ((0.01, 0.01),)},
        {"sigma": 0.0},
        {"mu": 5.0},
        {"gap": 0.01},
        {"diameter": 0.01},
        {"gradient": 0.01},
    ],
)
def test_a_task_that_states_what_is_refuted_is_refused(told):
    (name,) = told
    with pytest.raises(InvalidInput, match=rf"Constant `{name}` that the task states should .* Found"):
        estimate_constants(stating(told), rule_from("median", f=2), 2, 10)


def test_a_stated_constant_that_is_no_name_or_larger_than_needed_is_told_apart():
    with pytest.raises(InvalidInput, match=r"lipshitz.*Did you mean 'lipschitz'"):
        estimate_constants(stating({"lipshitz": 1.0}), rule_from("median", f=2), 2, 10)
    loose = {"lipschitz": 3.0, "local": 3.0, "mu": 0.05, "gap": 9.0, "zeta": 2.0, "pairs": ((2.0, 0.0),)}
    assert estimate_constants(stating(loose), rule_from("median", f=2), 2, 10).lipschitz == 3.0


def test_a_loss_that_bends_down_is_not_convex_whatever_its_task_states():
    task = stating({"convex": True})
    upright = task.grads
    task.grads = lambda x, batch: -upright(x, batch)  # type: ignore[method-assign]
    points = [task.start(), task.start() + 1]
    found = {"start_gradient": 1.0}
    with pytest.raises(InvalidInput, match="`convex` that the task states"):
        check_stated_constants(task, {"convex": True}, found, points, None)
    check_stated_constants(task, {"convex": False}, found, points, None)
